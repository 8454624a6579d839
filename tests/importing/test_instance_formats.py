"""Masks and keypoints, written as exporters write them, are recognised and decoded."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from keywarp.engines.detection import DenseDetector
from keywarp.importing.formats import Hints, ResultFormat, recognise
from keywarp.importing.model_file import ImportedModel
from keywarp.importing.result_format import Grid

from .written_outputs import (
    HEIGHT,
    WIDTH,
    Array,
    boxes_anywhere,
    boxes_on,
    cxcywh,
    decode,
    logit,
    model_of,
    rare_scores,
)

GRID = Grid((8, 16, 32))
ROWS = GRID.count(HEIGHT, WIDTH)
CLASSES, PROTOTYPES = 3, 16
ULTRALYTICS = {"names": "{0: 'a', 1: 'b', 2: 'c'}", "stride": "32", "task": "segment"}
POSE = {"names": "{0: 'person'}", "stride": "32", "task": "pose", "kpt_shape": "[17, 3]"}


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def normal(random: np.random.Generator, *shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


def detect(model: ImportedModel, result: ResultFormat, outputs: dict[str, Array]) -> int:
    """Run the engine's detector on decoded outputs, and return the number of objects with masks or keypoints."""
    assert result.detection is not None
    classes = len(result.class_names)
    found = DenseDetector(result.detection, classes, model.height, model.width).detect(outputs)
    extras = found.masks if found.masks is not None else found.keypoints
    assert extras is not None
    assert len(extras) == len(found)
    return len(found)


@pytest.mark.parametrize("arrangement", ["columns", "rows"])
def test_columns_of_coefficients_belong_to_prototypes(random: np.random.Generator, arrangement: str) -> None:
    boxes, scores, weights = boxes_on(GRID, random), rare_scores(ROWS, CLASSES, random), normal(random, ROWS, 16)
    table = np.concatenate((cxcywh(boxes), scores, weights), axis=1)[np.newaxis]
    prototypes = normal(random, 1, PROTOTYPES, HEIGHT // 4, WIDTH // 4)
    if arrangement == "columns":
        table = table.transpose(0, 2, 1).copy()
    model = model_of({"output0": table, "output1": prototypes}, ULTRALYTICS)
    result = recognise(model)
    assert "masks as sums of prototypes" in result.guess
    assert f"output1 (1, {PROTOTYPES}, 32, 40)" in result.guess
    assert result.later == ""
    found = decode(model, result)
    np.testing.assert_allclose(found["mask_coefficients"][0], weights)
    np.testing.assert_allclose(found["mask_prototypes"], prototypes)
    assert found["scores"].shape == (1, ROWS, CLASSES + 1)
    assert detect(model, result, found) > 0


def test_masks_are_left_out_without_their_output(random: np.random.Generator) -> None:
    table = np.concatenate((boxes_on(GRID, random), rare_scores(ROWS, 3, random), normal(random, ROWS, 16)), axis=1)
    model = model_of({"output0": table[np.newaxis], "output1": normal(random, 1, 16, 32, 40)}, ULTRALYTICS)
    result = recognise(model, Hints(outputs=("output0",)))
    assert result.later == "its masks come in a later version: only the boxes are used"
    assert {*decode(model, result)} == {"boxes", "scores"}


def test_keypoints_follow_the_scores(random: np.random.Generator) -> None:
    points = np.concatenate((random.uniform(0, 128, (ROWS, 17, 2)), random.uniform(size=(ROWS, 17, 1))), axis=2)
    parts = (cxcywh(boxes_on(GRID, random)), rare_scores(ROWS, 1, random), points.reshape(ROWS, 51))
    table = np.concatenate(parts, axis=1).astype(np.float32).T[np.newaxis].copy()
    model = model_of({"output0": table}, POSE)
    result = recognise(model)
    assert "17 keypoints" in result.guess
    assert result.detection is not None
    assert result.detection.keypoints is not None
    assert result.detection.keypoints.names[:2] == ("nose", "left eye")
    found = decode(model, result)
    np.testing.assert_allclose(found["keypoints"][0], points, rtol=1e-6)
    assert detect(model, result, found) > 0


def test_keypoints_without_confidence_are_certain(random: np.random.Generator) -> None:
    points = random.uniform(0, 128, (ROWS, 4, 2))
    parts = (cxcywh(boxes_on(GRID, random)), rare_scores(ROWS, 1, random), points.reshape(ROWS, 8))
    table = np.concatenate(parts, axis=1).astype(np.float32).T[np.newaxis].copy()
    model = model_of({"output0": table}, {**POSE, "kpt_shape": "[4, 2]"})
    result = recognise(model)
    assert result.detection is not None
    assert result.detection.keypoints is not None
    assert result.detection.keypoints.names == ("point_1", "point_2", "point_3", "point_4")
    found = decode(model, result)["keypoints"][0]
    np.testing.assert_allclose(found[..., :2], points, rtol=1e-6)
    assert (found[..., 2] == 1).all()


@pytest.mark.parametrize("kind", ["masks", "keypoints"])
def test_objects_that_the_file_selects_have_masks_or_keypoints(random: np.random.Generator, kind: str) -> None:
    """YOLO26 as Ultralytics exports it: (1, 300, 6) and coefficients or keypoints."""
    count = 50
    scores, labels = np.sort(random.uniform(0.3, 1, count))[::-1], random.integers(0, CLASSES, count)
    extra = normal(random, count, 16 if kind == "masks" else 51)
    columns = (boxes_anywhere(count, random), scores[:, None], labels[:, None] * (kind == "masks"), extra)
    outputs = {"output0": np.concatenate(columns, axis=1).astype(np.float32)[np.newaxis]}
    if kind == "masks":
        outputs["output1"] = normal(random, 1, 16, HEIGHT // 4, WIDTH // 4)
    model = model_of(outputs, ULTRALYTICS if kind == "masks" else POSE)
    result = recognise(model)
    assert result.detection is not None
    assert result.detection.iou == 1
    found = decode(model, result)
    if kind == "masks":
        np.testing.assert_allclose(found["mask_coefficients"][0], extra)
    else:
        np.testing.assert_allclose(found["keypoints"][0], extra.reshape(count, 17, 3))
    assert detect(model, result, found) == count


@pytest.mark.parametrize("probabilities", [False, True])
def test_sets_have_masks_of_the_image(random: np.random.Generator, probabilities: bool) -> None:
    logits = normal(random, 1, 60, HEIGHT // 4, WIDTH // 4)
    boxes = (cxcywh(boxes_anywhere(60, random)) / (WIDTH, HEIGHT, WIDTH, HEIGHT)).astype(np.float32)
    masks = 1 / (1 + np.exp(-logits)) if probabilities else logits
    outputs = {"dets": boxes[None], "labels": logit(rare_scores(60, 91, random))[None], "masks": masks}
    model = model_of(outputs)
    result = recognise(model)
    assert "masks of the image" in result.guess
    found = decode(model, result)
    assert found["masks"].shape == logits.shape
    assert ((found["masks"] > 0) == (logits > 0)).all()
    assert detect(model, result, found) > 0


def pasting_model(random: np.random.Generator, count: int) -> tuple[ImportedModel, Array]:
    """A file whose last step makes masks of the image of small masks, as torchvision's does, though by another way."""
    small = random.uniform(size=(count, 1, 28, 28)).astype(np.float32)
    outputs = {
        "boxes": boxes_anywhere(count, random),
        "labels": random.integers(1, 12, count),
        "scores": random.uniform(0.3, 1, count).astype(np.float32),
        "small": small,
    }
    model = model_of(outputs)
    graph = model.model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([count, 1, HEIGHT, WIDTH]), "size"))
    graph.node.append(helper.make_node("Resize", ["small", "", "", "size"], ["masks"], mode="linear"))
    kept = [value for value in graph.output if value.name != "small"]
    graph.value_info.extend(value for value in graph.output if value.name == "small")
    del graph.output[:]
    graph.output.extend([*kept, helper.make_tensor_value_info("masks", TensorProto.FLOAT, [count, 1, HEIGHT, WIDTH])])
    specs = {
        spec.name: spec for spec in model_of({**outputs, "masks": np.zeros((count, 1, HEIGHT, WIDTH), "f4")}).outputs
    }
    del specs["small"]
    return ImportedModel(model.model, HEIGHT, WIDTH, tuple(specs.values()), {}, "pytorch"), small


def test_masks_of_boxes_are_taken_before_the_file_pastes_them(random: np.random.Generator) -> None:
    model, small = pasting_model(random, 12)
    result = recognise(model)
    assert "masks of the boxes" in result.guess
    found = decode(model, result)
    np.testing.assert_allclose(found["masks"][0], small[:, 0] - 0.5)
    assert detect(model, result, found) == 12


def test_keypoints_have_scores_of_their_own(random: np.random.Generator) -> None:
    """Keypoint R-CNN of torchvision."""
    points, scores = normal(random, 12, 17, 3), normal(random, 12, 17)
    outputs = {
        "boxes": boxes_anywhere(12, random),
        "labels": np.ones(12, np.int64),
        "scores": random.uniform(0.3, 1, 12).astype(np.float32),
        "keypoints": points,
        "keypoints_scores": scores,
    }
    model = model_of(outputs)
    result = recognise(model)
    found = decode(model, result)["keypoints"][0]
    np.testing.assert_allclose(found[..., :2], points[..., :2])
    np.testing.assert_allclose(found[..., 2], 1 / (1 + np.exp(-scores)), rtol=1e-5)


def test_normalised_keypoints_become_pixels(random: np.random.Generator) -> None:
    points = random.uniform(size=(1, 40, 5, 2)).astype(np.float32)
    boxes = (cxcywh(boxes_anywhere(40, random)) / (WIDTH, HEIGHT, WIDTH, HEIGHT)).astype(np.float32)
    outputs = {"pred_boxes": boxes[None], "logits": logit(rare_scores(40, 91, random))[None], "keypoints": points}
    model = model_of(outputs)
    found = decode(model, recognise(model))["keypoints"]
    np.testing.assert_allclose(found[..., :2], points * (WIDTH, HEIGHT), rtol=1e-6)
