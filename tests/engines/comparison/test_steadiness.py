from pathlib import Path

import numpy as np
import pytest

from keywarp.engines import Engine
from keywarp.engines.comparison import open_measure
from keywarp.engines.comparison.steadiness import count_with_itself
from tests.coloured import coloured
from tests.tiny_bundle import tiny_bundle


@pytest.mark.parametrize("task", ["segmentation", "detection", "instances"])
@pytest.mark.parametrize("width", [192, 384])  # at 384, a pixel of the network's input is two of the frame
def test_a_network_agrees_with_itself_as_far_as_its_cells_allow(task: str, width: int, tmp_path: Path) -> None:
    """The tiny bundle's cells don't move with the picture, so that its results stay while they should move."""
    detection, instances = task == "detection", task == "instances"
    bundle = tiny_bundle(tmp_path / "tiny", detection=detection, instances=instances, short_side=128, long_side=192)
    engine, measure = Engine(bundle, "onnxruntime", cache=tmp_path / "cache"), open_measure(bundle.manifest)
    image = coloured(width * 2 // 3, width)
    truth = engine.key(image)[0].output
    agreement = measure.agreement(count_with_itself(engine, measure, image, truth))
    if task != "segmentation":
        assert agreement == 1  # a pixel of 18 is far from half a box
    else:
        assert 0.8 < agreement < 0.99


def test_where_nothing_can_change_it_agrees_fully(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    engine, measure = Engine(bundle, "onnxruntime", cache=tmp_path / "cache"), open_measure(bundle.manifest)
    image = np.full((64, 1, 3), 200, np.uint8)
    truth = engine.key(image)[0].output
    assert measure.agreement(count_with_itself(engine, measure, image, truth)) == 1


def test_a_dense_map_moves_back_by_parts_of_a_cell(tmp_path: Path) -> None:
    """On a ramp, a pixel is 1/16 of the step from one cell to the next."""
    bundle = tiny_bundle(tmp_path / "tiny", dense=True)
    engine, measure = Engine(bundle, "onnxruntime", cache=tmp_path / "cache"), open_measure(bundle.manifest)
    image = np.zeros((64, 96, 3), np.uint8)
    image[..., 0] = 2 * np.arange(96)
    truth = engine.key(image)[0].output
    counts = count_with_itself(engine, measure, image, truth)
    assert measure.figures(counts)["error"] < 0.003 < 1 / 96
