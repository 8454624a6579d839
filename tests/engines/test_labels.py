"""Labels from scores: the same as interpolating every class at every pixel."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import Engine
from keywarp.engines.backends.openvino import OpenVINOBackend
from keywarp.engines.labels import Labeller
from tests.engines.scenes import scene
from tests.tiny_bundle import tiny_bundle


def interpolated(scores: NDArray[np.float32], height: int, width: int, stride: int) -> NDArray[np.float64]:
    """Return the scores of all classes at all pixels, (C, height, width)."""

    def matrix(pixels: int, cells: int) -> NDArray[np.float64]:
        position = np.clip((np.arange(pixels) + 0.5) / stride - 0.5, 0, cells - 1)
        weights: NDArray[np.float64] = np.maximum(0.0, 1 - np.abs(position[:, None] - np.arange(cells)))
        return weights

    rows, columns = matrix(height, scores.shape[1]), matrix(width, scores.shape[2])
    found: NDArray[np.float64] = rows @ scores.astype(np.float64) @ columns.T
    return found


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    ("classes", "height", "width", "stride"),
    [(19, 60, 100, 16), (2, 64, 96, 8), (3, 61, 97, 8), (5, 7, 9, 2), (256, 32, 64, 32), (4, 16, 200, 16)],
)
def test_labels_are_those_of_every_class_at_every_pixel(
    classes: int, height: int, width: int, stride: int, smooth: bool
) -> None:
    labeller = Labeller(height, width, stride)
    scores = np.random.default_rng(classes).standard_normal((classes, *labeller.cells)).astype(np.float32)
    if smooth:  # so that one class has the highest score in large areas, as in a picture
        scores = np.stack([np.asarray(cv2.GaussianBlur(plane, (0, 0), 2), np.float32) for plane in scores])
    labels = labeller.label(scores)
    wanted = interpolated(scores, height, width, stride)
    assert labels.shape == (height, width)
    reached = np.take_along_axis(wanted, labels[np.newaxis].astype(np.intp), axis=0)[0]
    np.testing.assert_allclose(reached, wanted.max(axis=0), atol=1e-5)  # another class only where two are equal
    assert (labels == wanted.argmax(axis=0)).mean() > 0.999


def test_a_class_that_is_second_at_all_cells_wins_between_them() -> None:
    scores = np.array([[[1.0, -1.0]], [[-1.0, 1.0]], [[0.4, 0.4]]], np.float32)
    assert Labeller(8, 16, 8).label(scores)[0].tolist() == [0] * 6 + [2] * 4 + [1] * 6


def test_the_first_of_equal_classes_wins() -> None:
    assert not Labeller(16, 16, 8).label(np.ones((3, 2, 2), np.float32)).any()


def test_scores_that_are_no_numbers_give_some_class() -> None:
    scores = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
    scores[:, 1, 1] = np.nan
    assert Labeller(24, 24, 8).label(scores).max() < 3


@pytest.mark.parametrize("height", [64, 50])  # the second one is padded
def test_the_host_and_the_graph_give_the_same_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int
) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    frames = [scene(n, height, 96) for n in range(2)]
    found = {}
    for host in (True, False):
        monkeypatch.setattr(OpenVINOBackend, "style", replace(OpenVINOBackend.style, host_labels=host))
        engine = Engine(bundle, "openvino", "fp32", cache=tmp_path / "cache")
        result, key = engine.key(frames[0])
        found[host] = [result.labels, engine.propagate(frames[1], key).labels]
        engine.close()
    for from_scores, from_graph in zip(found[True], found[False], strict=True):
        assert from_scores.shape == from_graph.shape
        assert (from_scores == from_graph).mean() > 0.999
