"""A movie's frames as they should have been recorded, and the motion that they show."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from emflow.errors import BadInputError
from emflow.motion.bad_pixels import BadPixelFiller, find_bad_pixels, find_bad_pixels_on_device
from emflow.motion.estimate import (
    MotionEstimate,
    MotionSettings,
    estimate_motion,
    expand_groups,
    fourier_crop,
    working_shape,
)
from emflow.motion.gain import gain_complaint, gain_orientations

# More bad pixels than this, and the camera or the gain reference is at fault.
_MAXIMUM_BAD_FRACTION = 0.1


class CleanFrames:
    """Frames of a movie, gain and bad pixels corrected, as often as they are asked for."""

    def __init__(
        self,
        stack: Sequence[NDArray[np.generic]],
        gain: NDArray[np.float32] | None,
        defects: NDArray[np.bool_] | None,
        device: torch.device,
    ) -> None:
        """Take raw frames (h, w), the gain that multiplies them (0 where dead) and a map of bad pixels.

        Raises
        ------
        BadInputError
            If the frames hold nothing, contradict the gain, or have too many bad pixels.
        """
        self._stack, self._gain, self.device = stack, gain, device
        shape = stack[0].shape
        # Cleaned on the GPU where there is one, which would wait for the host else.
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            self._gain_there = None if gain is None else torch.from_numpy(gain.copy()).to(device)
            summed = torch.zeros(shape, device=device)
            for frame in stack:
                summed += self._brought(frame)
            total = summed.cpu().numpy()
        else:
            total = np.zeros(shape, dtype=np.float32)
            for frame in stack:
                total += np.asarray(frame, dtype=np.float32)
        if not np.isfinite(total).all():
            raise BadInputError("has pixels that are NaN or infinite")
        if total.min() == total.max():
            raise BadInputError(f"is constant: every pixel of its sum is {float(total.flat[0]):g}")
        bad = np.zeros(shape, dtype=bool) if defects is None else defects.copy()
        if gain is not None:
            complaint = gain_complaint(gain_orientations(total, gain))
            if complaint:
                raise BadInputError(f"and its gain disagree: {complaint}")
            total *= gain
            bad |= gain == 0
        if self._on_gpu:
            there = (torch.from_numpy(one).to(device) for one in (total, bad))
            self.found = find_bad_pixels_on_device(*there).cpu().numpy()
        else:
            self.found = find_bad_pixels(total, bad)
        bad |= self.found
        fraction = float(bad.mean())
        if fraction > _MAXIMUM_BAD_FRACTION:
            raise BadInputError(
                f"has {100 * fraction:.0f} % bad pixels: is it the right gain reference and defect map?"
            )
        self._filler = BadPixelFiller(bad)

    def __len__(self) -> int:
        return len(self._stack)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (h, w)."""
        height, width = self._stack[0].shape
        return height, width

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield each frame (h, w) as float32 on the device."""
        for number, raw in enumerate(self._stack):
            if self._on_gpu:
                brought = self._brought(raw)
                if self._gain_there is not None:
                    brought *= self._gain_there
                self._filler.fill_on_device(brought, number)
                yield brought
                continue
            frame = np.array(raw, dtype=np.float32)
            if self._gain is not None:
                frame *= self._gain
            self._filler.fill(frame, number)
            yield torch.from_numpy(frame).to(self.device)

    def _brought(self, raw: NDArray[np.generic]) -> torch.Tensor:
        """Return a raw frame on the GPU as float32; bytes travel as bytes."""
        kind = np.uint8 if raw.dtype == np.uint8 else np.float32
        return torch.from_numpy(np.array(raw, dtype=kind)).to(self.device).float()


def motion_of(
    frames: CleanFrames,
    *,
    pixel_size_angstrom: float,
    exposure_electrons_per_square_angstrom: float,
    voltage_kilovolt: float,
    local: bool = True,
    group_frames: int = 1,
) -> MotionEstimate:
    """Estimate a movie's motion from its frames, or from sums of ``group_frames`` of them."""
    settings = MotionSettings() if local else MotionSettings(degree=0)
    small = working_shape(frames.shape, pixel_size_angstrom, settings)
    group = max(1, min(group_frames, len(frames) // 2))
    working = torch.zeros((math.ceil(len(frames) / group), *small), device=frames.device)
    for number, frame in enumerate(frames):
        working[number // group] += fourier_crop(frame[None], small)[0]
    estimate = estimate_motion(
        working,
        shape=frames.shape,
        pixel_size_angstrom=pixel_size_angstrom,
        exposure_electrons_per_square_angstrom=exposure_electrons_per_square_angstrom * group,
        voltage_kilovolt=voltage_kilovolt,
        settings=settings,
    )
    return expand_groups(estimate, group, len(frames))
