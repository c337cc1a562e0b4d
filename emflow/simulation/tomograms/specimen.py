"""A specimen in ice: its potential, what every voxel of it is, and where its particles are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from emflow.simulation.fields import smooth_field_of
from emflow.simulation.library import ParticleLibrary
from emflow.simulation.ranges import log_uniform, uniform
from emflow.simulation.shapes import Structure
from emflow.simulation.tomograms.canvas import Canvas
from emflow.simulation.tomograms.filaments import add_actin, add_microtubule
from emflow.simulation.tomograms.membranes import add_sheet, add_vesicle
from emflow.simulation.tomograms.ranges import TomogramRanges
from emflow.simulation.tomograms.ribosomes import ribosome_like
from emflow.tomogram_classes import Label

# Vitreous ice's mean inner potential, which is missing where there is none.
ICE_VOLT = 4.5
CARBON_VOLT = 4.0
GOLD_VOLT = 18.0  # 24 V in the bulk; the weak-phase sum has no place for all of it
_PROTEIN_VOLT = 2.6
_DALTON_PER_CUBIC_ANGSTROM = 0.81
_VOLT_PER_DALTON = _PROTEIN_VOLT / _DALTON_PER_CUBIC_ANGSTROM  # volt cubic angstrom
_MARGIN_VOXELS = 10
_RIBOSOMES_KEPT = 6
_CROWDERS_DRAWN = 4  # for each that is wanted, as many have no room
_DRAWS = 100  # of complexes, before a library is taken to have none of such masses


@dataclass(frozen=True)
class Particle:
    """A particle of the truth: its class, its centre, and the rotation that its structure was given.

    ``centre_angstrom`` is (x, y, z) from the specimen's centre; the angles are RELION's rot, tilt and psi
    of the particle in the specimen. ``kilodalton`` is what protein of its potential weighs.
    """

    label: Label
    species: str
    centre_angstrom: tuple[float, float, float]
    rot_degrees: float
    tilt_degrees: float
    psi_degrees: float
    diameter_angstrom: float
    kilodalton: float


@dataclass(frozen=True)
class Specimen:
    """Potential in volt less that of ice, float32 (z, y, x); labels uint8 alike; and the particles."""

    volts: NDArray[np.float32]
    labels: NDArray[np.uint8]
    pixel_size_angstrom: float
    particles: list[Particle] = field(default_factory=list)


def specimen_depth(ranges: TomogramRanges, pixel_size_angstrom: float) -> int:
    """Return the even number of voxels that the thickest ice and its margins need."""
    return 2 * math.ceil(ranges.thickness_angstrom[1] / pixel_size_angstrom / 2) + 2 * _MARGIN_VOXELS


def draw_specimen(
    rng: np.random.Generator,
    ranges: TomogramRanges,
    shape: tuple[int, int, int],
    pixel_size_angstrom: float,
    *,
    library: ParticleLibrary | None = None,
    ribosomes: Sequence[Structure] = (),
    complexes: Sequence[Structure] = (),
) -> Specimen:
    """Draw a specimen.

    Compact things (ribosomes, complexes, filaments, gold) overlap neither each other nor membranes, nor do
    the small crowders that fill what is left; vesicles may touch.

    Parameters
    ----------
    shape
        (z, y, x) in voxels.
    library
        Where complexes come from that are not given; a training library when None.
    ribosomes, complexes
        Structures that take the place of made-up ones, for example atomic models that were held apart.
    """
    canvas = Canvas(shape, pixel_size_angstrom)
    top, bottom = _ice(rng, ranges, canvas)
    cubic_micrometres = float((bottom - top).clip(0).sum()) * (pixel_size_angstrom / 1e4) ** 3
    _add_membranes(rng, ranges, canvas, cubic_micrometres)
    if rng.random() < ranges.microtubule_probability:
        for _ in range(round(uniform(rng, ranges.microtubules))):
            add_microtubule(rng, canvas)
    if rng.random() < ranges.actin_probability:
        for _ in range(round(uniform(rng, ranges.actin_filaments))):
            add_actin(rng, canvas)
    particles: list[Particle] = []
    if rng.random() < ranges.ribosome_probability:
        kinds = list(ribosomes) or [ribosome_like(rng) for _ in range(_RIBOSOMES_KEPT)]
        count = rng.poisson(log_uniform(rng, ranges.ribosomes) * cubic_micrometres)
        particles += _add_structures(rng, canvas, kinds, Label.RIBOSOME, count)
    if rng.random() < ranges.complex_probability:
        kinds = list(complexes) or _complexes(rng, ranges, library)
        count = rng.poisson(log_uniform(rng, ranges.complexes) * cubic_micrometres)
        particles += _add_structures(rng, canvas, kinds, Label.COMPLEX, count)
    gold = rng.random() < ranges.gold_probability
    if gold:
        _add_gold(rng, ranges, canvas, rng.poisson(log_uniform(rng, ranges.gold_beads) * cubic_micrometres))
    _add_crowders(rng, ranges, canvas)
    volts = canvas.rendered()
    if rng.random() < ranges.carbon_probability:
        _add_carbon(rng, canvas, volts, top, bottom)
    void = canvas.labels == Label.VOID
    volts[void] = 0
    # Faces a voxel or two wide, as an ice's are after reconstruction.
    volts -= ICE_VOLT * ndimage.gaussian_filter(void.astype(np.float32), 0.8)
    return Specimen(volts, canvas.labels, pixel_size_angstrom, particles)


def _ice(
    rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mark what is outside the ice as void; return the z of its faces (y, x), in voxels."""
    depth, height, width = canvas.shape
    thickness = uniform(rng, ranges.thickness_angstrom) / canvas.pixel_size_angstrom
    thickness = min(thickness, depth - _MARGIN_VOXELS)
    faces = []
    y, x = np.mgrid[:height, :width]
    around = rng.random() * 2 * math.pi
    common = math.tan(math.radians(uniform(rng, ranges.face_tilt_degrees)))
    for side in (-0.5, 0.5):
        slope = common + 0.3 * common * rng.standard_normal()
        plane = slope * (math.cos(around) * (x - width / 2) + math.sin(around) * (y - height / 2))
        roughness = uniform(rng, ranges.face_roughness_angstrom) / canvas.pixel_size_angstrom
        rough = roughness * smooth_field_of(rng, (height, width), uniform(rng, (20.0, 60.0)))
        faces.append((depth / 2 + side * thickness + plane + rough).astype(np.float32))
    z = np.arange(depth, dtype=np.float32)[:, None, None]
    canvas.labels[(z < faces[0]) | (z > faces[1])] = Label.VOID
    canvas.taken |= canvas.labels == Label.VOID
    return faces[0].clip(0, depth), faces[1].clip(0, depth)


def _add_membranes(
    rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas, cubic_micrometres: float
) -> None:
    count = rng.poisson(log_uniform(rng, ranges.vesicles) * cubic_micrometres)
    for _ in range(count):
        add_vesicle(rng, ranges, canvas)
    if rng.random() < ranges.sheet_probability:
        add_sheet(rng, ranges, canvas)


def _complexes(
    rng: np.random.Generator, ranges: TomogramRanges, library: ParticleLibrary | None
) -> list[Structure]:
    """Draw a few complexes: made-up ones, scaled to a mass of the range, or molecules of such a mass."""
    library = library or ParticleLibrary("train")
    low, high = ranges.complex_kilodalton
    found: list[Structure] = []
    wanted = int(rng.integers(1, 4))
    for _ in range(_DRAWS):
        if len(found) == wanted:
            break
        structure = library.structure(library.draw(rng))
        if structure.rescalable:
            factor = (uniform(rng, ranges.complex_kilodalton) / max(_kilodalton(structure), 1e-3)) ** (1 / 3)
            found.append(structure.rescaled(float(factor)))
        # A molecule below the range is next to invisible; labelled, it would teach to see what is not there.
        elif low <= _kilodalton(structure) <= high:
            found.append(structure)
    return found


def _kilodalton(structure: Structure) -> float:
    return float(structure.weights.sum()) / _VOLT_PER_DALTON / 1e3


def _add_structures(
    rng: np.random.Generator, canvas: Canvas, kinds: Sequence[Structure], label: Label, count: int
) -> list[Particle]:
    particles = []
    for _ in range(count if kinds else 0):
        structure = kinds[int(rng.integers(len(kinds)))]
        rotation = Rotation.random(random_state=rng)
        centre = canvas.place_structure(rng, structure, rotation, label)
        if centre is None:
            continue
        # RELION's angles turn the specimen to the particle: ZYZ of the inverse of its rotation.
        rot, tilt, psi = rotation.inv().as_euler("ZYZ", degrees=True)
        particles.append(
            Particle(
                label,
                structure.name,
                centre,
                float(rot),
                float(tilt),
                float(psi),
                structure.diameter_angstrom,
                _kilodalton(structure),
            )
        )
    return particles


def _add_gold(rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas, count: int) -> None:
    radius = uniform(rng, ranges.gold_radius_angstrom)
    for _ in range(count):
        size = radius * (1 + 0.08 * rng.standard_normal())
        centre = canvas.free_place(rng, size)
        if centre is None:
            continue
        part, distance = canvas.around(centre, size + 2 * canvas.pixel_size_angstrom)
        share = np.clip(0.5 + (size - distance) / canvas.pixel_size_angstrom, 0, 1)
        np.maximum(canvas.volts[part], GOLD_VOLT * share, out=canvas.volts[part])
        canvas.mark(part, distance <= size, Label.GOLD)


def _add_crowders(rng: np.random.Generator, ranges: TomogramRanges, canvas: Canvas) -> None:
    """Fill the free ice with small globular proteins, unlabelled, that overlap nothing and not each other.

    Each takes the room of a ball of its mass and is drawn as a Gaussian, of protein's density in its middle.
    """
    fraction = uniform(rng, ranges.crowder_volume_fraction)
    sigma = uniform(rng, ranges.crowder_sigma_angstrom) / canvas.pixel_size_angstrom
    mass = (2 * math.pi) ** 1.5 * sigma**3  # of one, in voxels of protein
    radius = (3 * mass / (4 * math.pi)) ** (1 / 3)
    room = ndimage.distance_transform_edt(~canvas.taken) >= radius
    # The density of crowders differs between compartments.
    plane = np.exp(0.5 * smooth_field_of(rng, canvas.shape[1:], 60.0))
    rate = (plane * room)[room].astype(np.float64)
    count = rng.poisson(fraction / mass * rate.sum())
    if not count:
        return
    drawn = rng.choice(len(rate), size=_CROWDERS_DRAWN * count, p=rate / rate.sum())
    places = np.argwhere(room)[drawn]
    places = places[apart(places, 2 * radius)][:count]
    counts = np.zeros(canvas.shape, dtype=np.float32)
    counts[tuple(places.T)] = 1
    canvas.volts += ndimage.gaussian_filter(_PROTEIN_VOLT * mass * counts, sigma, mode="constant")


def apart(places: NDArray[np.number], distance: float) -> NDArray[np.bool_]:
    """Return which places (n, 3) are kept where each must be so far from all that were kept before it.

    Random sequential addition (Widom, J. Chem. Phys. 44, 3888, 1966), for places in random order.
    """
    keep = np.ones(len(places), dtype=bool)
    pairs = cKDTree(places).query_pairs(distance, output_type="ndarray")
    # All that is before a place is settled when its own pairs come.
    for first, later in pairs[np.argsort(pairs[:, 1], kind="stable")]:
        if keep[first]:
            keep[later] = False
    return keep


def _add_carbon(
    rng: np.random.Generator,
    canvas: Canvas,
    volts: NDArray[np.float32],
    top: NDArray[np.float32],
    bottom: NDArray[np.float32],
) -> None:
    """Lay a film with a curved edge on one face of the ice, along one side of the picture."""
    depth, height, width = canvas.shape
    y, x = np.mgrid[:height, :width]
    angle = rng.random() * 2 * math.pi
    along = math.cos(angle) * (x - width / 2) + math.sin(angle) * (y - height / 2)
    across = -math.sin(angle) * (x - width / 2) + math.cos(angle) * (y - height / 2)
    edge = uniform(rng, (0.15, 0.42)) * min(height, width)
    film = (
        along + across**2 / (8 * max(height, width)) + 2 * smooth_field_of(rng, (height, width), 30.0) > edge
    )
    thickness = uniform(rng, (100.0, 220.0)) / canvas.pixel_size_angstrom
    face = bottom if rng.random() < 0.5 else top - thickness
    z = np.arange(depth)[:, None, None]
    inside = film[None] & (z >= face) & (z <= face + thickness)
    texture = ndimage.gaussian_filter(rng.standard_normal(int(inside.sum())).astype(np.float32), 0.5)
    volts[inside] = CARBON_VOLT + 0.6 * texture
    canvas.labels[inside] = Label.CARBON
