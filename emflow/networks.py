"""The network behind all models: a small residual U-Net of images or volumes that can be tiled exactly.

It has no normalisation layer, so what it says of a pixel depends on the pixels of its receptive field alone,
and :mod:`emflow.tiling` can cut an image into windows without a trace. The input is folded by two per axis
into channels before the first convolution and unfolded after the last one: full-size feature maps would cost
most of the time and add little to objects that are 24 pixels wide.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from emflow.errors import SettingError

FOLD = 2
SLOPE = 0.1
_DIMENSIONS = {"UNet": 2, "UNet3D": 3}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def fold(x: torch.Tensor) -> torch.Tensor:
    """Fold (n, c, [d,] h, w) by two per axis into channels."""
    if x.ndim == 4:
        return functional.pixel_unshuffle(x, FOLD)
    n, channels, *sides = x.shape
    split = [part for side in sides for part in (side // FOLD, FOLD)]
    x = x.reshape(n, channels, *split).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(n, channels * FOLD**3, *(side // FOLD for side in sides))


def unfold(x: torch.Tensor) -> torch.Tensor:
    """Undo `fold`."""
    if x.ndim == 4:
        return functional.pixel_shuffle(x, FOLD)
    n, channels, *sides = x.shape
    x = x.reshape(n, channels // FOLD**3, FOLD, FOLD, FOLD, *sides).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(n, channels // FOLD**3, *(side * FOLD for side in sides))


class ResidualUnit(nn.Module):
    """Two convolutions of side 3 beside an identity (or one of side 1 when the channels change)."""

    def __init__(self, in_channels: int, out_channels: int, dimensions: int = 2) -> None:
        super().__init__()
        convolution = _CONVOLUTION[dimensions]
        self.first = convolution(in_channels, out_channels, 3, padding=1)
        self.second = convolution(out_channels, out_channels, 3, padding=1)
        self.skip: nn.Module = (
            nn.Identity() if in_channels == out_channels else convolution(in_channels, out_channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, [d,] h, w) to (n, out, [d,] h, w)."""
        # Not in place: hooks that explain a network read the tensors before the activation.
        inner = self.second(functional.leaky_relu(self.first(x), SLOPE))
        return functional.leaky_relu(inner + self.skip(x), SLOPE)


class UNet(nn.Module):
    """Residual U-Net without normalisation layers.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the images that go in and come out.
    channels
        Features per level; level ``i`` works on pixels ``2 ** (i + 1)`` input pixels wide.
    dimensions
        2 for images, 3 for volumes.

    Attributes
    ----------
    in_channels, out_channels, widths, dimensions
        As above; the widths are its ``channels``.
    stride
        Input sides, and the origins of windows, must be multiples of this.
    halo
        Pixels that a window must add around its core so that the core comes out as it would from the whole
        image; a multiple of ``stride``. A pixel's answer crosses, at the level of scale ``s``, the 3 x 3
        convolutions of that level on its way down and up, each reaching ``s`` pixels further, and stands then
        somewhere in a cell of ``stride`` pixels: ``sum(s * convolutions) + stride - 1``, rounded up.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: tuple[int, ...], dimensions: int = 2
    ) -> None:
        super().__init__()
        convolution, transposed = _CONVOLUTION[dimensions], _TRANSPOSED[dimensions]
        if not channels or min(channels) < 1:
            raise SettingError("model card: architecture's channels must be one or more positive widths")
        folded = FOLD**dimensions
        self.in_channels, self.out_channels = in_channels, out_channels
        self.widths, self.dimensions = channels, dimensions
        self.stem = convolution(in_channels * folded, channels[0], 3, padding=1)
        self.down_units = nn.ModuleList(ResidualUnit(width, width, dimensions) for width in channels[:-1])
        self.downs = nn.ModuleList(
            convolution(width, deeper, 2, stride=2) for width, deeper in itertools.pairwise(channels)
        )
        # Twice at the coarsest level: context is cheapest there.
        self.bottom = nn.Sequential(
            ResidualUnit(channels[-1], channels[-1], dimensions),
            ResidualUnit(channels[-1], channels[-1], dimensions),
        )
        self.ups = nn.ModuleList(
            transposed(deeper, width, 2, stride=2) for width, deeper in itertools.pairwise(channels)
        )
        self.up_units = nn.ModuleList(ResidualUnit(2 * width, width, dimensions) for width in channels[:-1])
        self.head = convolution(channels[0], out_channels * folded, 3, padding=1)
        self.stride = FOLD << (len(channels) - 1)
        self.halo = self._halo(len(channels))
        self._initialise(dimensions)
        # Convolutions run up to twice as fast with the channels last; what comes in follows the weights.
        for parameter in self.parameters():
            if parameter.ndim == dimensions + 2:
                parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[dimensions])

    def _halo(self, levels: int) -> int:
        scales = [FOLD << level for level in range(levels)]
        # Two convolutions in each unit; stem and head at the finest level.
        reach = 2 * scales[0] + sum(4 * scale for scale in scales) + self.stride - 1
        return -(-reach // self.stride) * self.stride

    def _initialise(self, dimensions: int) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            # A transposed convolution of stride 2 gives each output one tap, not all that were assumed.
            for module in self.modules():
                if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
                    module.weight.mul_((2**dimensions * module.out_channels / module.in_channels) ** 0.5)
            # Without norm layers the variance would double in every unit: the branches start small, as does
            # the answer.
            for module in self.modules():
                if isinstance(module, ResidualUnit):
                    module.second.weight.mul_(0.25)
            self.head.weight.mul_(0.1)

    def encoder_and_rest(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters up to the coarsest level, and those after it."""
        encoder = [
            parameter
            for part in (self.stem, self.down_units, self.downs, self.bottom)
            for parameter in part.parameters()
        ]
        return encoder, [
            parameter for part in (self.ups, self.up_units, self.head) for parameter in part.parameters()
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in_channels, [d,] h, w) to (n, out_channels, [d,] h, w); sides: whole strides."""
        x = functional.leaky_relu(self.stem(fold(x)), SLOPE)
        kept = []
        for unit, down in zip(self.down_units, self.downs, strict=True):
            x = unit(x)
            kept.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, unit in zip(reversed(self.ups), reversed(self.up_units), strict=True):
            x = unit(torch.cat([up(x), kept.pop()], dim=1))
        return unfold(self.head(x))


def build(architecture: Mapping[str, Any]) -> UNet:
    """Make the network that a model card describes, with fresh weights.

    Parameters
    ----------
    architecture
        ``{"name": "UNet", "in_channels": int, "out_channels": int, "channels": [int, ...]}``; the name
        "UNet3D" is of one for volumes.

    Raises
    ------
    SettingError
        When the name or a key is none that this version knows.
    """
    expected = {"name", "in_channels", "out_channels", "channels"}
    if set(architecture) != expected or architecture["name"] not in _DIMENSIONS:
        raise SettingError(
            f"model card: architecture {dict(architecture)!r} is unknown; it must be a UNet or "
            "UNet3D with in_channels, out_channels and channels"
        )
    try:
        return UNet(
            int(architecture["in_channels"]),
            int(architecture["out_channels"]),
            tuple(int(width) for width in architecture["channels"]),
            _DIMENSIONS[architecture["name"]],
        )
    except (TypeError, ValueError) as error:
        raise SettingError(f"model card: architecture is not usable: {error}") from error
