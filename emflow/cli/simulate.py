"""Simulate micrographs with known truth: the files that a session reads, and what is really in them."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from cyclopts import Parameter
from numpy.typing import NDArray
from PIL import Image

from emflow import __version__
from emflow.cli.progress import command_line, say
from emflow.cli.simulation import check_images, check_output
from emflow.errors import SettingError
from emflow.io.atomic_models import read_atomic_model, read_atomic_models
from emflow.io.files import replacing, write_text
from emflow.io.gpus import take_device
from emflow.io.mrc import write_mrc
from emflow.io.ranges import read_ranges
from emflow.io.star import write_star
from emflow.simulation import ParticleLibrary, SimulationRanges, draw_scene
from emflow.simulation.microscope import Exposure
from emflow.simulation.ranges import uniform

README = """\
SIMULATED micrographs: nothing here was recorded by a microscope.
Made by emflow {version}: {command}

micrographs/     MRC, {height} x {width} pixels of {pixel_size:g} angstrom, protein dark
micrographs.star optics and CTF, as RELION 3.1 and later read them
truth/           one STAR per micrograph: centres of the particles, in pixels, 0-based, y as in the file
junk/            PNG, white where a contaminant lies; particles there are not in truth
scenes.tsv       per micrograph: seed, particle, diameter, particles, dose, ice, signal to noise
"""


def simulate(
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    micrographs: int = 10,
    seed: int = 17,
    shape: tuple[int, int] = (2048, 2048),
    pixel_size: float = 1.0,
    diameter: float | None = None,
    split: Literal["held_apart", "train"] = "held_apart",
    models: Annotated[Path | None, Parameter(name=["--models", "--model"])] = None,
    one_particle: bool = True,
    contaminated: Annotated[bool, Parameter(negative="--clean")] = True,
    dose: float | None = None,
    defocus: tuple[float, float] | None = None,
    given_ranges: Annotated[str | None, Parameter(name="--ranges")] = None,
    halves: bool = False,
    data_type: Literal["float32", "float16", "int8"] = "float32",
    device: str = "cpu",
) -> None:
    """Write simulated micrographs with their truth: coordinates, contaminants, optics and CTF.

    One microscope takes the whole set; defocus, ice and contaminants differ between micrographs.

    Parameters
    ----------
    output
        Folder to make.
    micrographs
        How many.
    seed
        Of everything: the same command gives the same files.
    shape
        Height and width in pixels.
    pixel_size
        Angstrom per pixel.
    diameter
        Of the particle in angstrom; when not given, as the particle drawn has it.
    split
        Draw made-up particles of those that train emflow's models, or of those held apart from them.
    models
        Folder of atomic models (PDB, mmCIF; gzipped or not), or one file, to draw from instead.
    one_particle
        Whether all micrographs show the same particle.
    contaminated
        Whether ice crystals, carbon, aggregates and the like are there, and some micrographs are empty.
    dose
        Electrons per square angstrom; drawn from 15 to 80 when not given.
    defocus
        Least and most underfocus in angstrom; 5000 to 30000 when not given.
    given_ranges
        What else to draw at random and how widely: a YAML file, or YAML such as '{coverage: [0.1, 0.2]}';
        keys of emflow.simulation.SimulationRanges.
    halves
        Write two exposures of half the dose as well (even/, odd/), whose sum the micrograph is.
    data_type
        Of the micrographs. To save space, float16 holds them in units of their deviation from their mean,
        int8 in twentieths of it; float32 holds the detector's counts.
    device
        cpu, cuda or auto. Particles and contaminants are the same on each, but not the noise.
    """
    check_output(output)
    if micrographs < 1:
        raise SettingError(f"--micrographs {micrographs}: at least 1")
    check_images(shape, pixel_size, diameter, defocus, shortest_side=64)
    if dose is not None and not 0.1 <= dose <= 1000:
        raise SettingError(f"--dose {dose:g}: from 0.1 to 1000 electrons per square angstrom")
    rng = np.random.default_rng(seed)
    library = _library(split, models, diameter, rng, one_particle)
    drawn_from, _ = read_ranges(given_ranges, SimulationRanges())
    ranges = drawn_from if contaminated else drawn_from.clean()
    ranges = replace(ranges, raw_pixel_size_angstrom=(pixel_size, pixel_size))
    if defocus is not None or given_ranges is None:
        ranges = replace(ranges, defocus_angstrom=defocus or (5000.0, 30000.0))
    if dose is not None:
        ranges = replace(ranges, dose_electrons_per_square_angstrom=(dose, dose))
    ranges = _one_microscope(ranges, Exposure.draw(rng, ranges, pixel_size))
    # A set is as visible as its physics make it, and alike in all its micrographs.
    contrast = uniform(rng, ranges.protein_contrast)
    ranges = replace(ranges, protein_contrast=(contrast, contrast), signal_to_noise=(1e-9, 1e9))
    if one_particle:
        ranges = replace(ranges, second_species_probability=0.0, rescale=(1.0, 1.0))

    chosen = take_device(device)
    rows, scenes = [], []
    for number in range(1, micrographs + 1):
        scene = draw_scene(
            seed * 1_000_003 + number,
            shape=shape,
            library=library,
            ranges=ranges,
            pixel_size_angstrom=pixel_size,
            diameter_pixels=None if diameter is None else diameter / pixel_size,
            halves=halves,
            device=chosen,
        )
        name = f"simulated_{number:05d}"
        images = {"micrographs": scene.image}
        if scene.even is not None and scene.odd is not None:
            images |= {"even": scene.even, "odd": scene.odd}
        for folder, image in images.items():
            path = output / folder / f"{name}.mrc"
            write_mrc(path, _typed(image, data_type), pixel_size)
        write_star(
            output / "truth" / f"{name}.star",
            {
                "particles": pd.DataFrame(
                    {
                        "rlnCoordinateX": scene.centres_yx[:, 1],
                        "rlnCoordinateY": scene.centres_yx[:, 0],
                        "rlnDefocusU": scene.ctf.defocus_u_angstrom + scene.depths_angstrom,
                        "rlnDefocusV": scene.ctf.defocus_v_angstrom + scene.depths_angstrom,
                        "rlnDefocusAngle": scene.ctf.defocus_angle_degrees,
                    }
                )
            },
            comments=["SIMULATED: the particles' true centres, and the defocus of each at its depth"],
        )
        with replacing(output / "junk" / f"{name}.png") as partial:
            Image.fromarray(scene.junk.astype(np.uint8) * 255).save(partial, optimize=True)
        rows.append(
            {
                "rlnMicrographName": f"micrographs/{name}.mrc",
                "rlnOpticsGroup": 1,
                "rlnDefocusU": scene.ctf.defocus_u_angstrom,
                "rlnDefocusV": scene.ctf.defocus_v_angstrom,
                "rlnDefocusAngle": scene.ctf.defocus_angle_degrees,
                "rlnPhaseShift": scene.ctf.phase_shift_degrees,
            }
        )
        scenes.append(
            {
                "micrograph": name,
                "seed": seed * 1_000_003 + number,
                "particle": "+".join(scene.species),
                "diameter_angstrom": round(scene.diameter_pixels * pixel_size, 1),
                "particles": len(scene.centres_yx),
                "junk_fraction": round(float(scene.junk.mean()), 4),
                "dose_electrons_per_square_angstrom": round(scene.dose_electrons_per_square_angstrom, 2),
                "ice_thickness_angstrom": round(scene.ice_thickness_angstrom),
                "signal_to_noise": round(scene.snr, 4),
                "contrast": round(scene.contrast, 3),
            }
        )
        say("simulate", f"{number}/{micrographs} {name}: {len(scene.centres_yx)} particles (SIMULATED)")
    optics = scene.optics
    write_star(
        output / "micrographs.star",
        {
            "optics": pd.DataFrame(
                {
                    "rlnOpticsGroupName": [optics.name],
                    "rlnOpticsGroup": [1],
                    "rlnMicrographPixelSize": [optics.pixel_size_angstrom],
                    "rlnVoltage": [optics.voltage_kilovolt],
                    "rlnSphericalAberration": [optics.spherical_aberration_millimetre],
                    "rlnAmplitudeContrast": [optics.amplitude_contrast],
                }
            ),
            "micrographs": pd.DataFrame(rows),
        },
        comments=["SIMULATED by emflow simulate"],
    )
    with replacing(output / "scenes.tsv") as partial:
        pd.DataFrame(scenes).to_csv(partial, sep="\t", index=False, lineterminator="\n")
    text = README.format(
        version=__version__,
        command=command_line(),
        height=shape[0],
        width=shape[1],
        pixel_size=pixel_size,
    )
    write_text(output / "README.txt", text)


def _library(
    split: str, models: Path | None, diameter: float | None, rng: np.random.Generator, one_particle: bool
) -> ParticleLibrary:
    """Return the particles to draw from: one, when all micrographs are to show the same."""
    if models is None:
        library = ParticleLibrary(split)
    elif diameter is not None:
        raise SettingError("--diameter: an atomic model has its own; leave it out with --models")
    else:
        files = (
            [read_atomic_model(models)] if models.is_file() else [s for s, _ in read_atomic_models(models)]
        )
        library = ParticleLibrary(split, procedural=0, models=files)
    if not one_particle:
        return library
    index = library.draw(rng, diameter)
    if index < library.procedural:
        return ParticleLibrary(split, procedural=1, first=index)
    return ParticleLibrary(split, procedural=0, models=[library.structure(index)])


def _one_microscope(ranges: SimulationRanges, exposure: Exposure) -> SimulationRanges:
    """Fix what does not change in a session: microscope, dose and detector."""
    optics, detector = exposure.optics, exposure.detector

    def only(value: float) -> tuple[float, float]:
        return value, value

    return replace(
        ranges,
        voltages_kilovolt=(optics.voltage_kilovolt,),
        voltage_weights=(1.0,),
        spherical_aberration_millimetre=optics.spherical_aberration_millimetre,
        corrected_probability=0.0,
        amplitude_contrast=only(optics.amplitude_contrast),
        phase_plate_probability=float(exposure.ctf.phase_shift_degrees > 0),
        dose_electrons_per_square_angstrom=only(exposure.dose_electrons_per_square_angstrom),
        detective_quantum_efficiency_at_zero=only(detector.efficiency_at_zero),
        detective_quantum_efficiency_at_nyquist=only(detector.efficiency_at_nyquist),
        modulation_transfer_at_nyquist=only(detector.transfer_at_nyquist),
    )


def _typed(image: NDArray[np.float32], data_type: str) -> NDArray[np.float32 | np.float16 | np.int8]:
    """Return the image in the type it is to be stored in."""
    if data_type == "float32":
        return image
    scaled = (image - image.mean()) / image.std()
    if data_type == "float16":
        return np.asarray(scaled, dtype=np.float16)
    return np.asarray(np.clip(np.rint(20 * scaled), -127, 127), dtype=np.int8)
