"""What takes turns computes what it is said to compute."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keywarp.cli.errors import CommandError
from keywarp.commands.engine_bench.contestants import whole_network
from keywarp.commands.engine_bench.footage import read_windows
from keywarp.commands.engine_bench.machine import describe_machine, resident_bytes
from keywarp.commands.engine_bench.nano import nano
from keywarp.commands.engine_bench.networks import with_int8
from keywarp.commands.engine_bench.operations import count_operations
from keywarp.commands.engine_bench.peak import PEAK_SHAPES, convolutions, peak_operations
from keywarp.engines import Engine, open_backend
from keywarp.engines.comparison import ClipFrame
from keywarp.engines.fusion import FRAME
from keywarp.engines.motion import MotionSource
from keywarp.importing.graph import Graph
from keywarp.importing.operations import total_operations
from keywarp.quantization.quantizing import GraphTimes
from tests.quantization.networks import drawn_clip, layered_bundle
from tests.tiny_bundle import tiny_bundle

FRAMES = [frame.image for frame in drawn_clip(4).frames()]
HEIGHT, WIDTH = FRAMES[0].shape[:2]


def test_the_whole_network_gives_the_labels_of_a_key_frame(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path)
    graph = whole_network(bundle, HEIGHT, WIDTH)
    assert [output.name for output in graph.graph.output] == ["labels"]
    expected, _ = Engine(bundle, "openvino", "fp32", cache=tmp_path / "cache").key(FRAMES[0])
    found = open_backend("onnxruntime", "fp32").compile(graph).run({FRAME: FRAMES[0][np.newaxis]})
    np.testing.assert_array_equal(np.asarray(found["labels"])[0], expected.labels)


def test_pytorch_computes_the_same_network(tmp_path: Path) -> None:
    from keywarp.commands.engine_bench.eager import EagerNetwork

    bundle = layered_bundle(tmp_path, half=True)
    scores = EagerNetwork(bundle, 1).run(FRAMES[0])["scores"]
    expected, _ = Engine(bundle, "onnxruntime", "fp32").key(FRAMES[0])
    assert expected.labels is not None
    np.testing.assert_array_equal(scores[0].argmax(0).numpy(), expected.labels[8::16, 8::16])


def test_operations_are_counted_exactly(tmp_path: Path) -> None:
    cells = (HEIGHT // 16) * (WIDTH // 16)
    counted = count_operations(layered_bundle(tmp_path, half=True), MotionSource.parse("codec"), HEIGHT, WIDTH)
    assert counted.features == 2 * cells * (3 * 3 * 256 + 6 * 3 + 4 * 6 + 3 * 4 + 3 * 3)
    assert counted.head == 2 * cells * 3 * 3
    assert counted.warp == 8 * cells * 3
    assert counted.flow == 0


@pytest.mark.parametrize("shape", PEAK_SHAPES)
def test_the_operations_of_the_peak_are_those_of_its_graph(shape: str) -> None:
    graph = Graph(onnx.shape_inference.infer_shapes(convolutions(shape)))
    assert peak_operations(shape) == total_operations(graph)


def test_graphs_in_int8_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYWARP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(GraphTimes, "pays", property(lambda _: True))
    bundle, said = layered_bundle(tmp_path / "layered"), list[str]()
    made, had = with_int8(bundle, FRAMES, "openvino", 1, said.append)
    assert not had
    assert said == ["quantising layered (once)"]
    again, _ = with_int8(bundle, FRAMES, "openvino", 1, said.append)
    assert len(said) == 1
    for quantised in (made, again):
        operators = {node.op_type for node in quantised.in_precision("int8").graph("features.onnx").graph.node}
        assert "QuantizeLinear" in operators
    assert with_int8(made, FRAMES, "openvino", 1, said.append) == (made, True)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_light_network_of_any_file_runs_on_every_frame(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "light.onnx"
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight"], ["map"], "layer")],
        "light",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 48])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    contestant = nano(path, precision, 1, FRAMES)  # type: ignore[arg-type]
    assert contestant.name == f"light {precision}"
    times = contestant.open()([ClipFrame(frame, index, 0.0) for index, frame in enumerate(FRAMES)])
    assert len(times["frame"]) == len(FRAMES) - 1  # the first one isn't counted


def test_resized_frames_come_with_motion_vectors(clip: Path) -> None:
    windows = read_windows(clip, (96, 160), 2)
    assert [len(window) for window in windows] == [10, 10]
    assert {frame.image.shape for window in windows for frame in window} == {(96, 160, 3)}
    vectors = windows[0][3].vectors
    assert vectors is not None
    assert (vectors.height, vectors.width) == (96, 160)
    assert len(vectors.future)


def test_a_video_that_is_too_short_is_refused(tmp_path: Path, clip: Path) -> None:
    import cv2

    folder = tmp_path / "images"
    folder.mkdir()
    for index, frame in enumerate(FRAMES):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    with pytest.raises(CommandError, match="has 4 frames, but at least 10 are needed"):
        read_windows(folder, None, 2)
    assert len(read_windows(clip, None, 100)) == 5  # of 50 frames


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.processor
    assert machine.cores >= 1
    assert "onnxruntime" in machine.runtimes
    assert (resident_bytes() or 1e9) > 1e7
