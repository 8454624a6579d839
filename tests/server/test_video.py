import threading
from collections.abc import Iterator, Sequence

import pytest

from keywarp.protocol import FrameHeader
from keywarp.server import video
from keywarp.server.errors import BadVideoError
from keywarp.server.pictures import Damage, Decoder, Picture
from keywarp.server.video import H264Decoder, MpegTsDecoder
from tests.server.media import B_FRAMES, NO_DELAY, h264, mpegts, pieces

LIMIT = 4096 * 4096


def decode(decoder: Decoder, payloads: Sequence[bytes], first_id: int = 0) -> Iterator[Picture | Damage]:
    for id_, payload in enumerate(payloads, first_id):
        yield from decoder.decode(FrameHeader(id=id_, timestamp=id_ / 10), memoryview(payload))


def decode_all(decoder: Decoder, payloads: Sequence[bytes]) -> list[Picture | Damage]:
    items = [*decode(decoder, payloads), *decoder.finish()]
    decoder.close()
    return items


def grey(picture: Picture | Damage) -> int:
    """The number of the frame by what it shows."""
    assert isinstance(picture, Picture)
    assert picture.pixels.flags.c_contiguous
    return round((float(picture.pixels.mean()) - 16) / 4)


def test_packets_with_b_frames_come_out_in_order_with_their_own_ids() -> None:
    units = h264(30, B_FRAMES)
    numbers = [number for number, _ in units]
    assert numbers != sorted(numbers)  # there really are B-frames
    pictures = decode_all(H264Decoder(LIMIT, chunks=False), [unit for _, unit in units])
    assert [grey(p) for p in pictures] == list(range(30))
    assert [numbers[p.id] for p in pictures if isinstance(p.id, int)] == list(range(30))
    assert [p.timestamp for p in pictures if isinstance(p, Picture)] == [numbers.index(n) / 10 for n in range(30)]


def test_without_b_frames_each_packet_gives_its_picture_at_once() -> None:
    decoder = H264Decoder(LIMIT, chunks=False)
    for number, unit in h264(30, NO_DELAY):
        [picture] = decoder.decode(FrameHeader(id=number), memoryview(unit))
        assert (picture.id, grey(picture)) == (number, number)


@pytest.mark.parametrize("size", [1, 97, 100_000])
def test_chunks_of_any_size_give_all_pictures(size: int) -> None:
    stream = b"".join(unit for _, unit in h264(30, B_FRAMES))
    pictures = decode_all(H264Decoder(LIMIT, chunks=True), pieces(stream, size))
    assert [grey(p) for p in pictures] == list(range(30))


def test_in_chunks_a_picture_has_the_id_of_the_chunk_in_which_it_begins() -> None:
    pictures = decode_all(H264Decoder(LIMIT, chunks=True), [unit for _, unit in h264(30, NO_DELAY)])
    assert [p.id for p in pictures] == list(range(30))


@pytest.mark.parametrize("options", [B_FRAMES, NO_DELAY])
@pytest.mark.parametrize("size", [188, 1316, 100_000])
def test_mpegts_gives_all_pictures_with_the_containers_times(size: int, options: dict[str, str]) -> None:
    pictures = decode_all(MpegTsDecoder(LIMIT), pieces(mpegts(30, options), size))
    assert [grey(p) for p in pictures] == list(range(30))
    times = [p.timestamp for p in pictures if isinstance(p, Picture) and p.timestamp is not None]
    assert [round((t - times[0]) * 25) for t in times] == list(range(30))
    assert {p.id for p in pictures} == {None}


def test_mpegts_pictures_come_while_the_stream_goes_on() -> None:
    decoder = MpegTsDecoder(LIMIT)
    early = list(decode(decoder, pieces(mpegts(250, NO_DELAY), 1316)))
    decoder.close()
    assert len(early) >= 245


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_a_mpegts_decoder_ends_its_thread_wherever_it_is(taken: int) -> None:
    decoder = MpegTsDecoder(LIMIT)
    pictures = decoder.decode(FrameHeader(), memoryview(mpegts(30, B_FRAMES)))
    for _ in range(taken):
        next(pictures)
    decoder.close()
    decoder.close()
    assert "keywarp-mpegts" not in [thread.name for thread in threading.enumerate()]


def decoders(max_pixels: int = LIMIT) -> list[Decoder]:
    return [
        H264Decoder(max_pixels, chunks=False),
        H264Decoder(max_pixels, chunks=True),
        MpegTsDecoder(max_pixels),
    ]


@pytest.mark.parametrize("garbage", [b"a text file\n" * 500, bytes(20_000), b"\x47" + bytes(187)])
@pytest.mark.parametrize("kind", range(3))
def test_garbage_is_refused(kind: int, garbage: bytes) -> None:
    decoder = decoders()[kind]
    with pytest.raises(BadVideoError):
        decode_all(decoder, pieces(garbage, 1316))
    decoder.close()
    assert "keywarp-mpegts" not in [thread.name for thread in threading.enumerate()]


def test_frames_over_the_limit_are_refused() -> None:
    units = [unit for _, unit in h264(3, NO_DELAY)]
    for decoder, payloads in zip(decoders(128 * 64 - 1), (units, units, [mpegts(3, NO_DELAY)]), strict=True):
        with pytest.raises(BadVideoError, match="128x64"):
            decode_all(decoder, payloads)
        decoder.close()
    assert len(decode_all(H264Decoder(128 * 64, chunks=False), units)) == 3


def test_a_stream_without_anything_is_no_error() -> None:
    for decoder in decoders():
        assert decode_all(decoder, []) == []


def test_a_damaged_packet_is_reported_and_the_stream_goes_on() -> None:
    units = [unit for _, unit in h264(10, NO_DELAY)]
    units[5] = b"not a packet"
    items = decode_all(H264Decoder(LIMIT, chunks=False), units)
    assert [type(item) for item in items] == [Picture] * 5 + [Damage] + [Picture] * 4
    assert items[5].id == 5


def test_chunks_may_begin_in_the_middle_of_a_group_of_pictures() -> None:
    units = [unit for _, unit in h264(30, {"g": "10"} | NO_DELAY)]
    items = decode_all(H264Decoder(LIMIT, chunks=True), units[5:])
    assert [grey(item) for item in items] == list(range(10, 30))


def test_endless_damage_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PATIENCE", 3)
    units = [unit for _, unit in h264(1, NO_DELAY)]
    decoder = H264Decoder(LIMIT, chunks=False)
    items = decode(decoder, [*units, *[b"not a packet"] * 4])
    assert isinstance(next(items), Picture)
    assert [isinstance(next(items), Damage) for _ in range(3)] == [True] * 3
    with pytest.raises(BadVideoError, match="in a row"):
        next(items)


def test_an_endless_access_unit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_UNIT_BYTES", 10_000)
    with pytest.raises(BadVideoError, match="without a complete"):
        list(decode(H264Decoder(LIMIT, chunks=True), [b"text " * 200] * 11))


def test_an_empty_video_message_is_refused() -> None:
    for chunks in (False, True):
        with pytest.raises(BadVideoError, match="without content"):
            list(decode(H264Decoder(LIMIT, chunks=chunks), [b""]))
