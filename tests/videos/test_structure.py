"""Files whose parts don't follow each other. The addresses are those of reports in public trackers."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keywarp.videos import Extent, file_extent, open_container
from tests.videos.films import B_FRAMES, boxes, film, saved, textured
from tests.videos.reading import LISTED, Seen

CLUSTER = b"\x1f\x43\xb6\x75"


def fault(data: bytes, piece: int) -> str | None:
    extent = Extent()
    for start in range(0, len(data), piece):
        extent.feed(memoryview(data)[start : start + piece])
    return extent.fault


def contents(data: bytes) -> list[int]:
    """Return the places of the packets of video, as FFmpeg gives them."""
    with open_container(io.BytesIO(data)) as container:
        return [packet.pos for packet in container.demux(video=0) if packet.pos is not None]


def changed(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def test_a_fragment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = film(muxing=fragments)
    places = [(place, kind) for place, _, kind in boxes(whole)]
    first, second, *_ = [place for place, kind in places if kind == b"moof"][1:]
    without_one = saved(tmp_path / "v.mp4", whole[:first] + whole[second:])
    assert "is broken at byte" in str(file_extent(without_one))
    broken = saved(tmp_path / "v.mp4", changed(whole, first + 4, b"\x00\xff\x00\xff"))
    assert str(file_extent(broken)) == f"is broken at byte {first}"
    for inside in range(first + 1, second):  # also between the boxes in it
        assert ("too early" in str(fault(whole[:inside], 100))) == (inside not in [place for place, _ in places])
    for kind in (b"mfhd", b"traf", b"tfhd", b"trun"):
        assert "is broken" in str(fault(changed(whole, whole.index(kind, first), b"\xfe\xfe\xfe\xfe"), 100))


# https://github.com/staxrip/staxrip/issues/1980, https://github.com/bytedeco/javacv/issues/683
@pytest.mark.parametrize(("form", "muxing"), [("matroska", {}), ("matroska", {"live": "1"}), ("webm", {}), ("flv", {})])
def test_a_packet_whose_header_is_overwritten_is_noticed(tmp_path: Path, form: str, muxing: dict[str, str]) -> None:
    data = film(form, codec="libvpx" if form == "webm" else "libx264", muxing=muxing)
    for place in contents(data):
        broken = changed(data, place if form == "flv" else place - 2, b"\xff\xff")
        found = fault(broken, 100)
        assert str(found).startswith("is broken at byte")
        assert found == file_extent(saved(tmp_path / "v", broken))


def test_a_packet_of_a_track_that_does_not_exist_is_noticed() -> None:
    data = film("matroska")
    assert "is broken" in str(fault(changed(data, contents(data)[5], b"\x99"), 1000))


def test_an_flv_tag_and_the_size_after_it_agree() -> None:
    data = film("flv")
    place = contents(data)[6] - 4  # behind the tag before
    size = int.from_bytes(data[place : place + 4], "big")
    assert "is broken" in str(fault(changed(data, place, bytes(4)), 1000))
    for mistake in (size - 1, size - 11):  # which FFmpeg takes, too
        assert fault(changed(data, place, mistake.to_bytes(4, "big")), 1000) is None


@pytest.mark.parametrize("piece", [1, 7, 1316, 1 << 20])
@pytest.mark.parametrize(
    ("form", "muxing"),
    [
        ("matroska", {}),
        ("matroska", {"live": "1"}),
        ("matroska", {"cluster_time_limit": "80"}),
        ("matroska", {"cues_to_front": "1"}),
        ("matroska", {"reserve_index_space": "5000"}),
        ("matroska", {"write_crc32": "0"}),
        ("flv", {}),
        ("flv", {"flvflags": "no_duration_filesize"}),
        ("flv", {"flvflags": "add_keyframe_index"}),
    ],
)
def test_good_files_are_not_broken(tmp_path: Path, form: str, muxing: dict[str, str], piece: int) -> None:
    data = film(form, muxing=muxing, options=B_FRAMES)
    assert fault(data, piece) is None
    assert file_extent(saved(tmp_path / "v", data)) is None


# A browser's MediaRecorder that is stopped and started again writes another header behind the first recording.
def test_live_recordings_that_were_joined_are_not_broken() -> None:
    one = film("webm", codec="libvpx", muxing={"live": "1"})
    assert fault(one + one, 100) is None
    assert "too early" in str(fault(one + one[:-5], 100))


# Chrome's MediaRecorder doesn't know the size of a cluster that it begins.
def test_clusters_may_be_of_unknown_size() -> None:
    data = film("webm", codec="libvpx", muxing={"live": "1", "cluster_time_limit": "80"})
    places = [place for place in range(len(data)) if data.startswith(CLUSTER, place)]
    assert len(places) > 3
    for place in places:
        length = 9 - data[place + 4].bit_length()
        data = changed(data, place + 4, (2 ** (7 * length + 1) - 1).to_bytes(length, "big"))
    assert fault(data, 100) is None
    assert Seen(data).numbers == LISTED
    for place in contents(data):
        assert "is broken" in str(fault(changed(data, place - 2, b"\xff\xff"), 1000))


# https://github.com/mpv-player/mpv/pull/2651
def test_void_may_be_anywhere() -> None:
    data = film("matroska", muxing={"live": "1"})
    for place in (data.index(CLUSTER), len(data)):
        assert fault(data[:place] + b"\xec\x83abc" + data[place:], 100) is None


def test_what_follows_a_whole_segment_does_not_matter() -> None:
    assert fault(film("matroska") + b"text", 100) is None


# https://github.com/rust-av/matroska/issues/10
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
@pytest.mark.parametrize("muxing", [{}, {"cluster_time_limit": "80"}])
def test_a_cluster_that_does_not_have_its_checksum_is_noticed_wherever_it_is_overwritten(
    tmp_path: Path, codec: str, muxing: dict[str, str]
) -> None:
    frames = [textured(number) for number in range(24)]
    data = film("matroska", frames, codec=codec, options=B_FRAMES if codec == "libx264" else {}, muxing=muxing)
    assert fault(data, 1000) is None
    for place in contents(data):
        broken = changed(data, place + 40, bytes([data[place + 40] ^ 1]))
        found = fault(broken, 1000)
        assert "which don't have their checksum" in str(found)
        assert file_extent(saved(tmp_path / "v.mkv", broken)) == found
        start, end = (int(word.strip(",")) for word in str(found).split() if word.strip(",").isdecimal())
        assert start < place < end <= len(data)
    for size in range(data.index(CLUSTER), len(data), 501):
        assert "too early" in str(fault(data[:size], 1000))


# https://github.com/deanm/omggif/issues/24, https://github.com/deanm/omggif/issues/39
@pytest.mark.parametrize("piece", [7, 1000, 1 << 20])
def test_a_gif_that_is_cut_off_or_whose_blocks_do_not_follow_each_other_is_noticed(tmp_path: Path, piece: int) -> None:
    frames = [textured(number) for number in range(4)]
    for data in (film("gif", frames, codec="gif"), animation(frames)):
        assert fault(data, piece) is None
        assert file_extent(saved(tmp_path / "v.gif", data)) is None
        whole = Seen(data).numbers
        for size in range(10, len(data), 301):
            path = saved(tmp_path / "v.gif", data[:size])
            assert "too early" in str(file_extent(path))
            assert file_extent(path) == fault(data[:size], piece)
        with open_container(io.BytesIO(data)) as container:
            ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.pos is not None]
        for end in ends[:-1]:
            assert fault(changed(data, end, b"x"), piece) == f"is broken at byte {end}"
        assert len(whole) == 4


# https://github.com/WebKit/WebKit/pull/1678, https://github.com/golang/go/pull/38854,
# https://github.com/bitbank2/AnimatedGIF/issues/38
def test_gifs_as_programs_write_them_are_not_broken() -> None:
    data = film("gif", codec="gif")
    for other in (data[:-1], data[:-1] + b"\0\0;", data + bytes(4000), data + b"text"):
        assert fault(other, 1000) is None
        assert Seen(other).numbers == LISTED


def animation(frames: list[NDArray[np.uint8]]) -> bytes:
    """Make a GIF whose images have tables of colours of their own, with a comment."""
    file = io.BytesIO()
    images = [Image.fromarray(frame).quantize(16 * (number + 1)) for number, frame in enumerate(frames)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], comment=b"a comment" * 50)
    return file.getvalue()


@pytest.mark.parametrize("form", ["matroska", "flv", "gif"])
def test_few_bytes_are_kept(form: str) -> None:
    codec = "gif" if form == "gif" else "libx264"
    data = film(form, [textured(number) for number in range(24)], codec=codec)
    tracemalloc.start()
    try:
        fault(data, 1000)
        assert tracemalloc.get_traced_memory()[1] < len(data) / 4
    finally:
        tracemalloc.stop()
