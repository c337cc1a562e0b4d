"""A trained network made larger, so that a larger one need not begin with nothing.

What it gains has no weight at first: the larger network answers as the smaller one did until it learns (Chen,
Goodfellow and Shlens, Net2Net, 2016; there new channels repeat old ones, here they start fresh).
"""

import torch

from emflow.networks import UNet


def grown(network: UNet, channels: tuple[int, ...]) -> UNet:
    """Return a wider and deeper network that answers as another until it learns.

    Parameters
    ----------
    network
        Stays as it is.
    channels
        As many as the network's own or more of them: at its levels as wide or wider, then levels below.

    Raises
    ------
    ValueError
        If that would be a smaller network.
    """
    own = network.widths
    if len(channels) < len(own) or any(new < old for new, old in zip(channels, own, strict=False)):
        raise ValueError(f"{channels} are not the channels {own} or more")
    larger = _widened(network, channels[: len(own)])
    while larger.widths != channels:
        larger = _deepened(larger, channels[len(larger.widths)])
    return larger


def _widened(network: UNet, channels: tuple[int, ...]) -> UNet:
    """Add channels at the network's levels: made from all, listened to by the new ones alone."""
    wider = UNet(network.in_channels, network.out_channels, channels, network.dimensions)
    state = wider.state_dict()
    for name, old in network.state_dict().items():
        new = state[name]
        if old.ndim == 1:
            new[: len(old)] = old
            continue
        if name.startswith("ups."):  # transposed convolutions keep what comes in first
            old, new = old.transpose(0, 1), new.transpose(0, 1)
        comes_in = torch.arange(old.shape[1])
        if name.startswith("up_units.") and "second" not in name:
            # Two halves, each with channels of its own: what comes from below, and what was kept.
            half = old.shape[1] // 2
            comes_in[half:] += new.shape[1] // 2 - half
        new[: len(old)] = 0
        new[: len(old), comes_in] = old
    wider.load_state_dict(state)
    return wider


def _deepened(network: UNet, width: int) -> UNet:
    """Add a level: what was the bottom becomes the way down and up of its own."""
    channels = (*network.widths, width)
    deeper = UNet(network.in_channels, network.out_channels, channels, network.dimensions)
    kept = network.state_dict()
    last, above = len(network.widths) - 1, network.widths[-1]
    state = deeper.state_dict() | {
        name: value for name, value in kept.items() if not name.startswith("bottom")
    }
    for part in ("first", "second"):
        for kind in ("weight", "bias"):
            state[f"down_units.{last}.{part}.{kind}"] = kept[f"bottom.0.{part}.{kind}"]
            state[f"up_units.{last}.{part}.{kind}"] = kept[f"bottom.1.{part}.{kind}"]
    # The last way up is given what comes from below, then what was kept: the identity of the latter.
    first, skip = (f"up_units.{last}.{part}.weight" for part in ("first", "skip"))
    state[first] = torch.cat([torch.zeros_like(kept["bottom.1.first.weight"]), state[first]], dim=1)
    state[skip] = torch.zeros_like(state[skip])
    state[skip][range(above), range(above, 2 * above)] = 1
    state[skip.replace("weight", "bias")].zero_()
    deeper.load_state_dict(state)
    return deeper
