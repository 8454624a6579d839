"""Packets of transport streams that come twice, as the standard allows (ISO 13818-1, 2.4.3.3)."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from keywarp.client import open_source
from keywarp.videos import Repeats, TransportFile
from tests.server.media import pieces
from tests.videos.films import B_FRAMES, FRAMES, TS_PACKET, film, number_of, saved, textured, video_packets
from tests.videos.reading import LISTED, Seen
from tests.videos.test_continuity import served


def repeated(data: bytes, share: float, times: int = 2) -> bytes:
    """Repeat a share of the packets, and give those with a time (PCR) another one, as a multiplexer does."""
    random, parts = np.random.default_rng(0), list[bytes]()
    for packet in pieces(data, TS_PACKET):
        parts.append(packet)
        if random.random() < share:
            has_time = packet[3] & 0x20 and packet[4] >= 7 and packet[5] & 0x10
            later = bytearray(packet)
            later[10] ^= 0x80 * bool(has_time)
            parts += [bytes(later)] * (times - 1)
    return b"".join(parts)


def cleaned(data: bytes, piece: int) -> bytes:
    repeats = Repeats()
    return b"".join([*map(repeats.feed, pieces(data, piece)), repeats.end()])


def rows(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).reshape(-1, TS_PACKET)


# https://github.com/Eyevinn/hls-to-dash/issues/23, https://github.com/jellyfin/jellyfin/issues/8343
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_packets_that_come_twice_are_no_damage(tmp_path: Path, share: float) -> None:
    data = repeated(film("mpegts", options=B_FRAMES), share)
    path = saved(tmp_path / "twice.ts", data)
    seen = Seen(path)
    assert (seen.numbers, seen.places, seen.error) == (LISTED, [], None)
    assert served(data) == (FRAMES, 0)
    with open_source(path) as source:
        assert [number_of(frame.image) for frame in source] == LISTED


def test_packets_that_come_twice_do_not_hide_those_that_are_missing(tmp_path: Path) -> None:
    data = film("mpegts", [textured(number) for number in range(FRAMES)], options=B_FRAMES)
    places = video_packets(data)
    packets = pieces(data, TS_PACKET)
    del packets[places[len(places) // 2]]
    lost = repeated(b"".join(packets), 0.5)
    seen = Seen(saved(tmp_path / "v.ts", lost))
    assert seen.places
    assert served(lost) == (len(seen.pictures), len(seen.places))


@pytest.mark.parametrize("piece", [1, 100, TS_PACKET, 1000, 10**6])
def test_only_repetitions_are_taken_out_however_the_bytes_arrive(piece: int) -> None:
    one = film("mpegts", options=B_FRAMES)
    assert cleaned(one, piece) == one
    twice = repeated(one, 1.0)
    clean = rows(cleaned(twice, piece))
    assert clean.shape == rows(twice).shape
    assert np.array_equal(clean[::2], rows(one))
    assert (clean[1::2, 1:3] == (0x1F, 0xFF)).all()


def test_a_packet_that_comes_three_times_is_taken_out_once() -> None:
    one = film("mpegts", options=B_FRAMES)
    clean = rows(cleaned(repeated(one, 1.0, times=3), 10_000))
    content = clean[(clean[:, 1] & 0x1F != 0x1F) | (clean[:, 2] != 0xFF)]
    assert len(content) == 2 * len(rows(one))


def test_packets_with_a_time_stamp_in_front_are_compared_without_it() -> None:
    stamps = iter(range(1, 1 << 30))
    one = b"".join(next(stamps).to_bytes(4, "big") + packet for packet in pieces(film("mpegts"), TS_PACKET))
    twice = b"".join(packet + next(stamps).to_bytes(4, "big") + packet[4:] for packet in pieces(one, TS_PACKET + 4))
    clean = cleaned(twice, 1000)
    assert [packet[4:7] == b"\x47\x1f\xff" for packet in pieces(clean, 192)] == [False, True] * (len(one) // 192)


def test_a_file_is_read_from_any_place_and_other_files_are_left_as_they_are() -> None:
    one = repeated(film("mpegts", [textured(number) for number in range(FRAMES)]), 0.3)
    file = TransportFile(io.BytesIO(one))
    whole = b"".join(iter(partial(file.read, 3000), b""))
    assert whole == cleaned(one, 1000)
    assert file.seek(0, 2) == len(one)
    assert file.read(1) == b""
    assert file.seek(TS_PACKET * 7) == TS_PACKET * 7
    assert file.read(10) == one[TS_PACKET * 7 :][:10]
    assert file.seek(5, 1) == file.tell() == TS_PACKET * 7 + 15
    assert file.read(5) == one[TS_PACKET * 7 + 15 :][:5]
    for other in (film("mp4"), b"", b"text", bytes([0x47]) * 100):
        read = TransportFile(io.BytesIO(other)).read
        assert b"".join(iter(partial(read, 1000), b"")) == other
