"""Joined recordings, and losses that look like them. The addresses are those of reports in public trackers."""

import io
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import SourceError, open_source
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.video import VideoOptions
from keywarp.server.errors import DamagedVideoError
from keywarp.videos import Continuity, open_container
from tests.server.decode.decoding import LIMIT, decode_all
from tests.server.media import pieces
from tests.videos.films import B_FRAMES, FRAMES, TS_PACKET, copied, film, saved, textured, video_packets, without
from tests.videos.reading import LISTED, Seen

CODECS = pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
ANYWHERE = (0, 1 << 40)


def served(data: bytes, piece: int = 1316) -> tuple[int, int]:
    """Let the server read a stream. Return the number of pictures, and of those that are lost."""
    items = decode_all(ContainerDecoder("mpegts", VideoOptions(LIMIT)), pieces(data, piece))
    return sum(isinstance(i, DecodedFrame) for i in items), sum(isinstance(i, DamagedVideoError) for i in items)


def followed(data: bytes) -> Continuity:
    found = Continuity()
    for piece in pieces(data, 1000):
        found.feed(memoryview(piece))
    return found


def with_counters(data: bytes, pids: tuple[int, ...], counter: int) -> bytes:
    """Change the counters of some PIDs so that the first one is `counter`."""
    packets = np.frombuffer(data, np.uint8).reshape(-1, TS_PACKET).copy()
    found = (packets[:, 1].astype(int) & 0x1F) << 8 | packets[:, 2]
    for pid in pids:
        of_pid = packets[found == pid]
        of_pid[:, 3] = of_pid[:, 3] & 0xF0 | (of_pid[:, 3] + counter & 0xF)
        packets[found == pid] = of_pid
    return packets.tobytes()


# https://github.com/ossrs/oryx/issues/222, https://github.com/DDVTECH/mistserver/issues/14: each segment's counters
# begin at 0
@CODECS
@pytest.mark.parametrize("later", [0, FRAMES])
def test_joined_recordings_are_complete(tmp_path: Path, codec: str, later: int) -> None:
    one = film("mpegts", codec=codec, options=B_FRAMES)
    data = one + copied(one, "mpegts", -later)
    for seen in (Seen(data), Seen(saved(tmp_path / "v.ts", data))):
        assert (seen.numbers, seen.places, seen.error) == ([*LISTED, *LISTED], [], None)
        known = [time for time in seen.times if time is not None]
        assert known == sorted(set(known))
    assert served(data) == (2 * FRAMES, 0)


@pytest.mark.parametrize("tables", range(16))
def test_recordings_are_joined_whatever_their_counters_are(tmp_path: Path, tables: int) -> None:
    one = film("mpegts", options=B_FRAMES)
    # By chance the counter of the tables goes on as if nothing had happened: it ends at 0 in the first recording.
    other = with_counters(one, (0, 17, 4096), tables)
    seen = Seen(saved(tmp_path / "v.ts", other + one))
    assert (seen.numbers, seen.places) == ([*LISTED, *LISTED], [])


# Such a loss looks like a joint to FFmpeg, because a key frame follows.
@CODECS
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_lost_right_before_a_key_frame_is_noticed(tmp_path: Path, codec: str, count: int) -> None:
    frames = [textured(number) for number in range(FRAMES)]
    data = film("mpegts", frames, codec=codec, options=B_FRAMES)
    with open_container(io.BytesIO(data)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.pos]
    places = video_packets(data)
    before = places.index(keys[len(keys) // 2] // TS_PACKET)
    for first in range(before - 8, before - count + 1):
        lost = without(data, places[first], count)
        path = saved(tmp_path / "v.ts", lost)
        seen = Seen(path)
        assert seen.places, first
        assert served(lost) == (len(seen.pictures), len(seen.places))
        with open_source(path) as source:
            with pytest.raises(SourceError, match="damaged"):
                list(source)
            assert source.missing == len(seen.places)


# FFmpeg marks nothing if a picture that fits into one packet is missing as a whole.
@pytest.mark.parametrize("options", [{}, B_FRAMES])
def test_a_small_picture_that_is_missing_as_a_whole_is_noticed(tmp_path: Path, options: dict[str, str]) -> None:
    data = film("mpegts", options=options)
    with open_container(io.BytesIO(data)) as container:
        units = [packet.pos // TS_PACKET for packet in container.demux(video=0) if packet.pos]
    for first in units[1:-1]:
        lost = without(data, first, 1)
        seen = Seen(saved(tmp_path / "v.ts", lost))
        assert seen.places, first
        assert served(lost) == (len(seen.pictures), len(seen.places))


def test_packets_of_another_size_and_garbage_between_them_are_passed_over() -> None:
    one = film("mpegts", options=B_FRAMES)
    two = one + one
    place = len(one) + 3 * TS_PACKET
    assert followed(two).joined(len(one), place)
    assert not followed(two).joined(0, len(one) - TS_PACKET)
    with_times = b"".join(bytes(4) + packet for packet in pieces(two, TS_PACKET))
    assert followed(with_times).joined(len(one) // 188 * 192, place // 188 * 192)
    assert followed(b"text" * 100 + two).joined(*ANYWHERE)
    assert followed(one + b"text" * 100 + one).joined(*ANYWHERE)
    assert not followed(one).joined(*ANYWHERE)


# ISO 13818-1, 2.4.3.3: a packet may come twice, and a jump may be announced
def test_duplicates_and_announced_jumps_are_no_joints() -> None:
    one = film("mpegts", options=B_FRAMES)
    twice = b"".join(packet * 2 for packet in pieces(one, TS_PACKET))
    assert not followed(twice).joined(*ANYWHERE)
    place = one.index(b"\x47\x41\x00", len(one) // 2)  # a packet of video whose adaptation field begins with flags
    assert one[place + 3] & 0x20
    two = bytearray(one + one)
    first = len(one) + one.index(b"\x47\x41\x00")
    two[first + 5] |= 0x80
    assert not followed(bytes(two)).joined(first - 1, first)
