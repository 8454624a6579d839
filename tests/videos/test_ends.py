"""Where videos should end. The addresses are those of reports in public trackers."""

from pathlib import Path

import pytest

from keywarp.videos import Extent, file_extent
from tests.videos.films import B_FRAMES, FASTSTART, copied, film, saved, textured
from tests.videos.reading import LISTED, Seen


# https://github.com/yaak-ai/rbyte/issues/56, https://github.com/meta-pytorch/torchcodec/issues/165
@pytest.mark.parametrize(
    ("form", "muxing"),
    [
        ("mp4", FASTSTART),
        ("mp4", {"movflags": "frag_every_frame+empty_moov+default_base_moof"}),
        ("matroska", {}),
        ("avi", {}),
        ("flv", {}),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_known_by_its_length(
    tmp_path: Path, form: str, muxing: dict[str, str], share: float
) -> None:
    whole = film(form, [textured(n) for n in range(12)], muxing=muxing)
    cut = whole[: round(len(whole) * share)]
    for data, complete in ((whole, True), (cut, False)):
        extent = Extent()
        for start in range(0, len(data), 997):
            extent.feed(data[start : start + 997])
        fault = extent.fault
        assert fault == file_extent(saved(tmp_path / "film", data))
        assert (fault is None) == complete


def test_packets_that_the_index_lists_but_that_are_not_there_are_an_error() -> None:
    whole = film(frames=[textured(n) for n in range(12)], muxing=FASTSTART)
    seen = Seen(whole[: len(whole) // 2])
    assert seen.error
    assert "packets of video in its index are missing" in seen.error


@pytest.mark.parametrize(("form", "muxing"), [("mpegts", {}), ("matroska", {"live": "1"}), ("h264", {})])
def test_files_that_do_not_tell_their_length_are_never_too_short(form: str, muxing: dict[str, str]) -> None:
    data = film(form, codec="libvpx" if form == "matroska" else "libx264", muxing=muxing)
    extent = Extent()
    extent.feed(data)
    assert extent.fault is None


# FFmpeg declares the end of a video in these containers, not how long it lasts.
@pytest.mark.parametrize("form", ["mp4", "matroska", "flv", "mpegts"])
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_a_video_that_begins_late_is_complete(form: str, options: dict[str, str]) -> None:
    seen = Seen(copied(film(options=options), form, -50))
    assert (seen.numbers, seen.error, seen.places) == (LISTED, None, [])


def test_an_avi_from_a_pipe_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    data = film("avi", options=B_FRAMES)
    data = data[: data.index(b"idx1")]
    length = data.index(b"strh") + 40
    data = data[:4] + b"\xff" * 4 + data[8:length] + (2**30).to_bytes(4, "little") + data[length + 4 :]
    seen = Seen(data)
    assert (seen.numbers, seen.error) == (LISTED, None)
    assert file_extent(saved(tmp_path / "v.avi", data)) is None
