import numpy as np
import pytest

from keywarp.datasets import IGNORE, Augmentation, Boxes, FlowPair, FramePair, Truth, warp_image
from keywarp.datasets.augmentation import GREY, Crop
from tests.datasets.synthetic import Squares, moving_square, textured

EXACT = Augmentation(64, 96, zoom=(1, 1), gain=0, tint=0, flip=0)
UNLIT = Augmentation(48, 64, zoom=(0.7, 1.4), gain=0, tint=0)
SEEDS = range(12)


def square(random: np.random.Generator, max_gap: int = 9) -> FramePair:
    return Squares().pair(random, max_gap)


def crop(zoom: float = 1, start: tuple[float, float] = (0, 0), mirror: bool = False) -> Crop:
    return Crop(48, 64, zoom, start, mirror, np.ones(3))


def test_without_augmentation_a_sample_is_the_frame() -> None:
    pair = square(np.random.default_rng(0))
    found = EXACT.pair(pair, np.random.default_rng(1))
    assert pair.gap > 0
    for name in ("current", "key", "gap"):
        assert np.array_equal(getattr(found, name), getattr(pair, name))
    assert pair.truth.labels is not None
    assert found.truth.labels is not None
    assert pair.truth.boxes is not None
    assert found.truth.boxes is not None
    assert np.array_equal(found.truth.labels, pair.truth.labels)
    assert np.array_equal(found.truth.boxes.corners, pair.truth.boxes.corners)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_follow_zoom_crop_and_mirror(seed: int) -> None:
    random = np.random.default_rng(seed)
    pair = UNLIT.pair(square(random), random)
    labels = pair.truth.labels
    assert labels is not None
    white = pair.current.min(axis=2) > 250
    known = labels != IGNORE
    assert (white == (labels == 1))[known].mean() > 0.95


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_follow_zoom_crop_and_mirror_like_labels(seed: int) -> None:
    random = np.random.default_rng(seed)
    pair = UNLIT.pair(square(random), random)
    labels, boxes = pair.truth.labels, pair.truth.boxes
    assert labels is not None
    assert boxes is not None
    rows, columns = np.nonzero(labels == 1)
    if not len(boxes.classes):  # the crop holds too little of the square
        assert len(rows) < 0.3 * 24 * 24 * 1.4**2
        return
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(boxes.corners, [around], atol=1)
    assert boxes.classes.tolist() == [1]
    assert boxes.corners.dtype == np.float32


@pytest.mark.parametrize("seed", SEEDS)
def test_flow_follows_zoom_crop_and_mirror(seed: int) -> None:
    """The cropped key image, sampled along the cropped flow, is the cropped current image."""
    rows, columns = np.indices((96, 144), np.float32)
    flow = np.stack([3 + 0.03 * columns, -2 + 0.04 * rows], axis=-1)  # differs in x and y, and from place to place
    key = textured(96, 144, seed)
    current = warp_image(key.astype(np.float32), flow).round().astype(np.uint8)
    random = np.random.default_rng(seed)
    pair = UNLIT.flow_pair(FlowPair(current, key, flow), random)
    seen = (warp_image(np.ones((48, 64, 1), np.float32), pair.flow) > 0.99)[..., 0]
    seen &= pair.current.max(axis=2) > 0  # the whole frame's border moves in from outside
    off = np.abs(warp_image(pair.key.astype(np.float32), pair.flow) - pair.current)[seen].mean()
    unmoved = np.abs(pair.key.astype(np.float32) - pair.current)[seen].mean()
    assert seen.mean() > 0.4
    assert off < 0.2 * unmoved


def test_flow_is_in_pixels_of_the_crop() -> None:
    flow = np.full((96, 144, 2), (4.0, 2.0), np.float32)
    assert (crop(zoom=0.5).flow(flow) == (2, 1)).all()
    assert (crop(zoom=2, mirror=True).flow(flow) == (-8, 4)).all()


def test_a_half_size_crop_is_the_mean_of_four_pixels_as_the_flow_network_sees_it() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    half = crop(zoom=0.5).image(frame)
    means = frame.reshape(48, 2, 64, 2, 3).astype(float).mean((1, 3))
    assert np.abs(half - means).max() <= 1


def test_crops_lie_within_the_frame_and_reach_all_of_it() -> None:
    augmentation = Augmentation(32, 32, zoom=(1, 1), gain=0, tint=0, flip=0)
    place = np.stack(np.broadcast_arrays(*np.indices((64, 96)), 0), axis=-1).astype(np.uint8)
    random = np.random.default_rng(0)
    corners = [augmentation.draw_crop(place, random).image(place)[0, 0] for _ in range(300)]
    rows, columns, _ = zip(*corners, strict=True)
    assert (min(rows), max(rows)) == pytest.approx((0, 32), abs=1)
    assert (min(columns), max(columns)) == pytest.approx((0, 64), abs=1)


def test_both_frames_of_a_pair_get_the_same_crop_and_brightness() -> None:
    still = moving_square(step=0)
    random = np.random.default_rng(0)
    pair = Augmentation(48, 64).pair(FramePair(still.clip.frames[3], still.clip.frames[0], 3, Truth()), random)
    assert np.array_equal(pair.current, pair.key)
    assert not np.array_equal(pair.current, still.clip.frames[3][:48, :64])


def test_labels_outside_the_frame_are_ignored() -> None:
    random = np.random.default_rng(0)
    labels = Augmentation(96, 128, (1, 1)).pair(square(random), random).truth.labels
    assert labels is not None
    assert (labels[:16] == IGNORE).all()
    assert (labels[:, :16] == IGNORE).all()
    assert (labels[17:79, 17:111] != IGNORE).all()


def test_boxes_of_which_a_quarter_is_visible_are_kept() -> None:
    corners = np.array([[54, 10, 74, 20], [60, 10, 80, 20], [-10, 0, 4, 8], [100, 0, 110, 9]], np.float32)
    seen = crop().boxes(Boxes(corners, np.array([1, 2, 3, 4])))
    assert seen.corners.tolist() == [[54, 10, 64, 20], [0, 0, 4, 8]]
    assert seen.classes.tolist() == [1, 3]
    assert crop().boxes(Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))).corners.shape == (0, 4)


def test_outside_of_a_frame_with_boxes_there_is_nothing_to_detect() -> None:
    frame = np.full((32, 32, 3), 255, np.uint8)
    boxes = Boxes(np.array([[0, 0, 32, 32]], np.float32), np.array([1]))
    larger = Augmentation(32, 64, (1, 1), gain=0, tint=0, flip=0)
    cut = larger.pair(FramePair(frame, frame, 0, Truth(boxes=boxes)), np.random.default_rng(0)).current
    assert (cut[:, 16:48] == 255).all()
    assert (cut[:, :15] == GREY).all()
    mirrored = larger.pair(FramePair(frame, frame, 0, Truth(labels=frame[..., 0])), np.random.default_rng(0)).current
    assert (mirrored == 255).all()
