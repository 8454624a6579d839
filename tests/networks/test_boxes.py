import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image

from keywarp.networks.boxes import MAX_LOG_RATIO, decode_boxes, encode_boxes

LAST_PIXEL = torch.tensor([0, 0, 1, 1])  # continuous boxes less legacy ones, which include their last pixel


def legacy_encode(box: list[float], reference: list[float]) -> list[float]:
    """Encode a box as the original code does, whose sizes are the corners' distances plus 1."""
    w, h = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    x, y = reference[0] + 0.5 * (w - 1), reference[1] + 0.5 * (h - 1)
    box_w, box_h = box[2] - box[0] + 1, box[3] - box[1] + 1
    box_x, box_y = box[0] + 0.5 * (box_w - 1), box[1] + 0.5 * (box_h - 1)
    return [(box_x - x) / w, (box_y - y) / h, math.log(box_w / w), math.log(box_h / h)]


def legacy_decode(deltas: list[float], reference: list[float]) -> list[float]:
    w, h = reference[2] - reference[0] + 1, reference[3] - reference[1] + 1
    x, y = reference[0] + 0.5 * (w - 1), reference[1] + 0.5 * (h - 1)
    box_x, box_y = deltas[0] * w + x, deltas[1] * h + y
    box_w, box_h = math.exp(deltas[2]) * w, math.exp(deltas[3]) * h
    return [
        box_x - 0.5 * (box_w - 1),
        box_y - 0.5 * (box_h - 1),
        box_x + 0.5 * (box_w - 1),
        box_y + 0.5 * (box_h - 1),
    ]


def test_encoding_and_decoding_equal_values_computed_by_hand() -> None:
    reference = torch.tensor([-56.0, -56.0, 72.0, 72.0])  # centre 8, 8, size 128
    # moved by 1/4 and -1/2 of its size to 40, -56; twice as wide
    deltas = torch.tensor([0.25, -0.5, math.log(2), 0.0])
    box = torch.tensor([-88.0, -120.0, 168.0, 8.0])
    torch.testing.assert_close(decode_boxes(deltas, reference), box)
    torch.testing.assert_close(encode_boxes(box, reference), deltas)
    std = (0.1, 0.1, 0.2, 0.2)
    in_std = torch.tensor([2.5, -5.0, 5 * math.log(2), 0.0])
    torch.testing.assert_close(decode_boxes(in_std, reference, std), box)
    torch.testing.assert_close(encode_boxes(box, reference, std), in_std)


def test_the_legacy_coding_is_the_same_with_the_last_pixel_included() -> None:
    box, reference = [31.0, 7.0, 250.0, 300.0], [-84.0, -40.0, 99.0, 55.0]
    continuous, continuous_reference = torch.tensor(box) + LAST_PIXEL, torch.tensor(reference) + LAST_PIXEL
    deltas = legacy_encode(box, reference)
    torch.testing.assert_close(encode_boxes(continuous, continuous_reference), torch.tensor(deltas))
    other = [0.3, -0.2, 0.5, -1.25]
    decoded = decode_boxes(torch.tensor(other), continuous_reference)
    torch.testing.assert_close(decoded - LAST_PIXEL, torch.tensor(legacy_decode(other, reference)))


def test_legacy_overlap_and_clipping_are_the_same_with_the_last_pixel_included() -> None:
    first, second = torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([[5.0, 5.0, 14.0, 14.0]])  # 5x5 pixels shared
    overlap = box_iou(first + LAST_PIXEL, second + LAST_PIXEL)
    torch.testing.assert_close(overlap, torch.tensor([[25 / (100 + 100 - 25)]]))
    clipped = clip_boxes_to_image(torch.tensor([[-5.0, 10.0, 1010.0, 700.0]]) + LAST_PIXEL, (600, 1000))
    assert (clipped - LAST_PIXEL).tolist() == [[0, 10, 999, 599]]


corner = st.floats(-500, 1500)
side = st.floats(1, 900)


@st.composite
def boxes(draw: st.DrawFn) -> Tensor:
    x, y, w, h = draw(corner), draw(corner), draw(side), draw(side)
    return torch.tensor([x, y, x + w, y + h], dtype=torch.float64)


@given(boxes(), boxes(), st.lists(st.floats(0.05, 2), min_size=4, max_size=4))
@settings(deadline=None)
def test_decoding_inverts_encoding(box: Tensor, reference: Tensor, std: list[float]) -> None:
    deltas = encode_boxes(box, reference, std)
    assume(bool((deltas[2:] * torch.tensor(std[2:]) <= MAX_LOG_RATIO).all()))
    torch.testing.assert_close(decode_boxes(deltas, reference, std), box, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("huge", [1e3, 1e30, math.inf])
def test_decoded_sizes_are_finite(huge: float) -> None:
    box = decode_boxes(torch.tensor([0.0, 0.0, huge, huge]), torch.tensor([0.0, 0.0, 16.0, 16.0]))
    torch.testing.assert_close(box, torch.tensor([-492.0, -492.0, 508.0, 508.0]), rtol=0, atol=1e-3)  # 1000 pixels wide
