"""Correct the motion of one batch of movies: a micrograph each, and how it moved."""

from pathlib import Path
from typing import Literal

from emflow.cli.input_batch import InputBatch, write_table
from emflow.cli.movie_batch import MovieBatch, MovieSettings
from emflow.cli.progress import say
from emflow.errors import BadInputError, SettingError
from emflow.io.claims import Claim
from emflow.io.gains import read_gain
from emflow.io.gpus import take_device
from emflow.io.index import MicrographRow
from emflow.io.inputs import InputRow
from emflow.io.motion import MOTION, MotionRecord, write_motion
from emflow.metadata import OpticsGroup


def correct_motion(
    *,
    inputs: Path,
    session: str,
    batch: str,
    digest: str,
    output: Path,
    pixel_size_angstrom: float,
    voltage_kilovolt: float,
    spherical_aberration_millimetre: float,
    exposure_electrons_per_square_angstrom: float,
    amplitude_contrast: float = 0.1,
    header_pixel_size_angstrom: float | None = None,
    pre_exposure_electrons_per_square_angstrom: float = 0.0,
    total_exposure_electrons_per_square_angstrom: float | None = None,
    gain: Path | None = None,
    gain_rotation: Literal[0, 1, 2, 3] = 0,
    gain_flip: Literal["none", "upside_down", "left_right"] = "none",
    defects: Path | None = None,
    frames: int | None = None,
    first_frame: int = 1,
    last_frame: int | None = None,
    group_frames: int = 1,
    eer_upsampling: Literal[1, 2] = 1,
    output_pixel_size_angstrom: float | None = None,
    local: bool = True,
    dose_weighting: bool = True,
    unweighted: bool = False,
    halves_pixel_size_angstrom: float | None = None,
    half_precision: bool = False,
    power_spectrum: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int = 1,
) -> None:
    """Align and sum a batch's movies; write a micrograph each, their table, and RELION's STAR files.

    Parameters
    ----------
    inputs
        The session folder's inputs.tsv.
    session, batch
        Which rows of it.
    digest
        What those rows were when the job was planned; another digest is refused.
    output
        The micrographs.tsv to write; micrographs/ and motion.jsonl go beside it.
    pixel_size_angstrom
        Angstrom per pixel of the movies' files (of EER: of the detector's own pixels).
    voltage_kilovolt
        Acceleration voltage in kV.
    spherical_aberration_millimetre
        Cs in mm.
    exposure_electrons_per_square_angstrom
        Of one frame; of EER, of one fraction.
    amplitude_contrast
        Fraction of amplitude contrast.
    header_pixel_size_angstrom
        What headers should say, when that is not the pixel size.
    pre_exposure_electrons_per_square_angstrom
        What the specimen got before the first frame.
    total_exposure_electrons_per_square_angstrom
        Of a whole EER movie: its frames are grouped so that a fraction gets about the exposure of one frame.
    gain
        Gain reference: MRC, TIFF or, for EER, .gain.
    gain_rotation
        Quarter turns clockwise that the gain needs (RELION's --gain_rot).
    gain_flip
        Flip that it needs after that (RELION's --gain_flip).
    defects
        Map of bad pixels: an image that is not 0 there, or text with lines of x, y, width and height.
    frames
        How many frames a movie has (EER: raw ones); one that has fewer is left out.
    first_frame, last_frame
        Which frames to use, counted from 1.
    group_frames
        How many frames to sum for the alignment, where single ones show too little.
    eer_upsampling
        1 for the detector's own pixels, 2 for half pixels.
    output_pixel_size_angstrom
        Of the micrographs, to about a percent, so that their pixels are square; they are then cropped in
        Fourier space. The movies' own when not given.
    local
        Whether to look for local motion.
    dose_weighting
        Whether to weigh frames by their exposure.
    unweighted
        Whether to write the plain sum as well, as *_noDW.mrc.
    halves_pixel_size_angstrom
        If given, the sums of even and odd frames are written at this pixel size, as *_even.mrc and *_odd.mrc.
    half_precision
        Whether micrographs are written in 16-bit floats (MRC mode 12).
    power_spectrum
        Whether to write the spectrum that CTFs are fitted to, as *_PS.mrc.
    device
        Where to compute.
    threads
        Of the CPU.
    """
    import torch

    if first_frame < 1 or (last_frame is not None and last_frame <= first_frame) or group_frames < 1:
        raise SettingError("first_frame, last_frame, group_frames: at least two frames are needed, from 1 on")
    torch.set_num_threads(threads)
    ours = InputBatch.read("correct_motion", inputs, session=session, batch=batch, digest=digest)
    try:
        gain_image = (
            None if gain is None else read_gain(gain, rotate_quarter_turns=gain_rotation, flip=gain_flip)
        )
    except BadInputError as error:
        raise SettingError(f"gain: {gain} {error}") from None
    settings = MovieSettings(
        optics=OpticsGroup(
            session,
            pixel_size_angstrom,
            voltage_kilovolt,
            spherical_aberration_millimetre,
            amplitude_contrast,
        ),
        header_pixel_size_angstrom=header_pixel_size_angstrom or pixel_size_angstrom,
        exposure=exposure_electrons_per_square_angstrom,
        pre_exposure=pre_exposure_electrons_per_square_angstrom,
        total_exposure=total_exposure_electrons_per_square_angstrom,
        gain=gain,
        gain_rotation=gain_rotation,
        gain_flip=gain_flip,
        defects=defects,
        frames=frames,
        first_frame=first_frame,
        last_frame=last_frame,
        group_frames=group_frames,
        eer_upsampling=eer_upsampling,
        output_pixel_size_angstrom=output_pixel_size_angstrom,
        local=local,
        dose_weighting=dose_weighting,
        unweighted=unweighted,
        halves_pixel_size_angstrom=halves_pixel_size_angstrom,
        half_precision=half_precision,
        power_spectrum=power_spectrum,
    )
    work = MovieBatch(output.parent, settings, gain_image, take_device(device))
    claim = Claim(output)
    motion: list[MotionRecord] = []
    numbers = {row.name: number for number, row in enumerate(ours.rows, 1)}

    def correct(row: InputRow) -> MicrographRow:
        claim.check()
        micrograph, record = work.correct(row)
        motion.append(record)
        moved = f"moved {micrograph.motion_total_angstrom:.1f} A"
        say("correct_motion", f"{numbers[row.name]}/{len(numbers)} {row.name}: {moved}")
        return micrograph

    table = ours.each(correct)
    claim.check()
    write_motion(output.parent / MOTION, motion)
    write_table(claim, output, table)
    say("correct_motion", f"{session} {batch}: {len(motion)} of {len(table)} movies corrected")
