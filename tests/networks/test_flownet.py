import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flow_networks import FLOW_NETWORKS, FlowNetworkBuilder
from keywarp.networks.flownet import ExpandingFlowNetwork, FlowNet, FlowNetHalf, FlowNetInception, FlowNetwork

Builder = Callable[[Sequence[FeatureMap]], FlowNetwork]

SMALL = (FeatureMap(8, 16),)
TABLE_6 = {
    "conv1": (64, 2),
    "conv2": (128, 4),
    "conv3": (256, 8),
    "conv3_1": (256, 8),
    "conv4": (512, 16),
    "conv4_1": (512, 16),
    "conv5": (512, 32),
    "conv5_1": (512, 32),
    "conv6": (1024, 64),
    "conv6_1": (1024, 64),
}
TABLE_7 = {layer: (channels // 2, stride) for layer, (channels, stride) in TABLE_6.items()}
TABLE_8 = {
    "conv1": (32, 2),
    "pool1": (32, 4),
    "conv2": (64, 4),
    "conv3_1": (128, 8),
    "conv3_2": (128, 8),
    "conv3_3": (128, 8),
    "conv4_1": (256, 16),
    "conv4_2": (256, 16),
    "conv5_1": (384, 32),
    "conv5_2": (384, 32),
    "conv6_1": (512, 64),
    "conv6_2": (512, 64),
}

PAPER = ("flownet", "flownet_half", "flownet_inception")
every_network = pytest.mark.parametrize("build", FLOW_NETWORKS.values(), ids=FLOW_NETWORKS.keys())


def half_size_pair(height: int, width: int, count: int = 1) -> Tensor:
    """Return two random images of half the given size, as the networks take them."""
    return torch.randn(2, count, 3, -(-height // 2), -(-width // 2)) * 60


def tiny(maps: Sequence[FeatureMap] = SMALL) -> FlowNetInception:
    """Build the cheapest network, with flow and scales that depend on the images."""
    torch.manual_seed(0)
    network = FlowNetInception(maps).eval()
    for layer in (network.flow, *network.scales):
        torch.nn.init.normal_(layer.weight)
    return network


@pytest.mark.parametrize(
    ("build", "table"), [(FlowNet, TABLE_6), (FlowNetHalf, TABLE_7), (FlowNetInception, TABLE_8)], ids=PAPER
)
def test_every_layer_has_the_channels_and_strides_of_its_table(
    build: Builder, table: dict[str, tuple[int, int]]
) -> None:
    side = 128
    with torch.device("meta"):
        network = build(SMALL)
        image = torch.zeros(1, 3, side, side)
    found: dict[str, tuple[int, int]] = {}

    def remember(name: str, output: Tensor) -> None:
        found[name] = (output.shape[1], side // output.shape[2])

    for name in table:
        getattr(network, name).register_forward_hook(lambda _m, _i, output, name=name: remember(name, output))
    network(image, image)
    assert found == table


@pytest.mark.parametrize(
    ("build", "table"), [(FlowNet, TABLE_6), (FlowNetHalf, TABLE_7), (FlowNetInception, TABLE_8)], ids=PAPER
)
def test_a_share_of_the_channels_applies_to_every_layer(
    build: FlowNetworkBuilder, table: dict[str, tuple[int, int]]
) -> None:
    with torch.device("meta"):
        network = build(SMALL, share=0.25)
        motion = network(*half_size_pair(97, 131))
    for name, (channels, _) in table.items():
        if name.startswith("conv"):
            layers = [m for m in getattr(network, name).modules() if isinstance(m, torch.nn.Conv2d)]
            outputs = getattr(getattr(network, name), "outputs", layers[-1].out_channels)
            assert outputs == channels // 4, name
    assert motion.scales[0].shape == (1, 8, 7, 9)
    assert motion.flow.shape == (1, 2, 7, 9)


@every_network
@pytest.mark.parametrize(("height", "width"), [(64, 96), (97, 131), (127, 257), (33, 17), (5, 3)])
def test_flow_and_scales_have_the_sizes_of_the_feature_maps(build: Builder, height: int, width: int) -> None:
    maps = [FeatureMap(5, stride) for stride in (32, 4, 8, 16, 128, 14, 12, 28, 2)]
    with torch.device("meta"):
        motion = build(maps)(*half_size_pair(height, width, count=2))
    assert motion.flow.shape == (2, 2, -(-height // 2), -(-width // 2))
    for scale, m in zip(motion.scales, maps, strict=True):
        assert scale.shape == (2, m.channels, -(-height // m.stride), -(-width // m.stride))


@every_network
def test_scales_are_exactly_one_before_training(build: Builder) -> None:
    for scale in build((FeatureMap(8, 16), FeatureMap(4, 4)))(*half_size_pair(97, 96)).scales:
        assert torch.equal(scale, torch.ones_like(scale))


@every_network
def test_every_convolution_has_a_bias(build: Builder) -> None:
    with torch.device("meta"):
        network = build(SMALL)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert convolutions
    assert all(module.bias is not None for module in convolutions)


def test_the_current_frame_comes_before_the_key_frame() -> None:
    network = tiny()
    with torch.no_grad():
        network.conv1[0].weight[:, 3:] = 0  # type: ignore[operator]  # ignores the second image
    current, key = half_size_pair(64, 64)
    other = torch.randn_like(key)
    assert torch.equal(network(current, key).flow, network(current, other).flow)
    assert not torch.equal(network(current, key).flow, network(other, key).flow)


@pytest.mark.parametrize(("stride", "cells"), [(4, 10.0), (8, 5.0), (16, 2.5), (32, 1.25)])
def test_a_unit_of_flow_is_20_half_size_pixels(stride: int, cells: float) -> None:
    network = FlowNetInception((FeatureMap(4, 64), FeatureMap(4, stride)))
    torch.nn.init.zeros_(network.flow.weight)
    torch.nn.init.ones_(network.flow.bias)  # type: ignore[arg-type]
    flow = network(*half_size_pair(64, 64)).flow
    assert flow.shape[-1] == 64 // stride
    assert torch.equal(flow, torch.full_like(flow, cells))


def test_the_pyramid_is_coarse_to_fine_and_ends_at_the_flow() -> None:
    motion, pyramid = tiny((FeatureMap(4, 8),)).forward_with_pyramid(*half_size_pair(256, 130))
    assert [flow.shape for flow in pyramid] == [(1, 2, 2, 2), (1, 2, 4, 3), (1, 2, 8, 5), (1, 2, 16, 9)]
    assert motion.flow.shape == (1, 2, 32, 17)


def test_a_coarser_scale_field_is_the_mean_of_what_its_cells_cover() -> None:
    network = tiny((FeatureMap(3, 8), FeatureMap(3, 16), FeatureMap(3, 64)))
    fine, *coarser = network.scales
    for scale in coarser:
        scale.load_state_dict(fine.state_dict())
    at_8, at_16, at_64 = network(*half_size_pair(128, 192)).scales
    torch.testing.assert_close(at_16, functional.avg_pool2d(at_8, 2), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(at_64, functional.avg_pool2d(at_8, 8), rtol=1e-3, atol=1e-3)


class Ramp(ExpandingFlowNetwork):
    """A flow network whose last map is a ramp of 8 cells of stride 8, and whose scale field equals that map."""

    def __init__(self) -> None:
        super().__init__((FeatureMap(1, 4),), contraction=(1,), refinement=())
        self.scales[0].load_state_dict({"weight": torch.ones(1, 1, 1, 1), "bias": torch.zeros(1)})

    def contract(self, x: Tensor) -> list[Tensor]:  # noqa: ARG002
        return [torch.arange(8.0).view(1, 1, 1, 8)]


def test_an_odd_size_does_not_shift_the_cells_of_stride_4() -> None:
    for width in (64, 57):  # 16 and 15 cells of stride 4
        [cells] = Ramp()(*half_size_pair(8, width)).scales
        expected = torch.arange(cells.shape[-1]) / 2 - 0.25  # cell centres in the ramp's cells
        assert cells.shape == (1, 1, 2, -(-width // 4))
        torch.testing.assert_close(cells[0, 0, 0, 1:14], expected[1:14])


@pytest.mark.parametrize("strides", [(), (7,), (16, 9)])
def test_maps_of_unsupported_strides_are_refused(strides: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one or more feature maps, of even strides"):
        FlowNetInception([FeatureMap(8, stride) for stride in strides])


@every_network
def test_an_exported_graph_takes_any_size(build: FlowNetworkBuilder) -> None:
    torch.manual_seed(0)
    network = build((FeatureMap(4, 16), FeatureMap(3, 4)), share=0.25).eval()
    if isinstance(network, ExpandingFlowNetwork):
        torch.nn.init.normal_(network.flow.weight)
    names = ["current", "key"], ["flow", "scale_0", "scale_1"]
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            tuple(half_size_pair(64, 96)),
            graph,  # type: ignore[arg-type]
            input_names=names[0],
            output_names=names[1],
            dynamic_axes={name: {0: "n", 2: f"{name}_h", 3: f"{name}_w"} for name in (*names[0], *names[1])},
            opset_version=17,
            do_constant_folding=False,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(graph.getvalue(), providers=["CPUExecutionProvider"])
    for count, height, width in ((1, 64, 96), (2, 97, 131), (1, 33, 18)):
        current, key = half_size_pair(height, width, count)
        with torch.inference_mode():
            motion = network(current, key)
        found = session.run(None, {"current": current.numpy(), "key": key.numpy()})
        for output, expected in zip(found, (motion.flow, *motion.scales), strict=True):
            np.testing.assert_allclose(output, expected.numpy(), atol=1e-4 * float(expected.abs().max()))
