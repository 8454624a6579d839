"""Frames of several streams in one batch have the results of each frame alone."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from keywarp.engines import BundleError, load_bundle, open_backend
from keywarp.engines.backends.interface import Tensor
from keywarp.engines.backends.warping import insert_plugin, simplify
from keywarp.engines.bundle import Bundle, make_bundle
from keywarp.engines.fusion import CURRENT, FLOW, FRAME, KEY, PLAIN, GraphStyle, fuse_frames, fuse_key
from keywarp.engines.gathering import Batch
from keywarp.engines.last_step import cut_last_step
from keywarp.engines.motion import MotionSource
from tests.engines.tensorrt.test_last_step import regions_bundle
from tests.engines.test_fusion import noise
from tests.tiny_bundle import graph_of, tiny_bundle

FRAMES = 4
HEIGHT, WIDTH = 64, 96
TOLERANCE = 1e-5  # share of an output's largest value: sums of fp32 in another order
SHIPPED = Path(__file__).parents[2] / "models"
BUNDLES: Mapping[str, Callable[[Path], Bundle]] = {
    "segmentation": lambda path: tiny_bundle(path, motion_gain=0.02, flow=(0.3, -0.6)),
    "held": lambda path: tiny_bundle(path, motion_gain=0.02, held=True),
    "dense": lambda path: tiny_bundle(path, motion_gain=0.02, dense=True),
    "boxes": lambda path: tiny_bundle(path, motion_gain=0.02, detection=True),
    "instances": lambda path: tiny_bundle(path, motion_gain=0.02, instances=True),
    "regions": regions_bundle,
    "street": lambda _: load_bundle(SHIPPED / "street"),
    "street-detect": lambda _: load_bundle(SHIPPED / "street-detect"),
}


def inputs_of(bundle: Bundle, source: MotionSource, style: GraphStyle) -> list[dict[str, Tensor]]:
    """Return the inputs of propagated frames, each with a key frame of its own."""
    backend = open_backend("onnxruntime", "fp32")
    key = fuse_key(bundle, HEIGHT, WIDTH, style)
    program = backend.compile(cut_last_step(key.model)[0], key.resident)
    single = fuse_frames(bundle, HEIGHT, WIDTH, source, style).model.graph.input
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in single}
    random = np.random.default_rng(1)
    found: list[dict[str, Tensor]] = []
    for number, frame in enumerate(noise(FRAMES, HEIGHT, WIDTH)):
        outputs = program.run({FRAME: np.roll(frame, 5 * number, axis=1)[np.newaxis]})
        given: dict[str, Tensor] = {name: outputs[name] for name in shapes if name in key.resident}
        for name in {CURRENT, KEY} & shapes.keys():
            given[name] = random.integers(0, 256, shapes[name], np.uint8)
        for name in shapes.keys() - given.keys():
            given[name] = random.uniform(-2, 2, shapes[name]).astype(np.float32)
        found.append(given)
    return found


def compare(bundle: Bundle, motion: str = "", style: GraphStyle = PLAIN, count: int = FRAMES) -> onnx.ModelProto:
    """Compare frames of a batch with each alone, and return the graph for the batch."""
    source = MotionSource.parse(motion or bundle.manifest.motion)
    backend = open_backend("onnxruntime", "fp32")
    alone = backend.compile(cut_last_step(fuse_frames(bundle, HEIGHT, WIDTH, source, style).model)[0])
    model = fuse_frames(bundle, HEIGHT, WIDTH, source, style, FRAMES).model
    batch = Batch(backend.compile(cut_last_step(model)[0]), FRAMES)
    inputs = inputs_of(bundle, source, style)[:count]
    results = batch.run(inputs)
    assert len(results) == count
    different = []
    for frame, result in zip(inputs, results, strict=True):
        expected = {name: np.asarray(value).copy() for name, value in alone.run(frame).items()}
        assert result.keys() == expected.keys()
        for name, value in expected.items():
            found = np.asarray(result[name])
            if value.dtype == np.uint8:
                assert (found == value).mean() > 0.999  # rounding may change a pixel's class
            else:
                np.testing.assert_allclose(found, value, atol=TOLERANCE * np.abs(value).max())
        different.append(expected)
    # Otherwise mixing frames up would make no difference. The flow may be the same for all, and the cells are anchors.
    fixed = {FLOW, "boxes", "masks", "keypoints"}
    assert all(len({frame[name].tobytes() for frame in different}) == count for name in different[0].keys() - fixed)
    return model


@pytest.mark.parametrize("kind", BUNDLES)
def test_frames_of_a_batch_have_the_results_of_each_alone(kind: str, tmp_path: Path) -> None:
    compare(BUNDLES[kind](tmp_path / kind))


@pytest.mark.parametrize("motion", ["network", "network-repaired", "dis", "none+scale"])
def test_batches_serve_every_kind_of_flow(motion: str, tmp_path: Path) -> None:
    compare(BUNDLES["segmentation"](tmp_path / "tiny"), motion)


@pytest.mark.parametrize("kind", ["segmentation", "regions", "street"])
@pytest.mark.parametrize(
    "style",
    [GraphStyle(last_step=True), GraphStyle(keep_features=True, channels_last=True, host_labels=True)],
    ids=["last step on the device", "rows of channels, scores, kept features"],
)
def test_batches_serve_every_style(kind: str, style: GraphStyle, tmp_path: Path) -> None:
    compare(BUNDLES[kind](tmp_path / kind), style=style)


def test_a_batch_takes_fewer_frames(tmp_path: Path) -> None:
    compare(BUNDLES["segmentation"](tmp_path / "tiny"), count=FRAMES - 1)


@pytest.mark.parametrize("kind", ["street", "street-detect", "regions"])
def test_layers_run_once_for_all_frames(kind: str, tmp_path: Path) -> None:
    """Only what isn't a layer, such as the decoding of boxes, has a copy for each frame. Weights have none."""
    bundle = BUNDLES[kind](tmp_path / kind)
    source, style = MotionSource.parse(bundle.manifest.motion), GraphStyle(last_step=True)
    one, many = (fuse_frames(bundle, HEIGHT, WIDTH, source, style, count).model for count in (1, FRAMES))
    counts = [Counter(node.op_type for node in model.graph.node) for model in (one, many)]
    for kind_of_layer in ("Conv", "ConvTranspose", "GridSample", "KeywarpLabels", "KeywarpObjects"):
        assert counts[0][kind_of_layer] == counts[1][kind_of_layer]
    sizes = [sum(len(constant.raw_data) for constant in model.graph.initializer) for model in (one, many)]
    assert sizes[1] < sizes[0] + 1000
    plugins = [insert_plugin(simplify(cut_last_step(model)[0]))[1] for model in (one, many)]
    assert plugins[0] == plugins[1] > 0


MIXING_HEAD = """
head (float[N,3,H,W] features) => (float[N,3,H,W] scores)
<int64[2] flat = {3, -1}, int64[4] folded = {1, 3, 4, 6}, int64[1] rows = {0}>
{
  all = Reshape (features, flat)
  likely = Softmax <axis=1> (all)
  maps = Reshape (likely, folded)
  mean = ReduceMean <axes=[0]> (maps)
  scores = Add (maps, mean)
}
"""


def test_a_head_that_would_mix_frames_runs_on_each_alone(tmp_path: Path) -> None:
    """The shapes of its results would be right for a batch, but not the values."""
    compare(with_graph(tiny_bundle(tmp_path / "tiny", motion_gain=0.02), "head.onnx", graph_of(MIXING_HEAD)))


def test_a_flow_network_for_one_frame_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    flow = bundle.graph("flow.onnx")
    end = next(node for node in flow.graph.node if node.output[0] == "flow")
    end.output[0] = "loose"
    shape = onnx.numpy_helper.from_array(np.array([1, 2, -1, 6]), "shape")
    flow.graph.initializer.append(shape)
    flow.graph.node.append(onnx.helper.make_node("Reshape", ["loose", "shape"], ["flow"]))
    changed = with_graph(bundle, "flow.onnx", flow)
    source = MotionSource.parse("network")
    assert FLOW in {value.name for value in fuse_frames(changed, HEIGHT, WIDTH, source).model.graph.output}
    with pytest.raises(BundleError, match="can't take a batch: with 4 frames, flow/flow should have as many rows"):
        fuse_frames(changed, HEIGHT, WIDTH, source, frames=FRAMES)


def with_graph(bundle: Bundle, name: str, model: onnx.ModelProto) -> Bundle:
    """Return a bundle in memory with another graph."""
    graphs = {file: bundle.graph(file) for file in bundle.manifest.files} | {name: model}
    fields = bundle.manifest.model_dump(exclude={"files", "precisions", "schema_version"})
    return make_bundle(bundle.path, graphs, **fields)
