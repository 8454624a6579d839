"""Outputs of segmentations are recognised and decoded to scores of which the engine makes the same labels."""

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keywarp.importing.decoders import append_decoder, gives_logits, segmentation_settings
from keywarp.importing.errors import ImportingError
from keywarp.importing.formats import Hints, ResultFormat, recognise
from keywarp.importing.graph import IMAGE
from keywarp.importing.model_file import ImportedModel, TensorSpec
from keywarp.importing.runtime import run

from .written_outputs import HEIGHT, WIDTH, Array, decode, logit, model_of


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def softmax(logits: Array) -> Array:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Array = chances / chances.sum(axis=1, keepdims=True)
    return scores


def probabilities(model: ImportedModel, result: ResultFormat, image: Array | None = None) -> Array:
    """The decoded scores as probabilities, if they are logits."""
    scores = decode(model, result, image)["scores"]
    return softmax(scores) if gives_logits(model.model, result.layout, model.height, model.width) else scores


def stride_of(model: ImportedModel, result: ResultFormat) -> int:
    decoded = append_decoder(model.model, result, model.height, model.width)
    return segmentation_settings(decoded, model.height, model.width).stride


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("chances", [False, True])
def test_scores_of_any_stride(random: np.random.Generator, stride: int, last: bool, chances: bool) -> None:
    logits = random.normal(0, 2, (1, 21, -(-HEIGHT // stride), -(-WIDTH // stride))).astype(np.float32)
    written = softmax(logits) if chances else logits
    model = model_of({"out": written.transpose(0, 2, 3, 1).copy() if last else written})
    result = recognise(model)
    np.testing.assert_allclose(probabilities(model, result), softmax(logits), atol=1e-5)
    assert stride_of(model, result) == stride
    assert result.class_names[:2] == ("background", "aeroplane")
    assert result.background


@pytest.mark.parametrize(("classes", "first"), [(19, "road"), (150, "wall"), (7, "class_1")])
def test_segmentation_without_a_background(random: np.random.Generator, classes: int, first: str) -> None:
    model = model_of({"logits": random.normal(0, 2, (1, classes, 32, 40)).astype(np.float32)})
    result = recognise(model)
    assert result.class_names[0] == first
    assert len(result.class_names) == classes
    assert not result.background


@pytest.mark.parametrize("logits", [False, True])
def test_binary_mask_has_two_classes(random: np.random.Generator, logits: bool) -> None:
    p = random.uniform(0.01, 0.99, (1, 1, 64, 80)).astype(np.float32)
    model = model_of({"mask": logit(p) if logits else p})
    result = recognise(model)
    scores = probabilities(model, result)
    np.testing.assert_allclose(scores, np.concatenate((1 - p, p), axis=1), atol=1e-5)
    assert result.class_names == ("background", "foreground")


def test_sigmoids_imply_a_background(random: np.random.Generator) -> None:
    p = random.uniform(0.01, 0.99, (1, 3, 64, 80)).astype(np.float32)
    model = model_of({"masks": p})
    result = recognise(model)
    labels = decode(model, result)["scores"].argmax(axis=1)
    np.testing.assert_array_equal(labels, np.where(p.max(axis=1) < 0.5, 0, p.argmax(axis=1) + 1))
    assert result.class_names[0] == "background"


def enlarging(end: str) -> tuple[ImportedModel, Array]:
    """A network of one convolution with stride 8, enlarged to the image's size, and what it gives for one picture."""
    random = np.random.default_rng(3)
    weight = random.normal(0, 0.2, (5, 3, 8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["low"], strides=[8, 8], kernel_shape=[8, 8]),
        helper.make_node("Resize", ["low", "", "", "size"], ["high"], mode="linear"),
    ]
    outputs, kind, shape = "high", TensorProto.FLOAT, [1, 5, HEIGHT, WIDTH]
    if end == "softmax":
        nodes.append(helper.make_node("Softmax", ["high"], ["chances"], axis=1))
        outputs = "chances"
    if end == "labels":
        nodes.append(helper.make_node("ArgMax", ["high"], ["indices"], axis=1, keepdims=1))
        nodes.append(helper.make_node("Squeeze", ["indices", "axis"], ["flat"]))
        nodes.append(helper.make_node("Cast", ["flat"], ["labels"], to=TensorProto.INT32))
        outputs, kind, shape = "labels", TensorProto.INT32, [1, HEIGHT, WIDTH]
    constants = {"weight": weight, "size": np.array([1, 5, HEIGHT, WIDTH]), "axis": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "enlarging",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info(outputs, kind, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    spec = TensorSpec(outputs, tuple(shape), np.dtype(np.int32 if end == "labels" else np.float32))
    image = random.normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    low = np.einsum("oikl,iykxl->oyx", weight, image[0].reshape(3, HEIGHT // 8, 8, WIDTH // 8, 8), optimize=True)
    return ImportedModel(model, HEIGHT, WIDTH, (spec,), {}, ""), low[None]


@pytest.mark.parametrize("end", ["logits", "softmax", "labels"])
def test_scores_are_taken_before_the_enlargement(end: str) -> None:
    model, low = enlarging(end)
    random = np.random.default_rng(3)
    random.normal(0, 0.2, (5, 3, 8, 8))
    image = random.normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    result = recognise(model)
    assert len(result.class_names) == 5
    assert stride_of(model, result) == 8
    np.testing.assert_allclose(probabilities(model, result, image), softmax(low), atol=1e-4)


@pytest.mark.parametrize("end", ["softmax", "labels"])
def test_enlarged_scores_have_the_labels_of_the_file(end: str) -> None:
    model, _ = enlarging(end)
    image = np.random.default_rng(4).normal(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    (own,) = run(model.model, {IMAGE: image}).values()
    wanted = own.argmax(axis=1) if end == "softmax" else own
    scores = decode(model, recognise(model), image)["scores"][0]
    large = np.stack([cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for plane in scores])
    assert (large.argmax(axis=0) == wanted[0]).mean() > 0.9999  # of probabilities, 97 %


def test_labels_of_unknown_origin_become_scores(random: np.random.Generator) -> None:
    labels = random.integers(0, 4, (1, HEIGHT, WIDTH))
    model = model_of({"labels": labels})
    result = recognise(model, Hints(class_names=("a", "b", "c", "d", "e")))
    scores = decode(model, result)["scores"]
    assert scores.shape == (1, 5, HEIGHT, WIDTH)
    np.testing.assert_array_equal(scores.argmax(axis=1), labels)


def test_sizes_without_a_stride_are_resized(random: np.random.Generator) -> None:
    model = model_of({"out": random.normal(0, 2, (1, 4, 50, 62)).astype(np.float32)})
    assert stride_of(model, recognise(model)) == 3


def test_classifier_is_refused_with_its_outputs(random: np.random.Generator) -> None:
    model = model_of({"probabilities": random.uniform(0, 1, (1, 1000)).astype(np.float32)})
    with pytest.raises(ImportingError, match=r"probabilities float32 \(1, 1000\)"):
        recognise(model)


def test_wrong_number_of_names_is_refused(random: np.random.Generator) -> None:
    model = model_of({"out": random.normal(0, 2, (1, 7, 32, 40)).astype(np.float32)})
    with pytest.raises(ImportingError, match="3 class names were given, but the outputs have 7"):
        recognise(model, Hints(class_names=("a", "b", "c")))


@pytest.mark.parametrize(("classes", "first"), [(150, "wall"), (80, "background"), (1, "background")])
def test_masks_and_their_classes_become_scores(random: np.random.Generator, classes: int, first: str) -> None:
    logits = random.normal(0, 3, (1, 20, classes + 1)).astype(np.float32)
    masks = random.normal(-2, 3, (1, 20, HEIGHT // 4, WIDTH // 4)).astype(np.float32)
    model = model_of({"class_queries_logits": logits, "masks_queries_logits": masks})
    result = recognise(model)
    chances = softmax(logits.transpose(0, 2, 1))[:, :-1]
    wanted = np.einsum("nqc,nqhw->nchw", chances.transpose(0, 2, 1), 1 / (1 + np.exp(-masks)))
    if first == "background":
        wanted = np.concatenate((np.maximum(1 - wanted.max(axis=1, keepdims=True), 0), wanted), axis=1)
    scores = decode(model, result)["scores"]
    np.testing.assert_allclose(scores, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-5)
    assert result.class_names[0] == first
    assert stride_of(model, result) == 4


def test_scores_of_double_precision_become_float32(random: np.random.Generator) -> None:
    model = model_of({"out": random.normal(0, 2, (1, 5, 32, 40))})
    assert decode(model, recognise(model))["scores"].dtype == np.float32
