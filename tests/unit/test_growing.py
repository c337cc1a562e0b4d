import pytest
import torch

from emflow.networks import UNet
from emflow.training.growing import grown


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [(4, 6), (7, 6), (5, 9), (4, 6, 8, 10), (7, 9, 9)])
def test_a_grown_network_answers_alike_until_it_learns(dimensions, channels):
    torch.manual_seed(1)
    network = UNet(2, 3, (4, 6), dimensions)
    larger = grown(network, channels)
    assert (larger.widths, larger.stride) == (channels, 1 << len(channels))
    image = torch.randn(1, 2, *(32,) * dimensions)
    torch.testing.assert_close(larger(image), network(image))


@pytest.mark.parametrize("channels", [(7, 9), (7, 9, 9)])
def test_all_of_it_learns(channels):
    torch.manual_seed(1)
    network = UNet(2, 3, (4, 6))
    larger = grown(network, channels)
    image = torch.randn(4, 2, 32, 32)
    before = {name: weight.clone() for name, weight in larger.named_parameters()}
    optimiser = torch.optim.Adam(larger.parameters(), lr=1e-3)
    # What is listened to from the first step on is itself taught from the second.
    for _ in range(2):
        optimiser.zero_grad()
        larger(image).square().sum().backward()
        optimiser.step()
    assert not [name for name, weight in larger.named_parameters() if (weight == before[name]).all()]
    # And so is every channel that is new.
    assert (larger.head.weight[:, 4:] != before["head.weight"][:, 4:]).any(dim=(0, 2, 3)).all()
    assert (larger.stem.weight[4:] != before["stem.weight"][4:]).flatten(1).any(dim=1).all()


def test_the_smaller_network_stays_as_it_is():
    torch.manual_seed(1)
    network = UNet(2, 3, (4, 6))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    same = grown(network, (4, 6))
    with torch.no_grad():
        same.stem.weight.add_(1)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [(4,), (3, 6), (4, 5, 8), ()])
def test_no_network_shrinks(channels):
    with pytest.raises(ValueError, match=r"not the channels \(4, 6\) or more"):
        grown(UNet(2, 3, (4, 6)), channels)
