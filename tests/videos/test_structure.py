"""Files whose parts don't follow each other."""

from pathlib import Path

from keywarp.videos import file_extent
from tests.videos.films import boxes, film, saved


def test_a_fragment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = film(muxing=fragments)
    places = [(place, kind) for place, _, kind in boxes(whole)]
    first, second, *_ = [place for place, kind in places if kind == b"moof"][1:]
    without_one = saved(tmp_path / "v.mp4", whole[:first] + whole[second:])
    assert "is broken at byte" in str(file_extent(without_one))
    broken = saved(tmp_path / "v.mp4", whole[: first + 4] + b"\x00\xff\x00\xff" + whole[first + 8 :])
    assert str(file_extent(broken)) == f"is broken at byte {first}"
