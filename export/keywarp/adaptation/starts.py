"""A flow network from elsewhere as the start, given the bundle's feature maps.

The weights of a flow network up to its flow don't depend on the feature maps. Only the layers of the scale fields do.
In a flow network from elsewhere they are new, with scale fields of exactly 1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from keywarp import importing
from keywarp.adaptation.errors import StartError
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.engines import Manifest, load_bundle
from keywarp.engines.manifest import MANIFEST, map_names
from keywarp.export.graphs import FlatFlow, Graph, to_onnx
from keywarp.networks import FeatureMap, FlowNet, FlowNetInception, FlowNetwork
from keywarp.networks.flow_pyramid import CHANNELS, FlowPyramid
from keywarp.networks.flownet import INPUT_DOWNSCALE

FLOW_GRAPH = "flow.onnx"
SCALES = "scales."  # begins the names of the scale fields' layers
FORMER_NAMES = {f"refine{5 - n}.": f"refinement.{n}." for n in range(4)}  # in bundles of earlier versions


def given_start(path: Path, manifest: Manifest) -> onnx.ModelProto:
    """Return a flow network from elsewhere for the feature maps of a bundle.

    Args:
        path: A bundle, or a `flow.onnx`, with a flow network of Keywarp's own.
        manifest: The manifest of the bundle that is to get it.

    Raises:
        StartError: If it isn't one of Keywarp's flow networks, or can't see images that the maps' cells fit.
        keywarp.engines.BundleError: If the bundle can't be read.
    """
    if (path / MANIFEST).is_file():
        model = load_bundle(path).graph(FLOW_GRAPH)
    else:
        try:
            model = onnx.load(str(path))
        except Exception as error:  # protobuf's errors have no common public base class
            raise StartError(f"{path} is neither a bundle nor an ONNX graph: {error}") from error
    return flow_graph(rebuild(model, manifest, str(path)), manifest)


def pretrained_start(manifest: Manifest) -> onnx.ModelProto:
    """Return the pre-trained flow network that is shipped, for the feature maps of a bundle.

    Args:
        manifest: The manifest of the bundle that is to get it.

    Raises:
        StartError: If it can't see images that the maps' cells fit.
    """
    _check_strides(manifest)
    return importing.flow_graph(manifest.features, manifest.opset, manifest.flow.downscale)


def is_untrained(graph: TorchGraph, manifest: Manifest) -> bool:
    """Return whether a flow network's scale fields are exactly 1, as they are before any training for a network."""
    images = 60 * torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = graph(current=images[0], key=images[1])
    return all(bool((outputs[name] == 1).all()) for name in map_names("scale", len(manifest.features)))


def rebuild(model: onnx.ModelProto, manifest: Manifest, name: str) -> FlowNetwork:
    """Build a flow network with the weights of a graph, for the feature maps of a bundle.

    Args:
        model: The graph of a flow network that Keywarp exported.
        manifest: The manifest of the bundle that is to get it.
        name: The graph's name for error messages.

    Raises:
        StartError: If it isn't one of Keywarp's flow networks, or can't see images that the maps' cells fit.
    """
    _check_strides(manifest)
    weights = _weights(model)
    # What the network gets is to it half of an image, in which cells are as large as here.
    maps = [FeatureMap(f.channels, INPUT_DOWNSCALE * f.stride // manifest.flow.downscale) for f in manifest.features]
    reason = "its layers have other names"
    for build in _builders(weights):
        try:
            network = build(maps)
            fresh = {n: x for n, x in network.state_dict().items() if n.startswith(SCALES)}
            kept = {n: x for n, x in weights.items() if n in network.state_dict()}
            network.load_state_dict(kept | fresh)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
        else:
            return network
    raise StartError(
        f"{name} isn't one of Keywarp's flow networks, so it can't be given other feature maps: start from another "
        f"bundle's ({reason})"
    )


def _check_strides(manifest: Manifest) -> None:
    """Check that each cell of the feature maps covers whole pixels of the flow network's images."""
    strides, downscale = [f.stride for f in manifest.features], manifest.flow.downscale
    if any(stride % downscale for stride in strides):
        raise StartError(
            f"the flow network sees images of 1/{downscale} the size, where cells of {' and '.join(map(str, strides))} "
            "pixels don't cover whole pixels: give the bundle a `flow.downscale` that divides the strides"
        )


def _builders(weights: Mapping[str, Tensor]) -> Iterator[Callable[[Sequence[FeatureMap]], FlowNetwork]]:
    """Yield the networks that weights may belong to, judging by some of their names and shapes."""
    widest = weights.get("conv6_2.branches.1.1.0.weight")
    if widest is not None:
        share = widest.shape[0] / 256
        for guess in (round(share, 2), round(share, 3), share):
            found = [weights.get(f"refinement.{n}.deconv.weight") for n in range(4)]
            a, b, c, d = (0 if w is None else round(w.shape[1] / guess) for w in found)
            yield partial(FlowNetInception, share=guess)
            yield partial(FlowNetInception, share=guess, refinement=(a, b, c, d))
    finest = weights.get("encoder.0.0.0.weight")
    if finest is not None:
        yield partial(FlowPyramid, share=finest.shape[0] / CHANNELS[2])
    first = weights.get("conv1.0.weight")
    if first is not None:
        yield partial(FlowNet, share=first.shape[0] / FlowNet.width)


def flow_graph(network: FlowNetwork, manifest: Manifest) -> onnx.ModelProto:
    """Trace a flow network as the graph of a bundle.

    Args:
        network: The flow network, for the bundle's feature maps.
        manifest: The bundle's manifest.
    """
    names = ("flow", *map_names("scale", len(manifest.features)))
    example = (torch.randn(1, 3, 64, 64) * 60, torch.randn(1, 3, 64, 64) * 60)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    return to_onnx(Graph(FLOW_GRAPH, FlatFlow(network), ("current", "key"), names, example))


def _weights(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Return the weights of an exported graph by their names in the network, whatever version exported it."""
    found: dict[str, Tensor] = {}
    for proto in model.graph.initializer:
        if proto.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            found[proto.name.removesuffix(".half")] = torch.from_numpy(numpy_helper.to_array(proto).copy()).float()
    for node in model.graph.node:  # the exporter stores equal weights once
        if node.op_type == "Identity" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    names = {}
    for name, value in found.items():
        own = name.removeprefix("flow.") if name.startswith("flow.") and name.count(".") > 1 else name
        for former, present in FORMER_NAMES.items():
            own = present + own.removeprefix(former) if own.startswith(former) else own
        names[own] = value
    return names
