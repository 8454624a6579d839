import pytest

from keywarp.protocol import PacketCodec
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.packets import MAX_UNIT_BYTES, PacketDecoder
from keywarp.server.decode.video import VideoOptions
from keywarp.server.errors import BadVideoError, DamagedVideoError, FrameRefusedError
from keywarp.videos import MAX_FAILED_UNITS, left_out_note
from tests.server.decode.decoding import LIMIT, decode, decode_all, grey
from tests.server.media import B_FRAMES, ENCODERS, NO_DELAY, h264, mpegts, packets, pieces

CODECS = [*ENCODERS]


@pytest.mark.parametrize("codec", CODECS)
def test_packets_give_frames_in_order_with_their_own_ids(codec: PacketCodec) -> None:
    units = packets(codec, 30)
    frames = decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), [unit for _, unit in units])
    assert [grey(p) for p in frames] == list(range(30))
    assert [units[p.id][0] for p in frames if isinstance(p.id, int)] == list(range(30))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("garbage", [b"a text file\n" * 500, bytes(20_000), b"\x47" + bytes(187)])
def test_garbage_is_refused(codec: PacketCodec, garbage: bytes) -> None:
    with pytest.raises(BadVideoError):
        decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), pieces(garbage, 1316))


@pytest.mark.parametrize("garbage", [b"a text file\n" * 500, bytes(20_000)])
def test_a_byte_stream_of_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(BadVideoError):
        decode_all(PacketDecoder("h264", VideoOptions(LIMIT), chunks=True), pieces(garbage, 1316))


@pytest.mark.parametrize("codec", CODECS)
def test_frames_over_the_limit_are_refused(codec: PacketCodec) -> None:
    units = [unit for _, unit in packets(codec, 3)]
    with pytest.raises(BadVideoError, match=r"128x64|at most 8191 pixels"):
        decode_all(PacketDecoder(codec, VideoOptions(128 * 64 - 1)), units)
    assert len(decode_all(PacketDecoder(codec, VideoOptions(128 * 64)), units)) == 3


@pytest.mark.parametrize("codec", CODECS)
def test_an_empty_stream_is_no_error(codec: PacketCodec) -> None:
    assert decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), []) == []


def test_packets_with_b_frames_give_frames_in_order_with_their_own_ids() -> None:
    units = h264(30, B_FRAMES)
    numbers = [number for number, _ in units]
    assert numbers != sorted(numbers)  # there really are B-frames
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), [unit for _, unit in units])
    assert [grey(p) for p in frames] == list(range(30))
    assert [numbers[p.id] for p in frames if isinstance(p.id, int)] == list(range(30))
    assert [p.timestamp for p in frames if isinstance(p, DecodedFrame)] == [numbers.index(n) / 10 for n in range(30)]


def test_without_b_frames_each_packet_gives_its_frame_at_once() -> None:
    decoder = PacketDecoder("h264", VideoOptions(LIMIT))
    for number, unit in h264(30, NO_DELAY):
        [frame] = decode(decoder, [unit], number)
        assert (frame.id, grey(frame)) == (number, number)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("size", [1, 97, 100_000])
def test_chunks_of_any_size_give_all_frames(codec: PacketCodec, size: int) -> None:
    stream = b"".join(unit for _, unit in packets(codec, 30))
    frames = decode_all(PacketDecoder(codec, VideoOptions(LIMIT), chunks=True), pieces(stream, size))
    assert [grey(p) for p in frames] == list(range(30))


def test_a_frame_has_the_id_of_the_chunk_in_which_it_begins() -> None:
    frames = decode_all(
        PacketDecoder("h264", VideoOptions(LIMIT), chunks=True), [unit for _, unit in h264(30, NO_DELAY)]
    )
    assert [p.id for p in frames] == list(range(30))


def test_a_damaged_packet_is_reported_and_the_stream_continues() -> None:
    units = [unit for _, unit in h264(10, NO_DELAY)]
    units[5] = b"not a packet"
    items = decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units)
    assert [type(item) for item in items] == [DecodedFrame] * 5 + [DamagedVideoError] + [DecodedFrame] * 4
    assert items[5].id == 5


def test_chunks_may_start_in_the_middle_of_a_group_of_pictures() -> None:
    units = [unit for _, unit in h264(30, {"g": "10"} | NO_DELAY)]
    notes: list[str] = []
    items = decode_all(PacketDecoder("h264", VideoOptions(LIMIT), chunks=True), units[5:], notes)
    assert [grey(item) for item in items] == list(range(10, 30))
    assert notes == [left_out_note(5).text]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"flags": "+ildct+ilme", "x264-params": "tff=1:bframes=0"}, "it is interlaced"),
        ({"color_trc": "smpte2084"}, "it is HDR (PQ)"),
        ({"color_trc": "arib-std-b67"}, "it is HDR (HLG)"),
    ],
)
@pytest.mark.parametrize("chunks", [False, True])
def test_bare_packets_have_the_same_notes_as_containers(options: dict[str, str], said: str, chunks: bool) -> None:
    units = [unit for _, unit in h264(5, NO_DELAY | options)]
    notes: list[str] = []
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT), chunks=chunks), units, notes)
    assert [grey(frame) for frame in frames] == list(range(5))
    in_container: list[str] = []
    decode_all(ContainerDecoder("mpegts", VideoOptions(LIMIT)), [mpegts(5, NO_DELAY | options)], in_container)
    assert notes == in_container
    assert len(notes) == 1
    assert notes[0].startswith(said)


def test_endless_damage_is_refused() -> None:
    units = [unit for _, unit in h264(1, NO_DELAY)]
    decoder = PacketDecoder("h264", VideoOptions(LIMIT))
    items = decode(decoder, [*units, *[b"not a packet"] * (MAX_FAILED_UNITS + 1)])
    assert isinstance(next(items), DecodedFrame)
    assert [isinstance(next(items), FrameRefusedError) for _ in range(MAX_FAILED_UNITS)] == [True] * MAX_FAILED_UNITS
    with pytest.raises(BadVideoError, match="in a row"):
        next(items)


def test_an_endless_access_unit_is_refused() -> None:
    with pytest.raises(BadVideoError, match="without a complete"):
        list(decode(PacketDecoder("h264", VideoOptions(LIMIT), chunks=True), [b"text " * (MAX_UNIT_BYTES // 50)] * 11))


def test_an_empty_video_message_is_refused() -> None:
    for chunks in (False, True):
        with pytest.raises(BadVideoError, match="without content"):
            list(decode(PacketDecoder("h264", VideoOptions(LIMIT), chunks=chunks), [b""]))


@pytest.mark.parametrize("codec", CODECS)
def test_motion_vectors_come_with_the_frames_of_h264_if_they_are_asked_for(codec: PacketCodec) -> None:
    units = [unit for _, unit in packets(codec, 6)]
    frames = [
        f
        for f in decode_all(PacketDecoder(codec, VideoOptions(LIMIT, vectors=True)), units)
        if isinstance(f, DecodedFrame)
    ]
    assert len(frames) == 6
    pictures = [frame.vectors.picture if frame.vectors else None for frame in frames]
    if codec == "h264":
        assert pictures[0] == "I"
        assert set(pictures[1:]) == {"P", "B"}
        assert all(frame.vectors is not None and len(frame.vectors.corners) for frame in frames[1:])
    else:
        assert pictures == [None] * 6
    unasked = decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), units)
    assert all(isinstance(frame, DecodedFrame) and frame.vectors is None for frame in unasked)
