"""Videos as people have them, as training data."""

from pathlib import Path

import pytest
from PIL import Image

from keywarp.datasets import DataError
from keywarp.datasets.clips import read_clip
from keywarp.datasets.video_file import VideoFile
from keywarp.datasets.videos import LabelledVideos
from keywarp.images.orientation import turn
from tests.videos.films import (
    FRAMES,
    copied,
    film,
    number_of,
    red_and_green,
    saved,
    spoiled,
    textured,
    two_videos,
    with_cover,
)
from tests.videos.others import OTHERS


def test_a_video_is_turned_upright_unless_it_is_to_be_left_as_stored(tmp_path: Path) -> None:
    stored = turn(red_and_green(), 8)
    path = saved(tmp_path / "v.mp4", film(frames=[stored] * 3, turn=-90))
    assert VideoFile(path).index.size == (64, 128)
    upright = VideoFile(path).open().frame(2)
    assert upright[32, 8, 0] > 200
    assert upright[8, 120, 1] > 200
    assert VideoFile(path, upright=False).open().frame(2).shape == (128, 64, 3)
    assert read_clip(path, "v").frames.shape[1:] == (320, 640, 3)


def test_neither_a_cover_nor_what_an_edit_list_hides_is_a_frame(tmp_path: Path) -> None:
    covered = VideoFile(saved(tmp_path / "covered.mp4", with_cover(film_too=True))).open()
    assert (covered.last, number_of(covered.frame(7))) == (FRAMES - 1, 7)
    edited = VideoFile(saved(tmp_path / "edited.mp4", copied(film(gop=50), "mp4", 8))).open()
    assert (edited.last, number_of(edited.frame(0)), number_of(edited.frame(5))) == (FRAMES - 9, 8, 13)


def test_one_of_several_videos_can_be_chosen(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.mkv", two_videos())
    second = VideoFile(path, video=1).open()
    assert (second.size(0), second.last, number_of(second.frame(2))) == ((48, 128), 4, 12)
    assert VideoFile(path, video=0).open().frame(2).shape == (48, 64, 3)
    with pytest.raises(DataError, match="2 videos, numbered from 0, but no video 2"):
        _ = VideoFile(path, video=2).index
    (tmp_path / "v.labels").mkdir()
    Image.new("L", (128, 48)).save(tmp_path / "v.labels" / "3.png")
    videos = LabelledVideos(tmp_path, (("background", (0, 0, 0)), ("car", (9, 9, 9))), 48, 128, video=1)
    [snippet] = videos.snippets(1)
    assert (snippet.frames[-1].shape[1], number_of(snippet.frames[-1])) == (128, 13)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_video_is_said_to_be_what_it_is(tmp_path: Path, name: str) -> None:
    data, said = OTHERS[name]
    path = saved(tmp_path / "v.mp4", data)
    with pytest.raises(DataError, match=said):
        _ = VideoFile(path).index
    with pytest.raises(DataError, match=said):
        read_clip(path, "v")


def test_a_video_that_is_cut_off_says_so(tmp_path: Path) -> None:
    whole = film("matroska", [textured(n) for n in range(12)])
    for data, said in ((whole[: len(whole) // 2], "is cut off: it ends .* too early"), (b"", "is empty")):
        with pytest.raises(DataError, match=said):
            _ = VideoFile(saved(tmp_path / "v.mkv", data)).index


def test_damage_is_an_error(tmp_path: Path) -> None:
    bad = saved(tmp_path / "v.mp4", spoiled(film(frames=[textured(n) for n in range(6)], gop=3), 3, keep=1500))
    with pytest.raises(DataError, match="damaged in frame 3"):
        VideoFile(bad).open().frame(3)
    with pytest.raises(DataError, match="1 of 6 frames can't be decoded"):
        read_clip(bad, "v")
