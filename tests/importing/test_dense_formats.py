"""Maps of numbers per pixel are recognised, and decoded to the numbers that the file gives."""

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from keywarp.engines.manifest import DenseSettings
from keywarp.importing.decoders import append_decoder, dense_settings
from keywarp.importing.errors import ImportingError
from keywarp.importing.formats import Hints, ResultFormat, recognise
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.result_format import DenseLayout

from .written_outputs import HEIGHT, WIDTH, decode, model_of

SIZE = (HEIGHT, WIDTH)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def settings_of(model: ImportedModel, result: ResultFormat) -> DenseSettings:
    assert isinstance(result.layout, DenseLayout)
    decoded = append_decoder(model.model, result, model.height, model.width)
    return dense_settings(decoded, result.layout, model.height, model.width)


@pytest.mark.parametrize("shape", [SIZE, (1, *SIZE), (1, 1, *SIZE), (1, *SIZE, 1), (1, HEIGHT // 4, WIDTH // 4)])
def test_values_are_those_of_the_file(random: np.random.Generator, shape: tuple[int, ...]) -> None:
    written = random.uniform(1, 90, shape).astype(np.float32)
    model = model_of({"predicted_depth": written})
    result = recognise(model)
    assert (result.task, result.class_names) == ("dense", ())
    rows, columns = shape[1:3] if shape[-1] == 1 else shape[-2:]
    np.testing.assert_array_equal(decode(model, result)["values"], written.reshape(1, 1, rows, columns))
    assert settings_of(model, result) == DenseSettings(stride=HEIGHT // rows, quantity="depth")


@pytest.mark.parametrize(
    ("name", "quantity"),
    [("disparity", "disparity"), ("pred_disp", "disparity"), ("depth", "depth"), ("1234", "value")],
)
def test_quantity_follows_the_outputs_name(random: np.random.Generator, name: str, quantity: str) -> None:
    model = model_of({name: random.uniform(1, 9, (1, 1, *SIZE)).astype(np.float32)})
    result = recognise(model)
    assert settings_of(model, result).quantity == quantity
    assert quantity in result.guess
    assert "--quantity" in result.guess


def test_a_user_says_what_the_numbers_are(random: np.random.Generator) -> None:
    model = model_of({"depth": random.uniform(1, 9, (1, 1, *SIZE)).astype(np.float32)})
    result = recognise(model, Hints(quantity="inverse depth", unit="1/m"))
    assert settings_of(model, result) == DenseSettings(stride=1, quantity="inverse depth", unit="1/m")
    assert "inverse depth in 1/m (as you say)" in result.guess


@pytest.mark.parametrize("hints", [Hints(task="dense"), Hints(quantity="heat")])
def test_what_looks_like_a_mask_may_be_numbers(random: np.random.Generator, hints: Hints) -> None:
    model = model_of({"out": random.normal(0, 1, (1, 1, *SIZE)).astype(np.float32)})
    assert recognise(model).task == "segmentation"
    assert recognise(model, hints).task == "dense"


@pytest.mark.parametrize("hints", [Hints(unit="m"), Hints(task="segmentation", quantity="depth")])
def test_a_unit_of_labels_is_refused(random: np.random.Generator, hints: Hints) -> None:
    model = model_of({"out": random.normal(0, 1, (1, 1, *SIZE)).astype(np.float32)})
    with pytest.raises(ImportingError, match="quantity and unit are for maps of numbers, but this is a segmentation"):
        recognise(model, hints)


def test_whole_numbers_may_be_numbers(random: np.random.Generator) -> None:
    written = random.integers(0, 255, (1, *SIZE)).astype(np.uint8)
    model = model_of({"out": written})
    np.testing.assert_array_equal(decode(model, recognise(model, Hints(task="dense")))["values"][0], written)


def test_numbers_may_be_taken_for_a_mask(random: np.random.Generator) -> None:
    model = model_of({"depth": random.uniform(1, 9, (1, 1, *SIZE)).astype(np.float32)})
    assert recognise(model, Hints(task="segmentation")).task == "segmentation"


def test_a_dark_map_is_no_table_of_selected_objects() -> None:
    model = model_of({"predicted_depth": np.zeros((1, *SIZE), np.float32)})
    assert recognise(model).task == "dense"


def test_several_numbers_per_pixel_are_refused(random: np.random.Generator) -> None:
    model = model_of({"normals": random.normal(0, 1, (1, 3, *SIZE)).astype(np.float32)})
    with pytest.raises(ImportingError, match=r"normals \(1, 3, 128, 160\) has 3 numbers per pixel"):
        recognise(model, Hints(task="dense"))


def test_a_size_without_a_stride_is_resized(random: np.random.Generator) -> None:
    model = model_of({"depth": random.uniform(1, 9, (1, 50, 62)).astype(np.float32)})
    result = recognise(model, Hints(task="dense"))
    assert settings_of(model, result).stride == 3
    assert decode(model, result)["values"].shape == (1, 1, 43, 54)


def enlarging(mode: str, coordinates: str, squeezed: bool) -> ImportedModel:
    """A network of one convolution with stride 8, enlarged to the image's size."""
    weight = np.random.default_rng(3).normal(0, 0.2, (1, 3, 8, 8)).astype(np.float32)
    shape = [1, *SIZE] if squeezed else [1, 1, *SIZE]
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["low"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node(
            "Resize", ["low", "", "", "size"], ["high"], mode=mode, coordinate_transformation_mode=coordinates
        ),
        helper.make_node("Reshape", ["high", "shape"], ["depth"]),
    ]
    constants = {"weight": weight, "size": np.array([1, 1, *SIZE]), "shape": np.array(shape)}
    graph = helper.make_graph(
        nodes,
        "enlarging",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ImportedModel(model, *SIZE, (TensorSpec("depth", tuple(shape), np.dtype(np.float32)),), {}, "")


@pytest.mark.parametrize("squeezed", [False, True])
@pytest.mark.parametrize(
    ("mode", "coordinates", "stride"),
    [
        ("linear", "half_pixel", 8),
        ("linear", "pytorch_half_pixel", 8),
        ("linear", "align_corners", 1),
        ("nearest", "asymmetric", 1),
    ],
)
def test_an_enlargement_at_the_end_is_left_to_the_reader(
    random: np.random.Generator, mode: str, coordinates: str, stride: int, squeezed: bool
) -> None:
    model = enlarging(mode, coordinates, squeezed)
    image = random.normal(0, 1, (1, 3, *SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.model.SerializeToString(), providers=["CPUExecutionProvider"])
    whole = np.asarray(session.run(None, {"image": image})[0]).reshape(SIZE)
    result = recognise(model)
    assert settings_of(model, result).stride == stride
    values = decode(model, result, image)["values"][0, 0]
    np.testing.assert_allclose(cv2.resize(values, (WIDTH, HEIGHT)), whole, atol=1e-4)
