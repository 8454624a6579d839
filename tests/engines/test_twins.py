"""Without numba, array operations run in place of compiled loops, with the same results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.client.images import decode_labels
from keywarp.engines.detection import boxes, masks, pooling, ranking, selection, suppression
from keywarp.engines.motion import loops
from keywarp.protocol import Segmentation
from tests.e2e.running import MODELS, write_clip

WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None; from keywarp.cli.main import main; main()"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def random_boxes(rng: np.random.Generator, count: int, side: float = 100) -> NDArray[np.float32]:
    corners = rng.uniform(0, side, (count, 2, 2)).astype(np.float32)
    corners.sort(axis=1)
    return corners.reshape(count, 4)


def test_scores_are_ranked_alike(rng: np.random.Generator) -> None:
    scores = rng.normal(size=500).astype(np.float32).round(1)  # with equal ones
    scores[[3, 70]] = np.nan
    scores[[4, 71]] = -0.0
    np.testing.assert_array_equal(ranking._key_arrays(scores), ranking._keys(scores))


def test_certain_scores_are_found_alike(rng: np.random.Generator) -> None:
    scores = rng.uniform(-1, 1, (200, 7)).astype(np.float32)
    scores[5, 3] = np.nan
    usable = rng.random(200) < 0.8
    for threshold in map(np.float32, (-0.5, 0, 0.4)):
        for found, expected in zip(
            selection._certain_arrays(scores, usable, threshold),
            selection._certain(scores, usable, threshold),
            strict=True,
        ):
            np.testing.assert_array_equal(found, expected)
    bits = scores.reshape(-1).view(np.int32)
    assert selection._extreme_arrays(bits) == selection._extremes(bits)
    assert selection._extreme_arrays(bits[:0]) == selection._extremes(bits[:0])


@pytest.mark.parametrize("limit", [5, 1000])
def test_overlapping_boxes_are_suppressed_alike(rng: np.random.Generator, limit: int) -> None:
    found = random_boxes(rng, 600)
    found[:9, 2] = found[:9, 0]  # empty ones
    groups = rng.integers(0, 3, 600)
    arguments = found, groups, np.float32(0.3), limit
    expected = suppression._suppress(*arguments)
    assert 0 < len(expected) <= limit
    np.testing.assert_array_equal(suppression._suppress_arrays(*arguments), expected)


def test_boxes_are_decoded_alike(rng: np.random.Generator) -> None:
    deltas = rng.normal(0, 3, (300, 4)).astype(np.float32)
    deltas[4, 1], deltas[5, 2], deltas[6, 3] = np.nan, np.inf, -np.inf
    arguments = deltas, random_boxes(rng, 300), (0.1, 0.1, 0.2, 0.2), 90, 80
    np.testing.assert_allclose(boxes._decode_arrays(*arguments), boxes.decode(*arguments), rtol=1e-6)


def test_regions_are_pooled_alike(rng: np.random.Generator) -> None:
    maps = rng.normal(size=(20, 30, 9, 5)).astype(np.float32)
    regions = random_boxes(rng, 60, side=400)
    regions[0] = [900, 900, 950, 950]  # outside of the maps
    arguments = maps, regions, 3, np.float32(1 / 16), 2, 9
    np.testing.assert_allclose(pooling._vote_arrays(*arguments), pooling._vote(*arguments), atol=1e-4)


def test_masks_are_alike(rng: np.random.Generator) -> None:
    found = random_boxes(rng, 12, side=64)
    found[3, 2] = found[3, 0]  # an empty one
    windows = masks._windows(found)
    prototypes, coefficients = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 16, 16), (12, 8)))
    few_differ(
        masks._sum_prototype_arrays(coefficients, prototypes, windows, 64, 64),
        masks._sum_prototypes(coefficients, prototypes, windows, 64, 64),
    )
    images, rows = rng.normal(size=(15, 9, 11)).astype(np.float32), rng.permutation(15)[:12]
    few_differ(masks._paste_arrays(images, rows, found, windows), masks._paste(images, rows, found, windows))
    down, across = masks._position_arrays(64, 9), masks._position_arrays(64, 11)
    for side, cells in ((down, 9), (across, 11)):
        expected = masks._positions(64, cells)
        np.testing.assert_array_equal(side[0], expected[0])
        np.testing.assert_allclose(side[1], expected[1], atol=1e-6)
    window = np.array([5, 0, 64, 50])
    pair = [np.empty(59 * 50, np.bool_) for _ in range(2)]
    for enlarge, out in zip((masks._enlarge_arrays, masks._enlarge), pair, strict=True):
        enlarge(images[0], 0, 0, window, down, across, out)
    few_differ(*pair)


def few_differ(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> None:
    """Only pixels whose value is nearly 0 may differ."""
    assert found.shape == expected.shape
    assert 0.1 < expected.mean() < 0.9
    assert (found != expected).mean() < 0.002


def test_motion_vectors_are_drawn_alike(rng: np.random.Generator) -> None:
    corners = rng.integers(-20, 120, (400, 2)).astype(np.int16)
    sizes = rng.choice(np.array([2, 4, 8, 16], np.int16), (400, 2))
    displacements, chosen = rng.normal(size=(400, 2)).astype(np.float32), rng.random(400) < 0.5
    drawn = [(np.zeros((25, 24, 2), np.float32), np.zeros((25, 24), np.bool_)) for _ in range(2)]
    for fill, out in zip((loops._fill_block_arrays, loops.fill_blocks), drawn, strict=True):
        fill(corners, sizes, displacements, chosen, 4, *out)
    for found, expected in zip(*drawn, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert 0.3 < drawn[0][1].mean() < 1


def test_the_better_flow_is_taken_alike(rng: np.random.Generator) -> None:
    flow, error = rng.normal(size=(9, 8, 2)).astype(np.float32), rng.random((9, 8), np.float32)
    inside = rng.random((9, 8)) < 0.7
    taken = [(np.zeros_like(flow), np.full_like(error, 0.5)) for _ in range(2)]
    for take, out in zip((loops._take_better_arrays, loops.take_better), taken, strict=True):
        take(flow, error, inside, *out)
    for found, expected in zip(*taken, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_nearest_places_are_found_alike(rng: np.random.Generator, step: int) -> None:
    patches = rng.integers(0, 3, (17, 22, 6)).astype(np.float32)
    patches[4:12, 5:15] = 0  # where all places look alike, the first of the nearest counts
    cells = np.stack([rng.integers(0, 17, 90), rng.integers(0, 22, 90)], axis=1)
    arguments = patches, step, np.float32(0.25), cells, patches[cells[:, 0], cells[:, 1]] + np.float32(0.5)
    np.testing.assert_array_equal(loops._nearest_place_arrays(*arguments), loops.nearest_places(*arguments))


@pytest.mark.parametrize("model", ["street", "street-detect"])
def test_the_shipped_models_give_the_same_results_without_numba(model: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 12)
    lines = []
    for number, start in enumerate((["-m", "keywarp.cli"], ["-c", WITHOUT_NUMBA])):
        out = tmp_path / f"{number}.ndjson"
        command = [
            sys.executable,
            *start,
            "run",
            str(clip),
            "--model",
            model,
            "--models",
            str(MODELS),
            "--ndjson",
            str(out),
        ]
        env = os.environ | {"PYTHONWARNINGS": "error"}
        done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        lines.append([json.loads(line) for line in out.read_text().splitlines()])
    task = "segmentation" if model == "street" else "detections"
    assert len(lines[0]) == 12
    assert any(line[task] for line in lines[0])
    for compiled, arrays in zip(*lines, strict=True):
        assert (arrays["kind"], arrays["key_age"]) == (compiled["kind"], compiled["key_age"])
        if model == "street-detect":
            assert arrays[task] == compiled[task], compiled["frame"]
        else:  # labels are made in the graph instead of on the host, which rounds otherwise
            maps = [decode_labels(Segmentation.model_validate(one[task])) for one in (arrays, compiled)]
            assert (maps[0] == maps[1]).mean() > 0.999, compiled["frame"]
