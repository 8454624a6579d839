from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from keywarp.datasets import Clip, DataError, read_clip
from tests.datasets.synthetic import moving_square


def write_video(path: Path, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def test_a_video_is_read_whole_and_cut_into_shots(tmp_path: Path) -> None:
    source = moving_square(frames=10).clip.frames
    write_video(tmp_path / "v.mp4", source)
    clip = read_clip(tmp_path / "v.mp4", "v", cuts=(4, 7), short_side=64, long_side=96)
    assert clip.frames.shape == source.shape
    assert clip.shots == (range(4), range(4, 7), range(7, 10))
    assert np.abs(clip.frames.astype(int) - source).mean() < 10


@pytest.mark.parametrize(
    ("short_side", "long_side", "size"), [(32, 96, (32, 48)), (64, 48, (32, 48)), (128, 999, (128, 192))]
)
def test_frames_are_resized_to_the_given_size(
    tmp_path: Path, short_side: int, long_side: int, size: tuple[int, int]
) -> None:
    write_video(tmp_path / "v.mp4", moving_square(frames=2).clip.frames)
    assert read_clip(tmp_path / "v.mp4", "v", (), short_side, long_side).frames.shape[1:3] == size


def test_text_is_not_a_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("no video")
    with pytest.raises(DataError, match="is text, not a video"):
        read_clip(tmp_path / "v.mp4", "v")


def test_a_cut_beyond_the_end_is_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", moving_square(frames=3).clip.frames)
    with pytest.raises(DataError, match="outside its 3 frames"):
        read_clip(tmp_path / "v.mp4", "v", cuts=(7,))


def test_a_part_keeps_its_shots() -> None:
    clip = moving_square(frames=10, cut=4).clip
    part = clip.part("part", 2, 8)
    assert part.shots == (range(2), range(2, 6))
    assert np.array_equal(part.frames[0], clip.frames[2])
    assert part.shot_of(3) == range(2, 6)


def test_a_frame_in_no_shot_is_refused() -> None:
    clip = Clip("c", np.zeros((5, 8, 8, 3), np.uint8), (range(2),))
    with pytest.raises(DataError, match="in no shot"):
        clip.shot_of(3)
