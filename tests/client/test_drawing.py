import sys
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import DrawingError, open_source
from keywarp.client.drawing import KEY_PANEL, Annotator
from keywarp.client.writing import VideoWriter
from tests.client.media import CLASSES, frame_result, picture

pytest.importorskip("supervision", reason="the extra `draw` is not installed")


@pytest.mark.parametrize(("width", "height"), [(640, 272), (1920, 1080), (64, 48), (65, 49)])
def test_classes_are_drawn_in_their_colours(width: int, height: int) -> None:
    given = frame_result(1, width=width, height=height)
    assert given.image is not None
    before = given.image.copy()
    drawn = Annotator(CLASSES).annotate(given.image, given)
    np.testing.assert_array_equal(given.image, before)
    assert drawn.shape == (height, width, 3)
    assert drawn.dtype == np.uint8
    person, background = drawn[height // 2, width // 4], drawn[height // 2, width * 7 // 8]
    np.testing.assert_allclose(person, np.add((128, 128, 128), CLASSES[1].color) / 2, atol=2)
    np.testing.assert_array_equal(background, (128, 128, 128))


def test_key_frames_are_marked() -> None:
    annotator = Annotator(CLASSES)

    def marked(frame: int) -> int:
        drawn = annotator.annotate(picture(128, 640, 272), frame_result(frame))
        return int((drawn == KEY_PANEL[:3]).all(axis=2).sum())

    assert marked(0) > 50
    assert marked(1) == 0
    assert marked(10) > 50


def test_a_frame_of_background_only_is_left_as_it_is_but_for_the_tag() -> None:
    given = frame_result(1, latency=None)
    given.labels[:] = 0
    drawn = Annotator(CLASSES).annotate(picture(128, 640, 272), given)
    np.testing.assert_array_equal(drawn[:, 320:], 128)


def test_without_supervision_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(DrawingError, match=r"keywarp-client\[draw\]"):
        Annotator(CLASSES)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (65, 49)])
def test_a_video_is_written_with_even_sides(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "any.name"
    with VideoWriter(path, 29.97) as video:
        for level in (40, 120, 200):
            video.write(picture(level, width, height))
    with open_source(path) as source:
        levels = [float(frame.image.mean()) for frame in source]
    assert (source.width, source.height) == (64, 48)
    assert source.fps == pytest.approx(29.97)
    assert levels == pytest.approx([40, 120, 200], abs=3)
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_pictures_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 10) as video:
        video.write(picture(100))
        video.write(picture(100, 128, 96))
    with open_source(tmp_path / "v.mp4") as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)] * 2


def test_a_video_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DrawingError, match="can't be written"):
        VideoWriter(tmp_path / "no" / "v.mp4", 10)
