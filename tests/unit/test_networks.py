import numpy as np
import pytest
import torch

from emflow.errors import SettingError
from emflow.inference import infer
from emflow.networks import UNet, build
from emflow.tiling import TileGrid, map_tiles

ARCHITECTURE = {"name": "UNet", "in_channels": 1, "out_channels": 2, "channels": [4, 6, 8, 8]}


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    network = build(ARCHITECTURE).eval()
    with torch.no_grad():
        # Fresh weights answer next to nothing from far away; a trained network may well listen to it.
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.mul_(1.6)
    return network


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_stride_and_halo_follow_the_formula():
    # Scales 2, 4, 8: stem and head 2 * 2, four convolutions a level 4 * (2 + 4 + 8), and stride - 1 = 7.
    network = UNet(1, 1, (4, 4, 4))
    assert network.stride == 8
    assert network.halo == 72  # 4 + 56 + 7 = 67, rounded up to a multiple of 8
    assert UNet(1, 1, (4, 4, 4, 4)).halo == 144


def test_halo_covers_the_receptive_field(network):
    image = torch.zeros(1, 1, 512, 512, requires_grad=True)
    network(image)[0, :, 256:272, 256:272].sum().backward()
    rows = torch.nonzero(image.grad[0, 0].abs().sum(dim=1))[:, 0]
    assert 256 - network.halo <= rows.min() < 256 - network.halo + 2 * network.stride
    assert 271 + network.halo - 2 * network.stride < rows.max() <= 271 + network.halo


@pytest.mark.parametrize("shape", [(400, 400), (230, 517)])
def test_tiled_equals_untiled(network, shape):
    image = noise(*shape)
    whole = infer(network, image, tile_pixels=4096)
    tiled = infer(network, image, tile_pixels=96)
    assert whole.shape == (2, *shape)
    np.testing.assert_allclose(tiled, whole, atol=1e-5 * np.abs(whole).max())


def test_too_small_a_halo_shows(network):
    image = noise(400, 400)

    def forward(window):
        with torch.inference_mode():
            return network(torch.from_numpy(window)[None, None])[0].numpy()

    whole = map_tiles(forward, image, TileGrid(image.shape, 4096, network.halo, network.stride))
    tiled = map_tiles(forward, image, TileGrid(image.shape, 96, 32, network.stride))
    assert np.abs(tiled - whole).max() > 1e-3 * np.abs(whole).max()


def test_an_impulse_does_not_reach_beyond_the_halo(network):
    image = noise(512, 512)
    other = image.copy()
    other[0, 0] += 100
    difference = np.abs(infer(network, image) - infer(network, other)).max(axis=0)
    assert difference[:16, :16].max() > 0
    reach = network.halo + network.stride
    assert difference[reach:].max() == 0
    assert difference[:, reach:].max() == 0


def test_build_gives_the_same_network_as_the_class():
    torch.manual_seed(3)
    built = build(ARCHITECTURE)
    torch.manual_seed(3)
    direct = UNet(1, 2, (4, 6, 8, 8))
    for name, tensor in direct.state_dict().items():
        assert torch.equal(tensor, built.state_dict()[name])


@pytest.mark.parametrize(
    "change",
    [{"name": "ResNet"}, {"depth": 3}, {"channels": []}, {"channels": ["a"]}, {"channels": [0]}],
)
def test_an_unknown_architecture_is_one_line(change):
    with pytest.raises(SettingError) as caught:
        build({**ARCHITECTURE, **change})
    assert "\n" not in str(caught.value)


def test_there_is_no_layer_with_statistics_of_the_tile():
    assert not [module for module in build(ARCHITECTURE).modules() if "norm" in type(module).__name__.lower()]
