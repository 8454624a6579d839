from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.engines import InvalidFrameError
from keywarp.engines.motion import Area, CodecTracker, MotionVectors
from keywarp.engines.motion.vectors import PictureType
from tests.engines.motion.videos import B_FRAMES, HEIGHT, NO_B_FRAMES, WIDTH, Image, decoded, pan

STEP = 12  # pixels a frame: over nine frames too far for optical flow that is estimated directly
COUNT = 10


def error(flow: NDArray[np.float32], dx: float) -> float:
    """Return the median error of a pan's flow in pixels, where the key frame shows the same content."""
    seen = flow[8:-8, round(-dx) + 8 : -8]
    return float(np.median(np.abs(seen - np.array([dx, 0], np.float32)).sum(axis=-1)))


def small(image: Image) -> Image:
    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [("libx264", B_FRAMES), ("libx264", NO_B_FRAMES), ("mpeg4", {"bf": "0"}), ("mpeg2video", {"bf": "2", "g": "50"})],
    ids=["h264 with B frames", "h264 without", "mpeg4", "mpeg2 with B frames"],
)
def test_a_pan_is_followed_frame_by_frame(encoder: str, options: dict[str, str]) -> None:
    frames = decoded(pan(COUNT, STEP // 2), encoder, options)
    tracker = CodecTracker(frames[0][0])
    for number, (image, vectors) in enumerate(frames[1:], 1):
        flow = tracker.advance(image, (vectors,))
        assert flow.shape == (HEIGHT, WIDTH, 2)
        assert error(flow, -number * STEP / 2) < 1, number
        assert vectors is not None
        assert tracker.source == ("dis-chained" if vectors.picture == "I" else "codec")


def uniform(dx: int, picture: PictureType) -> MotionVectors:
    """Return vectors that move a whole picture by `dx` pixels, from an earlier frame or, if it is positive, a later."""
    ys, xs = np.mgrid[0:HEIGHT:16, 0:WIDTH:16]
    corners = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int16)
    moved = np.tile(np.array([dx, 0], np.float32), (len(corners), 1))
    return MotionVectors(
        WIDTH, HEIGHT, picture, corners, np.full_like(corners, 16), moved, np.full(len(corners), dx > 0)
    )


@pytest.mark.parametrize(
    "vectors",
    [
        [uniform(-30, "P"), uniform(-15, "B"), uniform(-30, "P")],  # the last refers to the first
        [uniform(-30, "P"), uniform(-15, "B"), uniform(-60, "P")],  # to the key frame
        [uniform(-30, "P"), uniform(-15, "B"), uniform(-15, "P")],  # to the one before
        [uniform(-15, "B"), uniform(15, "B"), uniform(15, "B"), uniform(30, "B")],  # to later frames
    ],
)
def test_the_images_tell_which_frame_a_block_refers_to(vectors: list[MotionVectors]) -> None:
    first, *_, last = pan(2, 60)
    assert error(CodecTracker(first).advance(last, vectors), -60) < 1


@pytest.mark.parametrize("options", [B_FRAMES, NO_B_FRAMES], ids=["B frames", "no B frames"])
def test_the_chain_holds_through_frames_that_were_dropped(options: dict[str, str]) -> None:
    frames = decoded(pan(COUNT, STEP // 2), options=options)
    seen = 9
    flow = CodecTracker(frames[0][0]).advance(frames[seen][0], [vectors for _, vectors in frames[1 : seen + 1]])
    assert error(flow, -seen * STEP / 2) < 1
    alone = CodecTracker(frames[0][0]).advance(frames[seen][0], [None])
    assert error(alone, -seen * STEP / 2) > 5  # it is really the vectors that found it


def test_vectors_are_scaled_to_the_small_image() -> None:
    frames = decoded(pan(COUNT, STEP), options=NO_B_FRAMES)
    flow = CodecTracker(small(frames[0][0])).advance(small(frames[8][0]), [vectors for _, vectors in frames[1:9]])
    assert error(flow, -8 * STEP / 2) < 0.5


@pytest.mark.parametrize(("height", "width"), [(90, 154), (74, 98)])
def test_frames_of_a_size_that_is_no_multiple_of_the_blocks_are_followed(height: int, width: int) -> None:
    frames = decoded(pan(5, 6, height, width), options=B_FRAMES)
    tracker = CodecTracker(frames[0][0])
    for image, vectors in frames[1:]:
        flow = tracker.advance(image, (vectors,))
    assert flow.shape == (height, width, 2)
    assert error(flow, -4 * 6) < 1


@pytest.mark.parametrize("pixels_per_cell", [4, 8])
def test_without_vectors_optical_flow_carries_the_chain_on_and_the_result_says_so(pixels_per_cell: int) -> None:
    frames = pan(COUNT, STEP // 2)
    tracker = CodecTracker(frames[0], pixels_per_cell)
    for image in frames[1:]:
        flow = tracker.advance(image, (None,))
        assert tracker.source == "dis-chained"
    assert error(flow, -(COUNT - 1) * STEP / 2) < 1
    tracker.advance(frames[-1])
    assert tracker.source == "dis-chained"


def test_an_intra_picture_between_is_bridged_by_optical_flow() -> None:
    frames = decoded(pan(COUNT, 4), options=NO_B_FRAMES | {"g": "4"})  # an I picture every 4 frames
    tracker = CodecTracker(frames[0][0])
    sources = []
    for image, vectors in frames[1:]:
        flow = tracker.advance(image, (vectors,))
        sources.append(tracker.source)
    assert sources == ["dis-chained" if number % 4 == 0 else "codec" for number in range(1, COUNT)]
    assert error(flow, -(COUNT - 1) * 4) < 1


def test_a_still_picture_isnt_moved_by_vectors_that_only_match_its_noise() -> None:
    random = np.random.default_rng(1)
    key, current = (random.normal(128, 2, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(2))
    flow = CodecTracker(key).advance(current, [uniform(-9, "P")])
    assert np.median(np.abs(flow)) == 0


def garbage(count: int = 400) -> NDArray[Any]:
    """Return an array as FFmpeg's, full of nonsense."""
    random = np.random.default_rng(5)
    fields = [("source", "i4"), ("w", "u1"), ("h", "u1"), ("dst_x", "i2"), ("dst_y", "i2")]
    array = np.zeros(count, [*fields, ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2")])
    for name in array.dtype.names or ():
        low, high = np.iinfo(array[name].dtype).min, np.iinfo(array[name].dtype).max
        array[name] = random.integers(low, high, count, endpoint=True)
    near = slice(0, count // 2)  # entries whose blocks lie in the frame
    array["dst_x"][near], array["dst_y"][near] = (
        random.integers(0, WIDTH, count // 2),
        random.integers(0, HEIGHT, count // 2),
    )
    array["motion_x"][near], array["motion_y"][near] = random.integers(-600, 600, (2, count // 2))
    array["motion_scale"][near] = 4
    return array


def test_nonsense_vectors_do_no_harm() -> None:
    vectors = MotionVectors.from_ffmpeg(garbage(), WIDTH, HEIGHT, 3, "h264")
    assert vectors is not None
    assert 0 < len(vectors.corners) < 400
    assert (np.abs(vectors.displacements) <= 2 * np.array([WIDTH, HEIGHT])).all()
    frames = pan(4, 2)
    tracker = CodecTracker(frames[0])
    for image in frames[1:]:
        flow = tracker.advance(image, (vectors, vectors))
    assert np.isfinite(flow).all()
    assert error(flow, -6) < 1


def test_only_some_codecs_have_vectors() -> None:
    assert MotionVectors.from_ffmpeg(None, 64, 48, 1, "hevc") is None
    intra = MotionVectors.from_ffmpeg(None, 64, 48, 1, "h264")
    assert intra is not None
    assert (intra.picture, len(intra.corners)) == ("I", 0)


def test_images_as_small_as_one_pixel_are_followed() -> None:
    tracker = CodecTracker(np.zeros((1, 3, 3), np.uint8))
    assert tracker.advance(np.zeros((1, 3, 3), np.uint8)).shape == (1, 3, 2)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidFrameError, match="is 4x4, this one 4x8: start a new key frame"):
        CodecTracker(np.zeros((4, 4, 3), np.uint8)).advance(np.zeros((4, 8, 3), np.uint8))


@pytest.mark.parametrize(("width", "height"), [(0, 48), (64, 0), (-64, 48)])
def test_vectors_of_a_frame_without_pixels_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"a frame of at least 1x1 pixels, not {width}x{height}"):
        MotionVectors.from_ffmpeg(None, width, height, 1, "h264")


def test_vectors_whose_parts_have_different_lengths_are_refused() -> None:
    whole = uniform(-30, "P")
    with pytest.raises(ValueError, match=r"must have the shapes .* for n blocks, got \(12, 2\)"):
        MotionVectors(WIDTH, HEIGHT, "P", whole.corners[:12], whole.sizes, whole.displacements, whole.future)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (22, 14)])
def test_vectors_are_those_of_the_frame_within_a_letterbox(left: int, top: int) -> None:
    """Each tile of noise comes from elsewhere, too far for optical flow, and only its vector tells from where."""
    random, tile, count = np.random.default_rng(0), 16, 8
    noise = random.integers(0, 256, (tile * count // 2 + 20, tile * count // 2 + 20, 3), dtype=np.uint8)
    wide = np.asarray(cv2.resize(noise, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
    reach, side = 20, tile * count
    moves = random.integers(-reach, reach + 1, (count, count, 2))
    key, current = wide[reach:-reach, reach:-reach].copy(), np.empty((side, side, 3), np.uint8)
    for row, column in np.ndindex(count, count):
        dx, dy = moves[row, column]
        y, x = row * tile + dy + reach, column * tile + dx + reach
        current[row * tile :, column * tile :][:tile, :tile] = wide[y : y + tile, x : x + tile]
    corners = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 2) * 2 * tile
    vectors = MotionVectors(
        2 * side,
        2 * side,
        "P",
        corners.astype(np.int16),
        np.full((count**2, 2), 2 * tile, np.int16),
        2 * moves.reshape(-1, 2).astype(np.float32),
        np.zeros(count**2, np.bool_),
    )
    border = ((top, 30), (left, 9), (0, 0))
    tracker = CodecTracker(np.pad(key, border, mode="edge"), area=Area(left, top, side, side))
    flow = tracker.advance(np.pad(current, border, mode="edge"), [vectors])[top:, left:]
    centres = flow[tile // 2 : side : tile, tile // 2 : side : tile]
    inside = np.ones((count, count), np.bool_)
    inside[[0, 1, -2, -1]] = inside[:, [0, 1, -2, -1]] = False  # the others may come from outside of the key frame
    assert (np.abs(centres - moves).max(axis=-1)[inside] < 1.5).mean() > 0.9
