"""Halves where a device is fast at them: near to single precision, and only where they are asked for."""

import numpy as np
import pytest
import torch

from emflow import precision
from emflow.inference import infer
from emflow.networks import UNet


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(1, 3, (16, 32)).eval()


IMAGE = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)


@pytest.mark.parametrize("fast", [False, True])
def test_halves_are_used_where_they_are_fast_and_wanted(
    fast: bool, network: UNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": fast})
    single, halves = (infer(network, IMAGE, halves_on_cpu=wanted) for wanted in (False, True))
    assert halves.dtype == np.float32
    error = (halves - single).std()
    assert 0 < error < 0.02 * single.std() if fast else error == 0


def test_what_they_are_asked_for_of_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with precision.in_halves("cpu", on_cpu=True):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    with precision.in_halves("cpu", on_cpu=False):
        assert not torch.is_autocast_enabled("cpu")


def test_a_graphics_card_is_always_fast() -> None:
    assert precision.has_fast_bfloat16(torch.device("cuda"))
