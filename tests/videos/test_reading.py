"""What sound videos give. The addresses are those of reports in public trackers."""

import pytest

from tests.videos.films import B_FRAMES, copied, film
from tests.videos.reading import LISTED, Seen


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts", "flv", "avi", "h264"])
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_a_sound_video_gives_all_its_pictures_in_order_and_nothing_else(form: str, options: dict[str, str]) -> None:
    seen = Seen(film(form, options=options))
    assert (seen.numbers, seen.places, seen.notes, seen.error) == (LISTED, [], [], None)
    assert sorted({picture.unit for picture in seen.pictures}) == LISTED


# https://github.com/voxel51/fiftyone/pull/8410, https://github.com/Vanilagy/mediabunny/pull/341
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_packets_outside_the_edit_list_are_decoded_but_not_shown(options: dict[str, str]) -> None:
    seen = Seen(copied(film(options=options, gop=50), "mp4", 8))
    assert seen.numbers == LISTED[8:]
    assert seen.times[0] == 0
    assert seen.places == []


def test_interlaced_video_is_said_to_be() -> None:
    data = film("mpegts", codec="libx264", options={"flags": "+ildct+ilme", "x264-params": "tff=1:bframes=0"})
    seen = Seen(data)
    assert any("interlaced" in note for note in seen.notes)
    assert seen.places == []
