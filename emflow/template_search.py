"""A template, ready to be turned and looked for in pieces of a tomogram."""

import math

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from torch.nn import functional

from emflow.symmetry import Matrices
from emflow.template_preparation import Template, Volume

# Local deviations below this share of the tomogram's own are taken for it: nothing is found in nothing.
_LEAST_DEVIATION = 0.25
_GPU_BYTES = 4e9


class TemplateSearch:
    """A template, ready to be turned and looked for in tiles."""

    def __init__(
        self, template: Template, rotations: Matrices, transfer: Volume, device: torch.device
    ) -> None:
        self.device = device
        self.box = template.box
        self.density = torch.from_numpy(template.density).to(device)
        self.mask = torch.from_numpy(template.mask).to(device)
        self.transfer = torch.from_numpy(transfer).to(device)
        self.rotations = rotations
        half = self.box // 2
        axis = (torch.arange(self.box, dtype=torch.float32, device=device) - half).unsqueeze(0)
        z, y, x = torch.meshgrid(axis[0], axis[0], axis[0], indexing="ij")
        self._points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)

    def turned(
        self, rotations: Matrices, offset_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    ) -> torch.Tensor:
        """Return templates (n, box, box, box) as the tomogram shows them, masked, of mean 0 and norm 1.

        Parameters
        ----------
        rotations
            Shape (n, 3, 3).
        offset_xyz
            Voxels that the particle lies from the middle of the box, whose mask stays.
        """
        matrices = torch.from_numpy(rotations).to(self.device, torch.float32)
        points = self._points - torch.tensor(offset_xyz, dtype=torch.float32, device=self.device)
        # A voxel of the tomogram shows the particle's point R^T p; twice as many voxels of the density.
        own = 2 * torch.einsum("pj,njk->npk", points, matrices) + self.box
        grid = own * (2 / (2 * self.box - 1)) - 1
        count, box = len(matrices), self.box
        turned = functional.grid_sample(
            self.density.expand(count, 1, -1, -1, -1),
            grid.reshape(count, box, box, box, 3),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=True,
        )[:, 0]
        turned = torch.fft.irfftn(torch.fft.rfftn(turned, dim=(1, 2, 3)) * self.transfer, s=(box,) * 3)
        mean = (turned * self.mask).sum(dim=(1, 2, 3), keepdim=True) / self.mask.sum()
        masked = (turned - mean) * self.mask
        norm = ((turned - mean) * masked).sum(dim=(1, 2, 3), keepdim=True).clamp(min=1e-20).sqrt()
        unit: torch.Tensor = masked / norm
        return unit

    def scores(self, tile: Volume) -> tuple[Volume, NDArray[np.int32]]:
        """Return a tile's best scores and their rotations, (z, y, x) of a tile (z, y, x) + box."""
        values = torch.from_numpy(tile).to(self.device)
        inner = tuple(side - self.box for side in tile.shape)
        size = tuple(scipy.fft.next_fast_len(side, real=True) for side in tile.shape)
        spectrum = torch.fft.rfftn(values, s=size)
        weight = float(self.mask.sum())
        mean = self._correlation(spectrum, self.mask, size, inner) / weight
        square = self._correlation(torch.fft.rfftn(values**2, s=size), self.mask, size, inner) / weight
        deviation = (square - mean**2).clamp(min=_LEAST_DEVIATION**2).sqrt()
        factor = 1 / (deviation * math.sqrt(weight))
        best = torch.full(inner, -math.inf, device=self.device)
        which = torch.zeros(inner, dtype=torch.int32, device=self.device)
        batch = 8 if self.device.type == "cpu" else max(1, int(_GPU_BYTES / (64 * self.box**3)))
        for first in range(0, len(self.rotations), batch):
            templates = self.turned(self.rotations[first : first + batch])
            for number, template in enumerate(templates, first):
                score = self._correlation(spectrum, template, size, inner).mul_(factor)
                which.masked_fill_(score > best, number)
                torch.maximum(best, score, out=best)
        return best.cpu().numpy(), which.cpu().numpy()

    def _correlation(
        self, spectrum: torch.Tensor, kernel: torch.Tensor, size: tuple[int, ...], inner: tuple[int, ...]
    ) -> torch.Tensor:
        """Return ``sum over d of tile(p + d) kernel(d)`` for the points p that the kernel fits about."""
        # Axis by axis: most of the padded kernel is 0, and lines of zeros need no transform.
        transformed = torch.fft.rfft(kernel, n=size[2], dim=2)
        transformed = torch.fft.fft(transformed, n=size[1], dim=1)
        transformed = torch.fft.fft(transformed, n=size[0], dim=0)
        both = torch.fft.ifft2(transformed.conj_physical_().mul_(spectrum), dim=(0, 1))
        lines: torch.Tensor = torch.fft.irfft(both[: inner[0], : inner[1]], n=size[2], dim=2)
        return lines[:, :, : inner[2]]
