"""Damaged, hostile and unsupported files: one sentence each, in bounded memory and time."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import read_model
from tests.importing.files import convolution, model_of, patches, saved

WEIGHTS = {"weights": convolution()}
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def refusal(path: Path, max_seconds: float = 60) -> str:
    with pytest.raises(ImportingError) as caught:
        read_model(path, max_seconds=max_seconds)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def plain() -> onnx.ModelProto:
    return model_of([patches()], WEIGHTS)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    assert "can't be read: No such file" in refusal(tmp_path / "nothing.onnx")
    assert "isn't a file" in refusal(tmp_path)
    (tmp_path / "empty.onnx").touch()
    assert "it isn't an ONNX file" in refusal(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("<html>Not found</html>")
    assert "it isn't an ONNX file" in refusal(tmp_path / "text.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_cut_files(tmp_path: Path, share: float) -> None:
    path = saved(plain(), tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "it isn't an ONNX file" in refusal(path)


def test_a_cycle(tmp_path: Path) -> None:
    nodes = [patches("x"), helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])]
    assert "its nodes form a cycle at 'Add'" in refusal(saved(model_of([*nodes, patches()], WEIGHTS), tmp_path))


def wrong_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 17


def giant_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]


def negative_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


def unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (wrong_shape, "needs 13056 bytes, but has 12288: the file is damaged"),
        (giant_shape, "the constants take more than 2.1 GB"),
        (negative_shape, "impossible shape"),
        (unknown_type, "unknown type 99"),
        (no_opset, "doesn't say which version"),
        (future_opset, "its opset 99 is newer than the newest known"),
    ],
)
def test_damaged_models(tmp_path: Path, damage: Callable[[onnx.ModelProto], None], message: str) -> None:
    model = plain()
    damage(model)
    assert message in refusal(saved(model, tmp_path))


def test_operators_that_are_not_standard(tmp_path: Path) -> None:
    own = helper.make_node("EfficientNMS_TRT", ["x"], ["result"], domain="TRT")
    model = model_of([patches("x"), own], WEIGHTS, domains=["TRT"])
    assert "it uses TRT.EfficientNMS_TRT, which is no operator of standard ONNX" in refusal(saved(model, tmp_path))
    unknown = model_of([patches("x"), helper.make_node("FancyOp", ["x"], ["result"])], WEIGHTS)
    assert "FancyOp" in refusal(saved(unknown, tmp_path))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("pixels", FLOAT, [1, 3, 64, 96]), ("b", FLOAT, [1, 3, 64, 96])], "the file takes 2 images, 'pixels' float"),
        (
            [("pixels", FLOAT, [1, 4, 64, 96])],
            "no input is an image (1, 3, H, W) or (1, H, W, 3): the file takes 'pixels'",
        ),
        ([("pixels", FLOAT, [1, 80])], "no input is an image"),
        ([("pixels", FLOAT, [8, 3, 64, 96])], "is a batch of 8 images"),
        ([("pixels", INT64, [1, 3, 64, 96])], "should be an image of floats or uint8"),
        ([("pixels", FLOAT, [1, 3, 64, 96]), ("prompt", INT64, [1, 77])], "isn't known what the input 'prompt' int64"),
        ([("pixels", FLOAT, [1, 3, 8, 96])], "aren't possible: height and width are from 16"),
        ([("pixels", FLOAT, [1, 3, 2**40, 96])], "aren't possible"),
    ],
)
def test_inputs(tmp_path: Path, inputs: list[tuple[str, int, list[int]]], message: str) -> None:
    assert message in refusal(saved(model_of([patches()], WEIGHTS, inputs), tmp_path))


def test_sequences_in_and_out(tmp_path: Path) -> None:
    model = plain()
    model.graph.input.append(helper.make_tensor_sequence_value_info("states", FLOAT, None))
    assert "input 'states' is a sequence" in refusal(saved(model, tmp_path))
    made = helper.make_node("SequenceConstruct", ["x"], ["result"])
    model = model_of([patches("x"), made], WEIGHTS)
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("result", FLOAT, None))
    assert "it returns 'result', a sequence, but only tensors" in refusal(saved(model, tmp_path))


def test_results_that_do_not_depend_on_the_image(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Identity", ["weights"], ["result"])], WEIGHTS)
    assert "don't depend on the image" in refusal(saved(model, tmp_path))


def outside(model: onnx.ModelProto, folder: Path, location: str) -> Path:
    """Write a model whose constants are in a file at `location`, relative to its folder."""
    (folder / "model").mkdir()
    path = saved(model, folder / "model", save_as_external_data=True, location="weights.bin", size_threshold=0)
    stored = onnx.load(path, load_external_data=False)
    for entry in stored.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(stored.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin", "", ".", "c:\\x", "..\\x"]
)
def test_constants_outside_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(100_000))
    assert "outside the model's folder" in refusal(outside(plain(), tmp_path, location))


def test_constants_behind_links(tmp_path: Path) -> None:
    path = outside(plain(), tmp_path, "link.bin")
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside the model's folder" in refusal(path)
    (path.parent / "link.bin").unlink()
    assert "can't be read (No such file" in refusal(path)
    os.mkfifo(path.parent / "link.bin")
    assert "outside the model's folder" in refusal(path)


def test_constants_that_the_other_file_does_not_have(tmp_path: Path) -> None:
    path = outside(plain(), tmp_path, "weights.bin")
    (path.parent / "weights.bin").write_bytes(b"short")
    assert "isn't in 'weights.bin', which has 5 bytes" in refusal(path)


def test_tensors_that_would_fill_the_memory(tmp_path: Path) -> None:
    fill = helper.make_node("ConstantOfShape", ["shape"], ["huge"])
    total = helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0)
    add = helper.make_node("Add", ["x", "sum"], ["result"])
    shape = np.array([2**20, 2**20], np.int64)
    path = saved(model_of([fill, total, patches("x"), add], {**WEIGHTS, "shape": shape}), tmp_path)
    assert "memory" in refusal(path).lower() or "allocate" in refusal(path).lower()


def test_a_loop_without_an_end(tmp_path: Path) -> None:
    condition = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go"])],
        "body",
        [helper.make_tensor_value_info("i", INT64, []), helper.make_tensor_value_info("go_in", TensorProto.BOOL, [])],
        [condition],
    )
    kept = helper.make_tensor_value_info("kept", FLOAT, [])
    body.node.append(helper.make_node("Identity", ["kept_in"], ["kept"]))
    body.input.append(helper.make_tensor_value_info("kept_in", FLOAT, []))
    body.output.append(kept)
    mean = helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)
    loop = helper.make_node("Loop", ["", "true", "mean"], ["result"], body=body)
    path = saved(model_of([patches("x"), mean, loop], {**WEIGHTS, "true": np.array(True)}), tmp_path)
    assert "didn't load and run once within 6 s" in refusal(path, max_seconds=6)
