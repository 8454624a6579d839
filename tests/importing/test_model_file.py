"""Files of all kinds become one form, and give the same results."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from keywarp.importing.errors import ImportingError
from keywarp.importing.graph import IMAGE, Graph
from keywarp.importing.model_file import ImportedModel, read_model
from keywarp.importing.opsets import opset_of
from keywarp.importing.picture import picture
from keywarp.importing.runtime import run
from keywarp.importing.tensors import to_float32
from tests.importing.files import convolution, model_of, patches, saved
from tests.importing.networks import ChannelsLast, Segmenter, export, layer


def result_of(imported: ImportedModel, image: NDArray[np.float32]) -> NDArray[Any]:
    return next(iter(run(imported.model, {IMAGE: image}).values()))


def result_of_file(path: Path, image: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: image})[0]
    return found


def test_a_file_becomes_one_image_of_fixed_size_with_folded_constants(tmp_path: Path) -> None:
    path = export(Segmenter(), tmp_path / "network.onnx", 64, 96, output_names=["scores"])
    imported = read_model(path)
    image = picture(64, 96)
    graph = Graph(imported.model)
    assert (imported.height, imported.width) == (64, 96)
    assert imported.producer.startswith("pytorch")
    assert {"weight", "bias"} < imported.weight_names
    assert [(o.name, o.shape, o.dtype) for o in imported.outputs] == [("scores", (1, 5, 64, 96), np.dtype("f4"))]
    assert [value.name for value in imported.model.graph.input] == [IMAGE]
    assert graph.shapes[IMAGE] == (1, 3, 64, 96)
    assert all(min(graph.shapes[name]) > 0 for name in graph.moving)
    assert {node.op_type for node in graph.nodes} <= {"Conv", "Sigmoid", "Mul", "Resize"}
    np.testing.assert_allclose(result_of(imported, image), result_of_file(path, image), atol=1e-5)


@pytest.mark.parametrize(("size", "expected"), [(None, (640, 640)), ((96, 160), (96, 160))])
def test_a_file_of_any_size_gets_the_size_that_is_asked_for(
    tmp_path: Path, size: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    axes = {"pixels": {0: "batch", 2: "height", 3: "width"}, "scores": {0: "batch", 2: "height", 3: "width"}}
    path = export(Segmenter(), tmp_path / "network.onnx", 64, 64, output_names=["scores"], dynamic_axes=axes)
    assert read_model(path, size).outputs[0].shape == (1, 5, *expected)


def test_the_size_in_the_metadata_is_the_default(tmp_path: Path) -> None:
    model = model_of([patches()], {"weights": convolution()}, [("pixels", TensorProto.FLOAT, ["n", 3, "h", "w"])])
    helper.set_model_props(model, {"imgsz": "[320, 480]", "names": "{0: 'person'}"})
    imported = read_model(saved(model, tmp_path))
    assert (imported.height, imported.width) == (320, 480)
    assert imported.metadata["names"] == "{0: 'person'}"


def test_a_channels_last_image_is_transposed(tmp_path: Path) -> None:
    path = export(ChannelsLast(), tmp_path / "network.onnx", 64, 96, nhwc=True)
    imported = read_model(path)
    image = picture(64, 96)
    expected = result_of_file(path, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(result_of(imported, image), expected, atol=1e-5)


def test_a_file_that_takes_bytes_gets_values_up_to_255(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)
    model = model_of(
        [cast, patches(image="floats")], {"weights": convolution()}, [("pixels", TensorProto.UINT8, [1, 3, 64, 96])]
    )
    path = saved(model, tmp_path)
    imported = read_model(path)
    image = np.round(picture(64, 96) * 255)
    assert imported.bytes_in
    np.testing.assert_allclose(result_of(imported, image), result_of_file(path, image.astype(np.uint8)), rtol=1e-4)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_files_of_16_bit_floats_become_32_bits(tmp_path: Path, dtype: int) -> None:
    to = helper.make_node("Cast", ["pixels"], ["half"], to=dtype)
    back = helper.make_node("Cast", ["scores"], ["result"], to=TensorProto.FLOAT)
    model = model_of([to, patches("scores", "half"), back], {"weights": convolution()})
    weights = model.graph.initializer[0]
    weights.CopyFrom(helper.make_tensor("weights", dtype, weights.dims, convolution().ravel().tolist()))
    imported = read_model(saved(model, tmp_path))
    graph = Graph(imported.model)
    assert set(graph.types.values()) == {TensorProto.FLOAT}
    to_float32(model)
    np.testing.assert_allclose(
        result_of(imported, picture(64, 96)), run(model, {"pixels": picture(64, 96)})["result"], atol=1e-5
    )


class Modern(nn.Module):
    """Operators of late opsets: Gelu (20), attention (23), and GridSample, whose modes opset 20 renamed."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = layer(3, 8, stride=2), nn.LayerNorm(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return a map."""
        x = nn.functional.gelu(self.patches(image))
        grid = nn.functional.affine_grid(torch.eye(2, 3)[None] * 0.9, list(x.shape), align_corners=False)
        x = nn.functional.grid_sample(x, grid, align_corners=False)
        tokens = self.norm(x.flatten(2).transpose(1, 2))[:, None]
        tokens = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0]
        return torch.unflatten(tokens.transpose(1, 2), 2, x.shape[2:])


@pytest.mark.parametrize("opset", [20, 23])
def test_new_opsets_are_converted_down(tmp_path: Path, opset: int) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs it: pip install 'keywarp[zoo]'")
    path = tmp_path / "network.onnx"
    program = torch.onnx.export(Modern().eval(), (torch.rand(1, 3, 32, 48),), dynamo=True, opset_version=opset)
    assert program is not None
    program.save(str(path))
    assert opset_of(onnx.load(path)) == opset
    imported = read_model(path)
    assert opset_of(imported.model) == 19
    image = picture(32, 48)
    np.testing.assert_allclose(result_of(imported, image), result_of_file(path, image), atol=1e-4)


def test_old_opsets_are_converted_up(tmp_path: Path) -> None:
    path = export(Segmenter(), tmp_path / "network.onnx", 64, 96, opset_version=11)
    imported = read_model(path)
    assert opset_of(imported.model) == 17
    np.testing.assert_allclose(result_of(imported, picture(64, 96)), result_of_file(path, picture(64, 96)), atol=1e-5)


def test_constants_beside_the_file_are_read(tmp_path: Path) -> None:
    model = model_of([patches()], {"weights": convolution()})
    inside = read_model(saved(model, tmp_path))
    folder = tmp_path / "in parts"
    folder.mkdir()
    path = saved(model, folder, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").exists()
    image = picture(64, 96)
    np.testing.assert_array_equal(result_of(read_model(path), image), result_of(inside, image))


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "expected"),
    [
        ("orig_target_sizes", TensorProto.INT64, [1, 2], [[96, 64]]),  # RT-DETR: width, height
        ("target_sizes", TensorProto.INT64, ["n", 2], [[64, 96]]),
        ("im_shape", TensorProto.FLOAT, [1, 2], [[64, 96]]),
        ("scale_factor", TensorProto.FLOAT, [1, 2], [[1, 1]]),
    ],
)
def test_sizes_besides_the_image_are_filled_in(
    tmp_path: Path, name: str, dtype: int, shape: list[int | str], expected: list[list[int]]
) -> None:
    copy = helper.make_node("Cast", [name], ["size"], to=TensorProto.INT64)
    outputs = [("result", TensorProto.FLOAT, None), ("size", TensorProto.INT64, None)]
    inputs = [("pixels", TensorProto.FLOAT, [1, 3, 64, 96]), (name, dtype, shape)]
    model = model_of([patches(), copy], {"weights": convolution()}, inputs, outputs)  # type: ignore[arg-type]
    imported = read_model(saved(model, tmp_path))
    assert run(imported.model, {IMAGE: picture(64, 96)})["size"].tolist() == expected


def test_names_of_a_bundles_own_tensors_are_left_free(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["features"], ["image"])
    model = model_of([patches("features"), relu], {"weights": convolution()}, outputs=[("image", 1, None)])  # type: ignore[list-item]
    imported = read_model(saved(model, tmp_path))
    assert [output.name for output in imported.outputs] == ["image_"]


def test_nodes_may_be_in_any_order(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["result"]), patches("x")], {"weights": convolution()})
    assert read_model(saved(model, tmp_path)).outputs[0].shape == (1, 16, 8, 12)


def test_a_dimension_that_depends_on_the_content_is_minus_one(tmp_path: Path) -> None:
    nodes = [patches("x"), helper.make_node("NonZero", ["x"], ["result"])]
    imported = read_model(saved(model_of(nodes, {"weights": convolution()}, outputs=[("result", 7, None)]), tmp_path))  # type: ignore[list-item]
    assert imported.outputs[0].shape == (4, -1)


def test_another_size_than_the_files_own_is_refused(tmp_path: Path) -> None:
    path = saved(model_of([patches()], {"weights": convolution()}), tmp_path)
    with pytest.raises(ImportingError, match=r"made for images of 64x96 .* not 128x96: leave the size out"):
        read_model(path, (128, 96))
