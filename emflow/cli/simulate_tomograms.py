"""``emflow simulate-tomograms``."""

from pathlib import Path


def simulate_tomograms(
    *,
    output: Path,
    tomograms: int = 1,
    seed: int = 17,
    shape: tuple[int, int] = (256, 256),
    pixel_size: float = 10.0,
    thickness: tuple[float, float] = (800.0, 1500.0),
    shift: float = 0.05,
    axis_error: float = 3.0,
    ribosomes: Path | None = None,
    complexes: Path | None = None,
    threads: int = 1,
) -> None:
    """Simulate tilt series of a specimen in ice: membranes, ribosomes, complexes, filaments, gold, carbon.

    Writes NAME.mrc (a stack), NAME.mrc.mdoc and NAME.rawtlt as a microscope leaves them, misaligned, and in
    truth/ the labels of every voxel (at the tilts' pixel size), the particles and the alignment.

    Parameters
    ----------
    output
        Folder to write to.
    tomograms
        How many.
    seed
        Of everything random; the same seed gives the same files.
    shape
        Height and width of an image in pixels.
    pixel_size
        Angstrom per pixel.
    thickness
        Of the ice in angstrom: from, to.
    shift
        Largest random shift of an image, as a share of its side.
    axis_error
        By how many degrees at most the stated tilt axis is wrong.
    ribosomes, complexes
        Folders of atomic models that take the place of made-up ones.
    threads
        CPU threads.
    """
    from dataclasses import replace

    import numpy as np
    import torch

    from emflow.cli.progress import say
    from emflow.io.atomic_models import read_atomic_models
    from emflow.io.simulated_tilts import write_tilt_series, write_tomogram_truth
    from emflow.simulation.tomograms import TomogramRanges, draw_specimen, record_tilt_series
    from emflow.simulation.tomograms.specimen import specimen_depth
    from emflow.simulation.tomograms.tilts import draw_geometry, with_stated_axis

    torch.set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    (output / "truth").mkdir(exist_ok=True)
    ranges = replace(TomogramRanges(), thickness_angstrom=thickness)
    given = [
        [structure for structure, _ in read_atomic_models(folder)] if folder else []
        for folder in (ribosomes, complexes)
    ]
    for number in range(tomograms):
        name = f"TS_{number + 1:02d}"
        rng = np.random.default_rng((seed, number))
        depth = specimen_depth(ranges, pixel_size)
        specimen = draw_specimen(
            rng, ranges, (depth, *shape), pixel_size, ribosomes=given[0], complexes=given[1]
        )
        geometry = draw_geometry(rng, ranges, shift_angstrom=shift * min(shape) * pixel_size)
        series = record_tilt_series(rng, ranges, specimen, geometry, shape)
        series = with_stated_axis(rng, series, axis_error)
        write_tilt_series(output, name, series)
        write_tomogram_truth(
            output / "truth", name, labels=specimen.labels, particles=specimen.particles, series=series
        )
        say("simulate_tomograms", f"{number + 1}/{tomograms}: {output / name}.mrc, {len(geometry)} tilts")
