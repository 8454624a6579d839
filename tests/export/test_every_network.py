"""PyTorch, ONNX Runtime and OpenVINO agree on every graph of the paper's networks, at full size.

All compute in 32 bits. They differ in the order of their sums and in how convolutions are factored, so the errors are
some units in the last place of the largest intermediate values, which grow with depth: 1e-4 of an output's largest
value holds for all. Weights are random; a wrong stride, dilation, crop or padding shows as an error near 1.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from keywarp.engines import AVAILABLE, open_backend
from keywarp.export import Graph, graphs_of, round_weights, to_onnx
from keywarp.networks import FLOW_NETWORKS, FeatureMap, NetworkOptions, Task, Warp, build_network
from keywarp.networks.flownet import ExpandingFlowNetwork
from keywarp.networks.resnet import RESNET50, RESNET101

TOLERANCE = 1e-4  # relative to the largest value of an output
SIZES = ((97, 131, 1), (64, 96, 2))  # height, width, batch


def networks() -> Iterator[tuple[str, NetworkOptions, tuple[str, ...]]]:
    """Yield a name, the options and the graphs to compare, so that each network is compared once."""
    for name, blocks in (("resnet50", RESNET50), ("resnet101", RESNET101)):
        yield name, NetworkOptions(2, blocks=blocks, flow="flownet_inception"), ("features.onnx",)
    for flow in FLOW_NETWORKS:
        yield flow, NetworkOptions(2, blocks=(1, 1, 1, 0), flow=flow), ("flow.onnx", "warp.onnx")
    tasks: tuple[tuple[Task, int], ...] = (("segmentation", 20), ("detection", 31))
    for task, classes in tasks:
        for head_layers in (0, 1, 5, 12, 21):
            # up to the cut, both tasks have the same feature network
            graphs = ("features.onnx", "head.onnx") if task == "segmentation" else ("head.onnx",)
            options = NetworkOptions(classes, task, (1, 1, 4, 3), flow="flownet_inception", head_layers=head_layers)
            yield f"{task}, {head_layers} layers", options, graphs


@pytest.mark.parametrize(("options", "files"), [pytest.param(o, f, id=name) for name, o, f in networks()])
def test_all_runtimes_agree(options: NetworkOptions, files: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network(options).eval()
    predicting = [*network.flow.scales]  # or the scale would be one, and the flow zero
    if isinstance(network.flow, ExpandingFlowNetwork):
        predicting.append(network.flow.flow)
    for predict in predicting:
        torch.nn.init.normal_(next(predict.parameters()), std=0.02)
    round_weights(network)
    for graph in graphs_of(network):
        if graph.file in files:
            model = to_onnx(graph)
            for name in AVAILABLE:
                backend = open_backend(name, "fp32", cache=tmp_path)  # type: ignore[arg-type]
                program = backend.compile(model)
                for size in SIZES:
                    example = next(g for g in graphs_of(network, *size) if g.file == graph.file)
                    compare(example, program.run(inputs(example)), name)


def test_the_warp_of_several_maps_agrees_too(tmp_path: Path) -> None:
    from keywarp.export.graphs import FlatWarp

    maps = (FeatureMap(3, 8), FeatureMap(5, 16), FeatureMap(2, 32))
    shapes = [(1, 3, 13, 17), (1, 5, 7, 9), (1, 2, 4, 5)]
    tensors = [torch.rand(s) for s in shapes], [torch.randn(1, 2, 13, 17) * 3], [torch.rand(s) for s in shapes]
    names = (*(f"features_{i}" for i in range(3)), "flow", *(f"scale_{i}" for i in range(3)))
    outputs = tuple(f"warped_{i}" for i in range(3))
    graph = Graph("warp.onnx", FlatWarp(Warp(maps)), names, outputs, tuple(t for part in tensors for t in part))
    model = to_onnx(graph)
    for name in AVAILABLE:
        program = open_backend(name, "fp32", cache=tmp_path).compile(model)  # type: ignore[arg-type]
        compare(graph, program.run(inputs(graph)), name)


def inputs(graph: Graph) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in zip(graph.inputs, graph.example, strict=True)}


def compare(graph: Graph, found: Mapping[str, object], runtime: str) -> None:
    with torch.inference_mode():
        expected = graph.module(*graph.example)
    for name, want in zip(graph.outputs, expected, strict=True):
        largest = float(want.abs().max())
        assert largest > 1e-3, f"{graph.file} gives nothing to compare"
        output = np.asarray(found[name])
        assert output.shape == tuple(want.shape)
        error = float(np.abs(output - want.numpy()).max()) / largest
        assert error <= TOLERANCE, f"{graph.file}, {name}: {runtime} differs from PyTorch by {error:.1e}"
