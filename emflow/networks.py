"""The network behind both models: a small residual U-Net that can be tiled exactly.

It has no normalisation layer, so what it says of a pixel depends on the pixels of its receptive field alone,
and :mod:`emflow.tiling` can cut an image into windows without a trace. The input is folded two by two into
channels before the first convolution and unfolded after the last one: full-size feature maps would cost most
of the time and add little to objects that are 24 pixels wide.
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


class ResidualUnit(nn.Module):
    """Two 3 x 3 convolutions beside an identity (or a 1 x 1 convolution when the channels change)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip: nn.Module = (
            nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, in, h, w) to (n, out, h, w)."""
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

    Attributes
    ----------
    stride
        Input sides, and the origins of windows, must be multiples of this.
    halo
        Pixels that a window must add around its core so that the core comes out as it would from the whole
        image; a multiple of ``stride``. A pixel's answer crosses, at the level of scale ``s``, the 3 x 3
        convolutions of that level on its way down and up, each reaching ``s`` pixels further, and stands then
        somewhere in a cell of ``stride`` pixels: ``sum(s * convolutions) + stride - 1``, rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            raise SettingError("model card: architecture's channels must be one or more positive widths")
        folded = FOLD * FOLD
        self.stem = nn.Conv2d(in_channels * folded, channels[0], 3, padding=1)
        self.down_units = nn.ModuleList(ResidualUnit(width, width) for width in channels[:-1])
        self.downs = nn.ModuleList(
            nn.Conv2d(width, deeper, 2, stride=2) for width, deeper in itertools.pairwise(channels)
        )
        # Twice at the coarsest level: context is cheapest there.
        self.bottom = nn.Sequential(
            ResidualUnit(channels[-1], channels[-1]), ResidualUnit(channels[-1], channels[-1])
        )
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(deeper, width, 2, stride=2) for width, deeper in itertools.pairwise(channels)
        )
        self.up_units = nn.ModuleList(ResidualUnit(2 * width, width) for width in channels[:-1])
        self.head = nn.Conv2d(channels[0], out_channels * folded, 3, padding=1)
        self.stride = FOLD << (len(channels) - 1)
        self.halo = self._halo(len(channels))
        self._initialise()

    def _halo(self, levels: int) -> int:
        scales = [FOLD << level for level in range(levels)]
        # Two convolutions in each unit; stem and head at the finest level.
        reach = 2 * scales[0] + sum(4 * scale for scale in scales) + self.stride - 1
        return -(-reach // self.stride) * self.stride

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE, nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            # A transposed convolution of stride 2 gives each output one tap, not the four that were assumed.
            for module in self.modules():
                if isinstance(module, nn.ConvTranspose2d):
                    module.weight.mul_((4 * module.out_channels / module.in_channels) ** 0.5)
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
        """Map (n, in_channels, h, w) to (n, out_channels, h, w); h and w are multiples of ``stride``."""
        x = functional.leaky_relu(self.stem(functional.pixel_unshuffle(x, FOLD)), SLOPE)
        kept = []
        for unit, down in zip(self.down_units, self.downs, strict=True):
            x = unit(x)
            kept.append(x)
            x = down(x)
        x = self.bottom(x)
        for up, unit in zip(reversed(self.ups), reversed(self.up_units), strict=True):
            x = unit(torch.cat([up(x), kept.pop()], dim=1))
        return functional.pixel_shuffle(self.head(x), FOLD)


def build(architecture: Mapping[str, Any]) -> UNet:
    """Make the network that a model card describes, with fresh weights.

    Parameters
    ----------
    architecture
        ``{"name": "UNet", "in_channels": int, "out_channels": int, "channels": [int, ...]}``.

    Raises
    ------
    SettingError
        When the name or a key is none that this version knows.
    """
    expected = {"name", "in_channels", "out_channels", "channels"}
    if set(architecture) != expected or architecture["name"] != "UNet":
        raise SettingError(
            f"model card: architecture {dict(architecture)!r} is unknown; it must be a UNet with "
            "in_channels, out_channels and channels"
        )
    try:
        return UNet(
            int(architecture["in_channels"]),
            int(architecture["out_channels"]),
            tuple(int(width) for width in architecture["channels"]),
        )
    except (TypeError, ValueError) as error:
        raise SettingError(f"model card: architecture is not usable: {error}") from error
