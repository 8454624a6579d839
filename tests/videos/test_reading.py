"""Videos as people have them. The addresses are those of reports in public trackers."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from keywarp.images.orientation import INVERSE, turn
from keywarp.videos import (
    DecodedUnit,
    Extent,
    Lost,
    Note,
    Origin,
    Picture,
    SoftwareDecoder,
    VideoError,
    VideoReader,
    choose_video,
    file_extent,
    open_container,
)
from keywarp.videos.ledger import UnitLedger
from tests.videos.films import (
    B_FRAMES,
    FASTSTART,
    FRAMES,
    OPEN_GROUPS,
    boxes,
    copied,
    cut,
    film,
    grey,
    number_of,
    red_and_green,
    saved,
    spoiled,
    textured,
    video_packets,
    with_cover,
    without,
)

LISTED = list(range(FRAMES))


class Seen:
    """What the reader gave: the pictures, what it said about the others, and its error."""

    def __init__(self, data: bytes, video: int | None = None, threads: int | None = 1) -> None:
        self.pictures: list[Picture] = []
        self.notes: list[str] = []
        self.places: list[int] = []  # of lost pictures: how many came before each
        self.error: str | None = None
        with open_container(io.BytesIO(data)) as container:
            stream = choose_video(container, video)
            reader = VideoReader(container, stream, SoftwareDecoder(stream.codec_context, threads=threads))
            try:
                for item in reader:
                    match item:
                        case Picture():
                            self.pictures.append(item)
                        case Lost():
                            self.places.append(len(self.pictures))
                        case Note(text):
                            self.notes.append(text)
            except VideoError as error:
                self.error = str(error)
        self.numbers = [number_of(picture.pixels) for picture in self.pictures]
        self.times = [picture.time for picture in self.pictures]


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts", "flv", "avi", "h264"])
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_a_sound_video_gives_all_its_pictures_in_order_and_nothing_else(form: str, options: dict[str, str]) -> None:
    seen = Seen(film(form, options=options))
    assert (seen.numbers, seen.places, seen.notes, seen.error) == (LISTED, [], [], None)
    assert sorted({picture.unit for picture in seen.pictures}) == LISTED


# https://github.com/meta-pytorch/torchcodec/issues/1084, https://github.com/opencv/opencv/issues/26876
@pytest.mark.parametrize(
    ("orientation", "degrees", "flip"),  # of FFmpeg: first counter-clockwise, then left for right
    [
        (1, 0, False),
        (8, 90, False),
        (3, 180, False),
        (6, 270, False),
        (2, 0, True),
        (7, 90, True),
        (4, 180, True),
        (5, 270, True),
    ],
)
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_the_display_matrix_tells_which_way_up_pictures_are(
    orientation: int, degrees: int, flip: bool, form: str
) -> None:
    upright = red_and_green()
    stored = turn(upright, INVERSE.get(orientation, orientation))
    [picture] = Seen(film(form, [stored], turn=degrees, flip=flip)).pictures
    assert picture.orientation == orientation
    found = turn(picture.pixels, picture.orientation)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 12


# https://github.com/UltraStar-Deluxe/USDX/pull/948, https://github.com/0x90d/videoduplicatefinder/issues/905
def test_a_cover_picture_is_no_video() -> None:
    data = with_cover(film_too=True)
    with open_container(io.BytesIO(data)) as container:
        assert len(container.streams.video) == 2
        assert container.streams.video[0].codec_context.name == "mjpeg"
    assert Seen(data).numbers == LISTED
    with pytest.raises(VideoError, match="no video in it but a cover picture"):
        Seen(with_cover(film_too=False))


# https://github.com/jellyfin/jellyfin-web/issues/1421, https://github.com/Aleksoid1978/MPC-BE/issues/638
def test_one_of_several_videos_is_chosen_and_the_others_are_named() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams = [container.add_stream("libx264", rate=25, options={"bf": "0"}) for _ in range(2)]
        for stream, width in zip(streams, (64, 128), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for stream, width, first in zip(streams, (64, 128), (0, 10), strict=True):
            for number in range(first, first + 5):
                pixels = np.full((48, width, 3), 16 + 9 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
            container.mux(stream.encode())
    for video, numbers in ((0, range(5)), (1, range(10, 15))):
        seen = Seen(file.getvalue(), video)
        assert seen.numbers == list(numbers)
        assert f"this is number {video}" in seen.notes[0]
        assert "0: h264 64x48, 1: h264 128x48" in seen.notes[0]
    with pytest.raises(VideoError, match="2 videos, numbered from 0, but no video 2"):
        Seen(file.getvalue(), 2)


# https://github.com/voxel51/fiftyone/pull/8410, https://github.com/Vanilagy/mediabunny/pull/341
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_packets_outside_the_edit_list_are_decoded_but_not_shown(options: dict[str, str]) -> None:
    seen = Seen(copied(film(options=options, gop=50), "mp4", 8))
    assert seen.numbers == LISTED[8:]
    assert seen.times[0] == 0
    assert seen.places == []


# https://github.com/PyAV-Org/PyAV/issues/185, https://github.com/meta-pytorch/torchcodec/issues/505
def test_a_packet_that_cannot_be_decoded_is_a_lost_picture() -> None:
    seen = Seen(spoiled(film(), 5))
    assert seen.times == pytest.approx([n / 25 for n in LISTED if n != 5])
    assert seen.places == [5]
    assert seen.numbers[7:] == LISTED[8:]  # from the next key frame on


@pytest.mark.parametrize("threads", [1, None])
def test_a_picture_that_the_decoder_patches_up_is_a_lost_picture(threads: int | None) -> None:
    data = film(frames=[textured(n) for n in range(6)], gop=3)
    seen = Seen(spoiled(data, 3, keep=1500), threads=threads)  # the slice's header and beginning stay
    assert (len(seen.pictures), seen.places) == (5, [3])


# https://github.com/jacksonliam/mjpg-streamer/issues/47, https://github.com/pikvm/ustreamer/pull/289
def test_half_a_jpeg_is_a_lost_picture() -> None:
    data = film("avi", [textured(n) for n in range(5)], codec="mjpeg")
    with open_container(io.BytesIO(data)) as container:
        place, size = [(p.pos, p.size) for p in container.demux(video=0)][2]
    assert place is not None
    half = data[: place + size // 2] + bytes(size - size // 2) + data[place + size :]
    seen = Seen(half)
    assert (len(seen.pictures), seen.places) == (4, [2])


# https://github.com/PyAV-Org/PyAV/issues/1597: the packet after the lost one is marked as corrupt
@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_missing_packets_of_a_transport_stream_are_a_loss(count: int, codec: str) -> None:
    data = film("mpegts", [textured(n) for n in range(16)], codec=codec)
    places = video_packets(data)
    for first in (places[100], places[160], places[221]):
        seen = Seen(without(data, first, count))
        assert seen.places, (first, count)
        assert len(seen.pictures) < 16


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


@pytest.mark.parametrize(("form", "muxing"), [("mpegts", {}), ("matroska", {"live": "1"}), ("h264", {}), ("gif", {})])
def test_files_that_do_not_tell_their_length_are_never_too_short(form: str, muxing: dict[str, str]) -> None:
    codec = {"matroska": "libvpx", "gif": "mpeg4"}.get(form, "libx264")
    data = film("matroska" if form == "gif" else form, codec=codec, muxing=muxing)
    extent = Extent()
    extent.feed(b"GIF89a" + data if form == "gif" else data)
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


# https://github.com/ossrs/oryx/issues/222: each segment's counters begin at 0
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
@pytest.mark.parametrize("later", [0, FRAMES])
def test_joined_recordings_are_complete(codec: str, later: int) -> None:
    one = film("mpegts", codec=codec, options=B_FRAMES)
    seen = Seen(one + copied(one, "mpegts", -later))
    assert (seen.numbers, seen.places, seen.error) == ([*LISTED, *LISTED], [], None)
    known = [time for time in seen.times if time is not None]
    assert known == sorted(set(known))


# A key frame of an open group is followed by pictures that need those before it, and that are shown before it.
def test_pictures_that_lead_the_first_key_frame_are_left_out_and_counted() -> None:
    whole = film(options=OPEN_GROUPS)
    with open_container(io.BytesIO(whole)) as container:
        keys = [n for n, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    seen = Seen(cut(whole, "matroska", keys[1], 10))
    assert (seen.places, seen.error) == ([], None)
    assert seen.numbers == LISTED[-len(seen.numbers) :]
    assert len(seen.numbers) + len(LISTED[: keys[1]]) in (FRAMES - 1, FRAMES - 2)
    [note] = seen.notes
    assert "begins in the middle" in note


@pytest.mark.parametrize("times", [(0, None, 2, 1), (5, 3, 7, 6)])
def test_units_that_lead_the_first_picture_have_earlier_times_or_none(times: tuple[int | None, ...]) -> None:
    ledger = UnitLedger("h264")
    for number, time in enumerate(times):
        ledger.add(number, Origin(time))
    assert ledger.decoded(DecodedUnit(None, 0))[2] == []
    assert ledger.decoded(DecodedUnit(None, 3))[2] == []
    assert ledger.decoded(DecodedUnit(None, 2))[2] == []
    assert ledger.end() == []
    assert ledger.leading + ledger.left_out == 1


# https://github.com/mpromonet/webrtc-streamer/issues/61, https://github.com/jellyfin/jellyfin/issues/8343
def test_packets_before_the_first_key_frame_are_left_out_and_counted() -> None:
    data = film("mpegts", [textured(n) for n in range(20)], gop=10)
    seen = Seen(without(data, 0, len(data) // 188 // 4))
    assert seen.error is None
    assert len(seen.pictures) == 10
    [note] = seen.notes
    assert "packets before the first key frame were left out" in note
    assert seen.places == []


def test_a_video_without_a_key_frame_gets_a_sentence() -> None:
    data = film("mpegts", [textured(n) for n in range(12)], gop=100)
    tables = data[: 3 * 188]
    seen = Seen(tables + data[len(data) // 188 // 3 * 188 :])
    assert seen.pictures == []
    assert seen.error
    assert "no key frame that decoding can start with" in seen.error


# AVI has no times at which pictures are shown: https://github.com/meta-pytorch/torchcodec/issues/1363,
# https://github.com/xbmc/xbmc/pull/2057
@pytest.mark.parametrize("form", ["avi", "mp4", "matroska", "mpegts", "flv"])
def test_times_rise_with_the_pictures(form: str) -> None:
    times: list[Any] = Seen(film(form, options=B_FRAMES)).times
    assert np.diff(times) == pytest.approx([0.04] * (FRAMES - 1), abs=0.002)


def test_times_that_are_unknown_or_do_not_rise_are_none() -> None:
    assert Seen(film("h264", options=B_FRAMES)).times == [None] * FRAMES
    first, second = film("mpegts", [grey(n) for n in range(6)]), film("mpegts", [grey(n) for n in range(6, 12)])
    times = Seen(first + second).times  # they begin again where the two were joined
    known = [time for time in times if time is not None]
    assert known == sorted(set(known))


def test_variable_times_and_gaps_are_kept() -> None:
    times = [*range(0, 48, 4), *range(48, 48 + 480, 40)]
    assert Seen(film(times=times)).times == pytest.approx([time / 100 for time in times])


def test_interlaced_video_is_said_to_be() -> None:
    data = film("mpegts", codec="libx264", options={"flags": "+ildct+ilme", "x264-params": "tff=1:bframes=0"})
    seen = Seen(data)
    assert any("interlaced" in note for note in seen.notes)
    assert seen.places == []


def test_a_fragment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = film(muxing=fragments)
    places = [(place, kind) for place, _, kind in boxes(whole)]
    first, second, *_ = [place for place, kind in places if kind == b"moof"][1:]
    without_one = saved(tmp_path / "v.mp4", whole[:first] + whole[second:])
    assert "is broken at byte" in str(file_extent(without_one))
    broken = saved(tmp_path / "v.mp4", whole[: first + 4] + b"\x00\xff\x00\xff" + whole[first + 8 :])
    assert str(file_extent(broken)) == f"is broken at byte {first}"
