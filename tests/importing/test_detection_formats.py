"""Outputs of detectors, written as exporters write them, are recognised and decoded to the boxes they were made of."""

from collections.abc import Iterable

import numpy as np
import pytest

from keywarp.importing.errors import ImportingError
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
SIZE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
NAMES = {n: f"thing {n}" for n in range(7)}
ULTRALYTICS = {"names": repr(NAMES), "stride": "32", "task": "detect", "imgsz": f"[{HEIGHT}, {WIDTH}]"}


def check(model: ImportedModel, boxes: Array, scores: Array, hints: Hints | None = None) -> ResultFormat:
    """Recognise and decode, and compare with the boxes (n, 4) and scores (n, classes)."""
    result = recognise(model, hints)
    found = decode(model, result)
    assert found["boxes"].shape == (1, *boxes.shape), result.guess
    assert found["scores"].shape == (1, len(scores), scores.shape[1] + 1), result.guess
    assert len(result.class_names) == scores.shape[1] + 1
    np.testing.assert_allclose(found["boxes"][0], boxes, atol=2e-2, err_msg=result.guess)
    np.testing.assert_allclose(found["scores"][0, :, 1:], scores, atol=1e-5, err_msg=result.guess)
    assert (found["scores"][0, :, 0] == 0).all()
    return result


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("opset", [16, 17, 18, 19])
def test_ultralytics_table_has_a_column_per_box(random: np.random.Generator, opset: int) -> None:
    boxes, scores = boxes_on(GRID, random), rare_scores(ROWS, 7, random)
    table = np.concatenate((cxcywh(boxes), scores), axis=1).T[np.newaxis]
    result = check(model_of({"output0": table}, ULTRALYTICS, opset=opset), boxes, scores)
    assert result.class_names == ("background", *NAMES.values())
    assert "Ultralytics" in result.guess
    assert f"(1, 11, {ROWS})" in result.guess
    assert result.detection is not None
    assert result.detection.iou == 0.7


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
def test_table_without_metadata_is_told_by_its_values(
    random: np.random.Generator, transposed: bool, logits: bool, normalised: bool
) -> None:
    boxes, scores = boxes_on(GRID, random), rare_scores(ROWS, 80, random)
    written = cxcywh(boxes) / (SIZE if normalised else 1)
    table = np.concatenate((written, logit(scores) if logits else scores), axis=1)[np.newaxis]
    result = check(model_of({"output": (table.transpose(0, 2, 1) if transposed else table).copy()}), boxes, scores)
    assert result.class_names[1:3] == ("person", "bicycle")
    assert "COCO" in result.guess


@pytest.mark.parametrize("per_cell", [1, 3])
def test_objectness_multiplies_the_classes(random: np.random.Generator, per_cell: int) -> None:
    boxes = np.tile(boxes_on(GRID, random), (per_cell, 1))
    objectness, classes = rare_scores(len(boxes), 1, random), rare_scores(len(boxes), 80, random)
    table = np.concatenate((cxcywh(boxes), objectness, classes), axis=1)[np.newaxis]
    result = check(model_of({"output": table}), boxes, objectness * classes)
    assert "objectness" in result.guess


def test_yolox_offsets_are_decoded_with_the_grid(random: np.random.Generator) -> None:
    boxes = boxes_on(GRID, random)
    objectness, classes = rare_scores(ROWS, 1, random), rare_scores(ROWS, 80, random)
    corners, strides, _ = Grid((8, 16, 32), shift=0).rows(HEIGHT, WIDTH)
    centre, size = np.split(cxcywh(boxes), 2, axis=1)
    raw = np.concatenate(((centre - corners) / strides, np.log(size / strides)), axis=1)
    table = np.concatenate((raw, objectness, classes), axis=1)[np.newaxis]
    result = check(model_of({"output": table}), boxes, objectness * classes)
    assert "YOLOX" in result.guess


@pytest.mark.parametrize(("strides", "bins", "shift"), [((8, 16, 32), 11, 0.5), ((8, 16, 32, 64), 8, 0.0)])
def test_nanodet_distances_are_means_of_distributions(
    random: np.random.Generator, strides: tuple[int, ...], bins: int, shift: float
) -> None:
    boxes, sides = distributed(random, Grid(strides, shift), bins)
    scores = rare_scores(len(boxes), 80, random)
    table = np.concatenate((scores, sides), axis=1)[np.newaxis].astype(np.float32)
    assert "NanoDet" in check(model_of({"output": table}), boxes, scores).guess


def test_selected_rows_of_yolo_are_taken_as_they_are(random: np.random.Generator) -> None:
    boxes, labels = boxes_anywhere(300, random), random.integers(0, 80, 300)
    certain = np.sort(random.uniform(0, 1, 300))[::-1].astype(np.float32)
    table = np.concatenate((boxes, certain[:, None], labels[:, None]), axis=1)[np.newaxis].astype(np.float32)
    result = check(model_of({"output0": table}), boxes, one_hot(certain, labels, range(80)))
    assert result.detection is not None
    assert result.detection.iou == 1


def test_torchvisions_labels_are_category_ids(random: np.random.Generator) -> None:
    ids = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    boxes, labels = boxes_anywhere(40, random), np.array(ids)[random.integers(0, 80, 40)]
    certain = random.uniform(0, 1, 40).astype(np.float32)
    model = model_of({"boxes": boxes, "labels": labels, "scores": certain})
    result = check(model, boxes, one_hot(certain, labels, ids))
    assert "torchvision" in result.guess
    assert result.class_names[-1] == "toothbrush"


def test_no_objects_at_all_are_an_empty_result() -> None:
    model = model_of(
        {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64), "scores": np.zeros(0, np.float32)}
    )
    check(model, np.zeros((0, 4)), np.zeros((0, 80)))


def test_deployed_rt_detr_has_labels_boxes_and_scores(random: np.random.Generator) -> None:
    boxes, labels = boxes_anywhere(300, random), random.integers(0, 80, 300)
    certain = random.uniform(0, 1, 300).astype(np.float32)
    outputs = {"labels": labels[None], "boxes": boxes[None], "scores": certain[None]}
    check(model_of(outputs), boxes, one_hot(certain, labels, range(80)))


def test_tensorflows_boxes_are_normalised_and_transposed(random: np.random.Generator) -> None:
    boxes, labels = boxes_anywhere(100, random), random.integers(1, 6, 100)
    certain = random.uniform(0, 1, 100).astype(np.float32)
    outputs: dict[str, Array] = {
        "detection_boxes": (boxes / SIZE)[None, :, [1, 0, 3, 2]],
        "detection_classes": labels[None].astype(np.float32),
        "detection_scores": certain[None],
        "num_detections": np.array([100], np.float32),
    }
    hints = Hints(class_names=("a", "b", "c", "d", "e"))
    check(model_of(outputs), boxes, one_hot(certain, labels, range(1, 6)), hints)


def test_mmdeploys_boxes_have_the_score_behind_them(random: np.random.Generator) -> None:
    boxes, labels = boxes_anywhere(100, random), random.integers(0, 80, 100)
    certain = random.uniform(0, 1, (100, 1)).astype(np.float32)
    outputs = {"dets": np.concatenate((boxes, certain), axis=1)[None], "labels": labels[None]}
    check(model_of(outputs), boxes, one_hot(certain[:, 0], labels, range(80)))


def test_detrs_no_object_is_the_last_column(random: np.random.Generator) -> None:
    boxes = boxes_anywhere(100, random)
    logits = random.normal(0, 2, (100, 92)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    model = model_of({"logits": logits[None], "pred_boxes": (cxcywh(boxes) / SIZE)[None]})
    result = check(model, boxes, chances[:, ids])
    assert "background last" in result.guess
    assert result.detection is not None
    assert result.detection.iou == 1


@pytest.mark.parametrize(("width", "names"), [(80, ("logits", "pred_boxes")), (91, ("labels", "dets"))])
def test_rt_detr_and_rf_detr_have_sigmoids(random: np.random.Generator, width: int, names: tuple[str, str]) -> None:
    boxes, scores = boxes_anywhere(300, random), rare_scores(300, width, random)
    ids = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    model = model_of({names[0]: logit(scores)[None], names[1]: (cxcywh(boxes) / SIZE)[None]})
    check(model, boxes, scores[:, ids] if width == 91 else scores)


def test_ssd_has_a_softmax_with_the_background_first(random: np.random.Generator) -> None:
    boxes = boxes_anywhere(1500, random)
    logits = random.normal(0, 1, (1500, 21)).astype(np.float32)
    logits[:, 0] += 6
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for scores in (logits, chances):
        model = model_of({"boxes": (boxes / SIZE)[None], "scores": scores[None]})
        result = check(model, boxes, chances[:, 1:])
        assert result.class_names[1] == "aeroplane"
        assert result.detection is not None
        assert result.detection.iou < 1


def test_levels_of_yolox(random: np.random.Generator) -> None:
    boxes = boxes_on(GRID, random)
    objectness, classes = rare_scores(ROWS, 1, random), rare_scores(ROWS, 80, random)
    corners, strides, _ = Grid((8, 16, 32), shift=0).rows(HEIGHT, WIDTH)
    centre, size = np.split(cxcywh(boxes), 2, axis=1)
    raw = np.concatenate(((centre - corners) / strides, np.log(size / strides)), axis=1)
    joint = np.concatenate((raw, logit(objectness), logit(classes)), axis=1)
    check(model_of(levels(joint, "out")), boxes, objectness * classes)
    apart = levels(raw, "box") | levels(objectness, "obj") | levels(classes, "cls")
    check(model_of(apart), boxes, objectness * classes)


@pytest.mark.parametrize("classes", [80, 7])
@pytest.mark.parametrize("joint", [False, True])
def test_levels_of_yolov8(random: np.random.Generator, classes: int, joint: bool) -> None:
    boxes, sides = distributed(random, GRID, 16)
    scores = rare_scores(ROWS, classes, random)
    metadata = ULTRALYTICS if classes == 7 else {}
    if joint:
        outputs = levels(np.concatenate((sides, logit(scores)), axis=1), "out")
    else:
        outputs = levels(sides, "box") | levels(logit(scores), "cls")
    check(model_of(outputs, metadata), boxes, scores)


def test_levels_of_retinanet_have_the_papers_anchors(random: np.random.Generator) -> None:
    strides = (8, 16, 32, 64, 128)
    scores, boxes, outputs = [], [], {}
    for stride in strides:
        h, w = -(-HEIGHT // stride), -(-WIDTH // stride)
        deltas = random.normal(0, 0.3, (h, w, 9, 4)).astype(np.float32)
        chances = rare_scores(h * w * 9, 5, random)
        for y, x, a in np.ndindex(h, w, 9):
            size, ratio = stride * 4 * 2 ** (a // 3 / 3), (0.5, 1.0, 2.0)[a % 3]
            shape = np.array([size / ratio**0.5, size * ratio**0.5])
            centre = (np.array([x, y]) + 0.5) * stride + deltas[y, x, a, :2] * shape
            half = np.exp(deltas[y, x, a, 2:]) * shape / 2
            boxes.append(np.concatenate((centre - half, centre + half)))
        scores.append(chances)
        outputs[f"cls_{stride}"] = chances.reshape(1, h, w, 45).transpose(0, 3, 1, 2).copy()
        outputs[f"box_{stride}"] = deltas.reshape(1, h, w, 36).transpose(0, 3, 1, 2).copy()
    hints = Hints(class_names=tuple("abcde"))
    result = check(model_of(outputs), np.stack(boxes), np.concatenate(scores), hints)
    assert "RetinaNet" in result.guess


def test_hints_override_the_guess(random: np.random.Generator) -> None:
    boxes, scores = boxes_on(GRID, random), rare_scores(ROWS, 80, random)
    table = np.concatenate((boxes, scores), axis=1)[np.newaxis]
    names = tuple(f"name {n}" for n in range(80))
    hints = Hints(boxes="xywh", units="normalised", activation="sigmoid", class_names=names, threshold=0.6, iou=0.3)
    result = recognise(model_of({"output": table}), hints)
    found = decode(model_of({"output": table}), result)
    low, size = boxes[:, :2], boxes[:, 2:]
    np.testing.assert_allclose(found["boxes"][0], np.concatenate((low, low + size), 1) * SIZE, rtol=1e-4)
    np.testing.assert_allclose(found["scores"][0, :, 1:], 1 / (1 + np.exp(-scores)), rtol=1e-4)
    assert result.class_names[1] == "name 0"
    assert result.detection is not None
    assert (result.detection.threshold, result.detection.iou) == (0.6, 0.3)


def distributed(random: np.random.Generator, grid: Grid, bins: int) -> tuple[Array, Array]:
    """Boxes (n, 4), and the logits (n, 4 bins) of the distances of their sides."""
    logits = random.normal(0, 2, (grid.count(HEIGHT, WIDTH), 4, bins))
    chances = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    centres, unit, _ = grid.rows(HEIGHT, WIDTH)
    distances = (chances * np.arange(bins)).sum(axis=2) * unit
    boxes = np.concatenate((centres - distances[:, :2], centres + distances[:, 2:]), axis=1)
    return boxes, logits.reshape(len(boxes), -1)


def levels(rows: Array, name: str) -> dict[str, Array]:
    """Write rows (n, channels) of the grid as maps (1, channels, h, w)."""
    maps, start = {}, 0
    for stride in GRID.strides:
        h, w = -(-HEIGHT // stride), -(-WIDTH // stride)
        part = rows[start : start + h * w].T.reshape(1, -1, h, w)
        maps[f"{name}_{stride}"] = np.ascontiguousarray(part, np.float32)
        start += h * w
    return maps


def one_hot(certain: Array, labels: Array, classes: Iterable[int]) -> Array:
    """Scores (n, classes) that are zero except for the label's class."""
    scores: Array = (labels[:, None] == np.array(list(classes))) * certain[:, None]
    return scores


def test_boxes_relative_to_unknown_anchors_are_refused(random: np.random.Generator) -> None:
    deltas = random.normal(0, 1, (1, 3234, 4)).astype(np.float32)
    model = model_of({"bbox_regression": deltas, "cls_logits": random.normal(0, 1, (1, 3234, 91)).astype(np.float32)})
    with pytest.raises(ImportingError, match="relative to anchors"):
        recognise(model)
