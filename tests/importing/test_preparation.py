"""How frames are taken to become a network's input."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from keywarp.importing.model_file import ImportedModel
from keywarp.importing.preparation import (
    BYTE,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    NONE,
    ONES,
    PreparationHints,
    Triple,
    guess_preparation,
    own_normalisation,
)
from keywarp.importing.result_format import Columns, DetectionLayout, ResultFormat
from tests.importing.written_outputs import model_of

BOXES = DetectionLayout(Columns(("o",), "rows", 85, 0, 4), "cxcywh", "pixels", Columns(("o",), "rows", 85, 5, 80), ())
DETECTION = ResultFormat("detection", BOXES, ("background", "cup"), "")


def model(
    image_name: str = "input", metadata: Mapping[str, str] | None = None, rows: int = 7, bytes_in: bool = False
) -> ImportedModel:
    made = model_of({"output": np.zeros((1, rows, 85), np.float32)}, metadata)
    return replace(made, image_name=image_name, bytes_in=bytes_in)


@pytest.mark.parametrize(
    ("file", "result", "mean", "std", "order"),
    [
        (model(metadata={"author": "Ultralytics"}), DETECTION, NONE, BYTE, "rgb"),
        (model("pixel_values"), DETECTION, IMAGENET_MEAN, IMAGENET_STD, "rgb"),
        (model(bytes_in=True), DETECTION, NONE, ONES, "rgb"),
        (model("images"), DETECTION, NONE, BYTE, "rgb"),
        (model(), DETECTION, IMAGENET_MEAN, IMAGENET_STD, "rgb"),
        (
            model("images", rows=sum(128 * 160 // s**2 for s in (8, 16, 32))),
            replace(DETECTION, layout=replace(BOXES, objectness=Columns(("o",), "rows", 85, 4))),
            NONE,
            ONES,
            "bgr",
        ),
    ],
    ids=["Ultralytics", "Hugging Face", "bytes", "YOLO", "unknown", "YOLOX"],
)
def test_normalisation_is_guessed_from_the_exporter(
    file: ImportedModel, result: ResultFormat, mean: Triple, std: Triple, order: str
) -> None:
    found = guess_preparation(file, result, PreparationHints())
    assert (found.image.mean, found.image.std, found.image.channel_order) == (mean, std, order)
    assert "because" in found.pixel_guess or "nothing in the file says" in found.pixel_guess


@pytest.mark.parametrize(
    ("part", "mean", "std", "order"),
    [("dpt", HALF, HALF, "rgb"), ("glpn", NONE, BYTE, "rgb"), ("segformer", IMAGENET_MEAN, IMAGENET_STD, "rgb")],
)
def test_networks_of_hugging_face_are_told_by_their_weights_names(
    part: str, mean: Triple, std: Triple, order: str
) -> None:
    file = replace(model("pixel_values"), weight_names=frozenset({"network", part, "weight"}))
    found = guess_preparation(file, DETECTION, PreparationHints())
    assert (found.image.mean, found.image.std, found.image.channel_order) == (mean, std, order)
    assert "preprocessor_config.json" in found.pixel_guess


def normalising(mean: NDArray[np.float32], std: NDArray[np.float32]) -> onnx.ModelProto:
    """A graph that normalises its image before a convolution."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        network (float[1, 3, 32, 32] image) => (float[1, 3, 32, 32] relu) {
            centred = Sub (image, mean)
            normal = Div (centred, std)
            relu = Relu (normal)
        }"""
    graph = onnx.parser.parse_model(text)
    for name, value in (("mean", mean), ("std", std)):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(value.reshape(1, 3, 1, 1), name))
    return graph


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), BYTE),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), BYTE),
        (IMAGENET_MEAN, IMAGENET_STD, ONES),
        ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), ONES),
        ((0.0, 0.0, 0.0), (1e-3, 1e-3, 1e-3), None),
    ],
)
def test_a_network_that_normalises_its_image_gets_it_as_it_is(
    mean: Triple, std: Triple, expected: Triple | None
) -> None:
    assert own_normalisation(normalising(np.float32(mean), np.float32(std))) == expected  # type: ignore[arg-type]


def test_what_the_user_says_holds() -> None:
    hints = PreparationHints("stretch", (1.0, 2.0, 3.0), None, "bgr")
    found = guess_preparation(model(metadata={"author": "Ultralytics"}), DETECTION, hints)
    assert (found.image.fit, found.image.mean, found.image.std) == ("stretch", (1.0, 2.0, 3.0), BYTE)
    assert found.pixel_guess.endswith("of which mean and channel order as you say")
