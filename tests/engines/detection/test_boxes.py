import math

import numpy as np
import torch

from keywarp.engines.detection.anchors import grid_anchors
from keywarp.engines.detection.boxes import decode, nonempty
from keywarp.engines.manifest import RegionDetection
from keywarp.networks import anchors as reference
from keywarp.networks.boxes import decode_boxes

UNIT = (1.0, 1.0, 1.0, 1.0)


def test_the_anchors_are_the_references() -> None:
    for settings in (RegionDetection(), RegionDetection(stride=8, anchor_ratios=(0.3, 1.7), anchor_scales=(3.3,))):
        base = reference.base_anchors(settings.anchor_base, settings.anchor_ratios, settings.anchor_scales)
        expected = reference.grid_anchors(base, 5, 7, settings.stride)
        np.testing.assert_array_equal(grid_anchors(settings, 5, 7), expected.numpy())


def test_decoding_equals_boxes_computed_by_hand() -> None:
    anchors = np.array([[-56, -56, 72, 72]] * 2, np.float32)  # centre 8, 8, size 128
    # The first moves by 1/4 and -1/2 of its size to (40, -56) and doubles its width. The second moves to (72, 72).
    deltas = np.array([[0.25, -0.5, math.log(2), 0], [0.5, 0.5, 0, 0]], np.float32)
    assert decode(deltas, anchors, UNIT, 600, 1000).tolist() == [[0, 0, 168, 8], [8, 8, 136, 136]]
    std = (0.1, 0.1, 0.2, 0.2)
    in_std = (deltas / np.array(std)).astype(np.float32)
    np.testing.assert_allclose(decode(in_std, anchors, std, 600, 1000), [[0, 0, 168, 8], [8, 8, 136, 136]], rtol=1e-6)


def test_decoding_equals_the_reference_bit_for_bit() -> None:
    torch.manual_seed(0)
    first, size, deltas = torch.rand(2000, 2) * 500, 5 + torch.rand(2000, 2) * 500, torch.randn(2000, 4)
    references = torch.cat((first, first + size), dim=1)
    std = (0.1, 0.1, 0.2, 0.2)
    expected = decode_boxes(deltas.double(), references.double(), std).clamp(min=0)
    expected[:, 0::2].clamp_(max=1000)
    expected[:, 1::2].clamp_(max=600)
    found = decode(deltas.numpy(), references.numpy(), std, 600, 1000)
    np.testing.assert_array_equal(found, expected.float().numpy())


def test_huge_and_invalid_deltas_give_boxes_of_the_image_or_empty_ones() -> None:
    anchors = np.array([[100, 100, 116, 116]] * 7, np.float32)
    deltas = np.array(
        [
            [0, 0, 1e30, np.inf],
            [np.inf, 0, 0, 0],
            [0, -1e30, 0, 0],
            [0, 0, -np.inf, 0],
            [0, 0, 0, np.nan],
            [np.nan, np.inf, -np.inf, 0],
            [0, 0, 0, 0],
        ],
        np.float32,
    )
    boxes = decode(deltas, anchors, UNIT, 200, 300)
    assert boxes[0].tolist() == [0, 0, 300, 200]
    assert nonempty(boxes).tolist() == [True, False, False, False, False, False, True]
    assert np.isfinite(boxes).all()


def test_a_box_grows_from_16_to_1000_pixels_at_most() -> None:
    anchor, deltas = np.array([[1492, 992, 1508, 1008]], np.float32), np.array([[0, 0, 1e30, 50]], np.float32)
    np.testing.assert_allclose(decode(deltas, anchor, UNIT, 2000, 3000), [[1000, 500, 2000, 1500]], rtol=1e-6)
