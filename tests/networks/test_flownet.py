import pytest
import torch

from keywarp.networks import FlowNetInception, half_size
from keywarp.networks.flownet import CELLS_PER_UNIT


def table_8_channels() -> dict[str, int]:
    return {
        "conv1": 32,
        "conv2": 64,
        "conv3_1": 128,
        "conv3_2": 128,
        "conv3_3": 128,
        "conv4_1": 256,
        "conv4_2": 256,
        "conv5_1": 384,
        "conv5_2": 384,
        "conv6_1": 512,
        "conv6_2": 512,
    }


def test_every_layer_has_the_channels_of_table_8() -> None:
    network = FlowNetInception(8)
    found = {}

    def remember(name: str, channels: int) -> None:
        found[name] = channels

    for name in table_8_channels():
        layer = getattr(network, name)
        layer.register_forward_hook(lambda _m, _i, output, name=name: remember(name, output.shape[1]))
    image = torch.zeros(1, 3, 64, 64)
    network(image, image)
    assert found == table_8_channels()


@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (33, 17), (16, 16)])
def test_flow_and_scale_have_the_resolution_of_the_features(height: int, width: int) -> None:
    image = half_size(torch.randn(2, 3, height, width))
    motion = FlowNetInception(8)(image, image)
    cells = (-(-height // 16), -(-width // 16))
    assert motion.flow.shape == (2, 2, *cells)
    assert motion.scale.shape == (2, 8, *cells)


def test_scale_is_exactly_one_before_training() -> None:
    network = FlowNetInception(8)
    scale = network(torch.randn(1, 3, 48, 48) * 90, torch.randn(1, 3, 48, 48) * 90).scale
    assert torch.equal(scale, torch.ones_like(scale))


def test_every_convolution_has_a_bias() -> None:
    convolutions = [
        m for m in FlowNetInception(8).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    assert convolutions
    assert all(module.bias is not None for module in convolutions)


def test_the_current_frame_comes_before_the_key_frame() -> None:
    network = FlowNetInception(8)
    torch.nn.init.normal_(network.flow.weight)
    first = network.conv1[0]
    with torch.no_grad():
        first.weight[:, 3:] = 0  # type: ignore[operator]  # blind to what comes second
    current, key, other = torch.randn(3, 1, 3, 32, 32) * 60
    assert torch.equal(network(current, key).flow, network(current, other).flow)
    assert not torch.equal(network(current, key).flow, network(other, key).flow)


def test_the_flow_unit_is_two_and_a_half_cells() -> None:
    assert CELLS_PER_UNIT == 2.5
