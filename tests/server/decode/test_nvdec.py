"""Decoding on a GPU, tested without one: with a fake of NVIDIA's decoder, and compared with FFmpeg."""

import io
import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags

from keywarp.engines.backends.tensorrt import device_kernels
from keywarp.engines.backends.tensorrt.device_frames import DeviceFrames, KeptFrame
from keywarp.engines.backends.tensorrt.device_memory import DeviceMemory
from keywarp.engines.frames import DeviceFrame
from keywarp.protocol import Container, Hello, PacketCodec, Result
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import Decoded, DecodedFrame
from keywarp.server.decode.nvdec import CODECS, Nvdec, open_nvdec
from keywarp.server.decode.packets import PacketDecoder
from keywarp.server.decode.video import VideoDecoder, VideoOptions
from keywarp.server.errors import BadVideoError, DecoderError, FrameRefusedError
from keywarp.server.process import Server
from keywarp.server.settings import Settings
from keywarp.server.streams.hiding import Hidden
from keywarp.videos import MAX_FAILED_UNITS, left_out_note
from tests.engines.cuda.kernel_shim import KernelDriver, Library
from tests.server.conftest import Starter, eventually
from tests.server.decode.decoding import LIMIT, decode, decode_all, grey
from tests.server.decode.fake_nvdec import (
    Codec,
    FakePyNvVideoCodec,
    Latency,
    PyNvVCException,
    PyNvVCExceptionUnsupported,
)
from tests.server.media import B_FRAMES, FRAGMENTED, NO_DELAY, encode, h264, moving, mpegts, packets, pieces, plain
from tests.server.source_server import SourceServer, file
from tests.videos import films


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakePyNvVideoCodec:
    fake = FakePyNvVideoCodec()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", fake)
    return fake


@pytest.fixture
def nvdec(fake: FakePyNvVideoCodec) -> Nvdec:  # noqa: ARG001
    return open_nvdec()


def same(ours: Sequence[Decoded], theirs: Sequence[Decoded]) -> bool:
    return len(ours) == len(theirs) and all(
        isinstance(a, DecodedFrame)
        and isinstance(b, DecodedFrame)
        and (a.id, a.timestamp) == (b.id, b.timestamp)
        and np.array_equal(a.pixels, b.pixels)
        and np.asarray(a.pixels).flags.c_contiguous
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("codec", CODECS)
def test_packets_give_the_same_frames_as_on_the_processor(
    codec: PacketCodec, nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    units = [unit for _, unit in packets(codec, 30)]
    frames = decode_all(PacketDecoder(codec, VideoOptions(LIMIT, nvdec)), units)
    assert same(frames, decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), units))
    assert [decoder.calls for decoder in fake.decoders] == [31]  # 30 units and the end


@pytest.mark.parametrize("size", [97, 100_000])
def test_byte_streams_give_the_same_frames_as_on_the_processor(
    size: int, nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    stream = pieces(b"".join(unit for _, unit in h264(30, B_FRAMES)), size)
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec), chunks=True), stream)
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT), chunks=True), stream))
    assert len(frames) == 30
    assert fake.decoders


@pytest.mark.parametrize(
    ("container", "form", "encoder", "muxing"),
    [
        ("mpegts", "mpegts", "libx264", {}),
        ("mp4", "mp4", "libx264", FRAGMENTED),  # units without start codes, parameter sets apart
        ("mp4", "mp4", "libx265", FRAGMENTED),
        ("mp4", "mp4", "libsvtav1", FRAGMENTED),
        ("webm", "matroska", "libx264", {}),
        ("webm", "webm", "libsvtav1", {}),
    ],
)
def test_containers_give_the_same_frames_as_on_the_processor(
    container: Container, form: str, encoder: str, muxing: dict[str, str], nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    options = {"libx264": B_FRAMES, "libx265": {"x265-params": "log-level=error"}, "libsvtav1": {"preset": "12"}}
    stream = pieces(encode(moving(30), form, options[encoder], encoder, muxing)[0], 5000)
    frames = decode_all(ContainerDecoder(container, VideoOptions(LIMIT, nvdec)), stream)
    assert same(frames, decode_all(ContainerDecoder(container, VideoOptions(LIMIT)), stream))
    assert [grey(frame) for frame in frames] == list(range(30))
    assert [decoder.calls for decoder in fake.decoders] == [31]


def test_parameter_sets_may_come_separately_as_in_the_sdp_of_a_camera(nvdec: Nvdec, fake: FakePyNvVideoCodec) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream: Any = container.add_stream("libx264", rate=25, options=NO_DELAY)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        stream.codec_context.flags |= Flags.global_header
        for pixels in [*moving(30), None]:
            shown = None if pixels is None else av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(shown))
    with av.open(io.BytesIO(file.getvalue()), "r") as container:
        items = [*VideoDecoder(VideoOptions(LIMIT, nvdec)).decode_container(container, "a video")]
    assert [grey(item) for item in items] == list(range(30))
    assert [decoder.calls for decoder in fake.decoders] == [31]


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_other_codecs_are_decoded_on_the_processor(codec: PacketCodec, nvdec: Nvdec, fake: FakePyNvVideoCodec) -> None:
    frames = decode_all(PacketDecoder(codec, VideoOptions(LIMIT, nvdec)), [unit for _, unit in packets(codec, 10)])
    assert [grey(frame) for frame in frames] == list(range(10))
    assert fake.decoders == []


def test_without_b_frames_each_packet_gives_its_frame_at_once(nvdec: Nvdec, fake: FakePyNvVideoCodec) -> None:
    decoder = PacketDecoder("h264", VideoOptions(LIMIT, nvdec))
    for number, unit in h264(30, NO_DELAY):
        [frame] = decode(decoder, [unit], number)
        assert (frame.id, grey(frame)) == (number, number)
    assert fake.decoders[0].latency is Latency.LOW


def test_frames_are_not_overwritten_while_more_are_decoded(nvdec: Nvdec) -> None:
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), [unit for _, unit in h264(30, NO_DELAY)])
    assert [grey(frame) for frame in frames] == list(range(30))  # their memory is overwritten by now


def sized(*sizes: tuple[int, int], pix_fmt: str = "yuv420p") -> list[bytes]:
    """Encode three H.264 units of each size."""
    units: list[bytes] = []
    for width, height in sizes:
        with av.open(io.BytesIO(), "w", format="h264") as container:
            stream: Any = container.add_stream("libx264", rate=25, options=B_FRAMES)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            frame = av.VideoFrame.from_ndarray(plain(width=width, height=height), format="rgb24")
            units += [bytes(packet) for shown in (frame, frame, frame, None) for packet in stream.encode(shown)]
    return units


@pytest.mark.parametrize("sizes", [[(128, 64), (320, 180)], [(320, 180), (128, 64)], [(64, 128), (128, 64), (64, 128)]])
def test_a_video_may_change_its_size(sizes: list[tuple[int, int]], nvdec: Nvdec, fake: FakePyNvVideoCodec) -> None:
    units = sized(*sizes)
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units)
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units))
    assert [p.pixels.shape[1::-1] for p in frames if isinstance(p, DecodedFrame)] == [
        s for s in sizes for _ in range(3)
    ]
    assert len(fake.decoders) == len(sizes)


def test_frames_keep_an_odd_width(nvdec: Nvdec) -> None:
    units = sized((127, 63), pix_fmt="yuv444p")
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units)
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units))
    assert isinstance(frames[0], DecodedFrame)
    assert frames[0].pixels.shape == (63, 127, 3)


@pytest.mark.parametrize("codec", CODECS)
def test_frames_over_the_limit_are_refused_before_the_gpu_receives_them(
    codec: PacketCodec, nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    units = [unit for _, unit in packets(codec, 3)]
    with pytest.raises(BadVideoError, match="128x64"):
        decode_all(PacketDecoder(codec, VideoOptions(128 * 64 - 1, nvdec)), units)
    assert fake.decoders == []
    assert len(decode_all(PacketDecoder(codec, VideoOptions(128 * 64, nvdec)), units)) == 3


def test_a_video_that_grows_over_the_limit_is_refused(nvdec: Nvdec, fake: FakePyNvVideoCodec) -> None:
    items = decode(PacketDecoder("h264", VideoOptions(128 * 64, nvdec)), sized((128, 64), (320, 180)))
    assert [isinstance(next(items), DecodedFrame) for _ in range(3)] == [True] * 3
    with pytest.raises(BadVideoError, match="320x180"):
        next(items)
    assert len(fake.decoders) == 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("garbage", [b"a text file\n" * 500, bytes(20_000), b"\x47" + bytes(187)])
def test_garbage_is_refused(codec: PacketCodec, garbage: bytes, nvdec: Nvdec) -> None:
    with pytest.raises(BadVideoError):
        decode_all(PacketDecoder(codec, VideoOptions(LIMIT, nvdec)), pieces(garbage, 1316))


def test_a_damaged_packet_is_reported_and_the_stream_continues(nvdec: Nvdec) -> None:
    units = [unit for _, unit in h264(40, NO_DELAY)]
    units[5] = units[35] = b"not a packet"  # which the hardware ignores without an error
    items = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units)
    assert [item.id for item in items if isinstance(item, FrameRefusedError)] == [5, 35]
    assert sorted(item.id for item in items if isinstance(item.id, int)) == list(range(40))


def test_sixteen_b_frames_in_a_row_are_no_loss(nvdec: Nvdec) -> None:
    units = h264(60, {"bf": "16", "g": "60", "x264-params": "b-adapt=0:scenecut=0"})
    assert [number for number, _ in units[:3]] == [0, 17, 8]
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), [unit for _, unit in units])
    assert [grey(frame) for frame in frames] == list(range(60))


@pytest.mark.parametrize("options", [{"flags": "+ildct+ilme", "x264-params": "tff=1"}, {"color_trc": "smpte2084"}])
def test_interlaced_and_hdr_video_is_said_to_be(options: dict[str, str], nvdec: Nvdec) -> None:
    units = [unit for _, unit in h264(100, NO_DELAY | options)]
    notes: list[str] = []
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units, notes)
    software: list[str] = []
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units, software))
    assert len(notes) == 1
    assert notes == software


def test_endless_damage_is_refused(nvdec: Nvdec) -> None:
    units = [unit for _, unit in h264(1, NO_DELAY)]
    with pytest.raises(BadVideoError, match="in a row"):
        list(
            decode(
                PacketDecoder("h264", VideoOptions(LIMIT, nvdec)),
                [*units, *[b"not a packet"] * (MAX_FAILED_UNITS + 40)],
            )
        )


def test_chunks_may_start_in_the_middle_of_a_group_of_pictures(nvdec: Nvdec) -> None:
    units = [unit for _, unit in h264(30, {"g": "10"} | NO_DELAY)]
    notes: list[str] = []
    items = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec), chunks=True), units[5:], notes)
    assert [grey(item) for item in items] == list(range(10, 30))
    assert notes == [left_out_note(5).text]


def test_after_a_failure_of_the_gpu_decoding_continues_at_the_next_key_frame(
    nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    fake.failing = [None] * 5 + [PyNvVCException("an illegal memory access was encountered")]
    units = [unit for _, unit in h264(30, {"g": "10"} | NO_DELAY)]
    items = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units)
    assert [item.id for item in items] == list(range(30))
    assert [item.id for item in items if isinstance(item, FrameRefusedError)] == list(range(5, 10))
    assert [grey(item) for item in items if isinstance(item, DecodedFrame)] == [*range(5), *range(10, 30)]
    assert len(fake.decoders) == 2


def test_a_video_that_the_gpu_does_not_support_is_decoded_on_the_processor(
    nvdec: Nvdec, fake: FakePyNvVideoCodec, caplog: pytest.LogCaptureFixture
) -> None:
    message = (
        "HandleVideoSequence : \nError code : 801\nError Type : Codec not supported on this GPU\nat NvDecoder.cpp:274\n"
    )
    fake.failing = [PyNvVCExceptionUnsupported(message)]
    units = [unit for _, unit in h264(30, B_FRAMES)]
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec)), units)
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units))
    assert [decoder.calls for decoder in fake.decoders] == [1]
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "a video in h264 is decoded by the processor, not the GPU: Codec not supported on this GPU"


def test_a_container_that_the_gpu_does_not_support_is_decoded_on_the_processor(
    nvdec: Nvdec, fake: FakePyNvVideoCodec
) -> None:
    fake.failing = [PyNvVCExceptionUnsupported("Codec not supported on this GPU")]
    stream = pieces(encode(moving(30), "mp4", B_FRAMES, muxing=FRAGMENTED)[0], 5000)
    frames = decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT, nvdec)), stream)
    assert same(frames, decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT)), stream))


def test_codecs_that_the_gpu_lacks_are_decoded_on_the_processor(
    fake: FakePyNvVideoCodec, caplog: pytest.LogCaptureFixture
) -> None:
    fake.supported.remove(Codec.AV1)
    assert open_nvdec().codecs == {"h264", "hevc"}
    assert "the GPU doesn't decode av1: the processor does" in caplog.messages


def test_a_gpu_that_decodes_nothing_is_refused(fake: FakePyNvVideoCodec) -> None:
    fake.supported.clear()
    with pytest.raises(DecoderError, match="decodes none of h264, hevc, av1"):
        open_nvdec()


def test_a_driver_without_a_decoder_is_refused(fake: FakePyNvVideoCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("Failed to open dynamic library: cuvid: libnvcuvid.so.1\nCould not dynamically load")

    monkeypatch.setattr(fake, "GetDecoderCaps", fail)
    with pytest.raises(DecoderError, match=r"can't be used: Failed .* libnvcuvid\.so\.1 \(is NVIDIA's driver"):
        open_nvdec()


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    with pytest.raises(DecoderError, match=r"needs PyNvVideoCodec: install the extra `nvdec` \(README, Install\)"):
        open_nvdec()


def test_a_server_decodes_connections_uploads_and_pulls_on_the_gpu(start: Starter, fake: FakePyNvVideoCodec) -> None:
    server = start(decoder="nvdec", allow_pull=("127.0.0.1",))
    with server.connect("sent", Hello(codec="h264")) as conversation:
        for number, unit in h264(20, NO_DELAY):
            conversation.frame(unit, number)
            assert conversation.result().id == number  # a client that waits for each result gets it
    assert [decoder.calls for decoder in fake.decoders] == [20]
    clip = mpegts(20, B_FRAMES)
    answer = server.http.post("/v1/videos", content=clip, headers={"content-type": "video/mp2t"})
    assert len(answer.text.splitlines()) == 20 + 1
    assert [decoder.calls for decoder in fake.decoders] == [20, 21]
    with SourceServer() as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        web.responders["/clip.ts"] = file(clip)
        server.http.post("/v1/streams", json={"id": "pulled", "source": f"{web.address}/clip.ts"})
        eventually(lambda: server.http.get("/v1/streams/pulled").json()["state"] == "ended")
        web.shutdown()
    assert [decoder.calls for decoder in fake.decoders] == [20, 21, 21]


def test_a_server_that_decodes_on_the_processor_never_imports_the_package(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)  # whose import would fail
    with start().connect("sent", Hello(codec="h264")) as conversation:
        [(_, unit), *_] = h264(1, NO_DELAY)
        conversation.frame(unit)
        assert isinstance(conversation.result(), Result)


def test_a_server_without_the_gpu_that_it_is_told_to_use_refuses_to_start(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    with pytest.raises(DecoderError, match="extra `nvdec`"):
        Server(Settings(models=models, decoder="nvdec"))
    Server(Settings(models=models, decoder="nvdec", cpu_fallback=True))
    assert "(README, Install): the processor decodes" in caplog.text


@pytest.mark.parametrize("upright", [True, False])
def test_frames_of_the_gpu_are_turned_upright_like_those_of_the_processor(nvdec: Nvdec, upright: bool) -> None:
    turned = films.film(turn=90, muxing=films.FASTSTART, options=films.B_FRAMES)
    frames = decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT, nvdec, upright=upright)), [turned])
    assert same(frames, decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT, upright=upright)), [turned]))
    shapes = {frame.pixels.shape for frame in frames if isinstance(frame, DecodedFrame)}
    assert shapes == ({(64, 48, 3)} if upright else {(48, 64, 3)})


def test_what_an_edit_list_hides_is_no_frame_of_the_gpu_either(nvdec: Nvdec) -> None:
    edited = films.copied(films.film(gop=50), "mp4", 8)
    frames = decode_all(ContainerDecoder("mp4", VideoOptions(LIMIT, nvdec)), [edited])
    assert [films.number_of(np.asarray(f.pixels)) for f in frames if isinstance(f, DecodedFrame)] == list(range(8, 24))


@pytest.fixture
def store(fake: FakePyNvVideoCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceFrames:
    """A store of frames on a fake device, to which the fake decoder writes."""
    monkeypatch.setattr(device_kernels, "compile_kernels", lambda *_: b"")
    driver = fake.driver = KernelDriver(Library(tmp_path, "images"))
    return DeviceFrames(driver, DeviceMemory(driver), (8, 6), 0)


@pytest.mark.parametrize("codec", CODECS)
def test_frames_that_stay_on_the_gpu_are_those_of_the_processor(
    codec: PacketCodec, nvdec: Nvdec, store: DeviceFrames
) -> None:
    units = [unit for _, unit in packets(codec, 12)]
    frames = decode_all(PacketDecoder(codec, VideoOptions(LIMIT, nvdec, store)), units)
    assert all(isinstance(frame, DecodedFrame) and isinstance(frame.pixels, DeviceFrame) for frame in frames)
    assert same(frames, decode_all(PacketDecoder(codec, VideoOptions(LIMIT)), units))


def test_frames_for_another_gpu_or_that_must_be_turned_come_to_the_host(nvdec: Nvdec, store: DeviceFrames) -> None:
    units = [unit for _, unit in packets("h264", 6)]
    turned = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec, store, orientation=6)), units)
    assert same(turned, decode_all(PacketDecoder("h264", VideoOptions(LIMIT, orientation=6)), units))
    store.gpu = 1
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec, store)), units)
    assert all(isinstance(frame, DecodedFrame) and isinstance(frame.pixels, np.ndarray) for frame in frames)
    assert same(frames, decode_all(PacketDecoder("h264", VideoOptions(LIMIT)), units))


def test_frames_come_to_the_host_from_the_next_key_frame_on_if_the_gpu_is_full(
    nvdec: Nvdec, fake: FakePyNvVideoCodec, store: DeviceFrames, caplog: pytest.LogCaptureFixture
) -> None:
    units = [unit for _, unit in encode(moving(20), "h264", {**NO_DELAY, "g": "10"})[1]]
    assert fake.driver
    fake.driver.capacity = 7 * moving(1)[0].nbytes // 2  # two frames of the decoder's, and one that is kept
    frames = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec, store)), units)
    assert len(frames) == 20
    places = [type(frame.pixels) if isinstance(frame, DecodedFrame) else None for frame in frames]
    assert places == [KeptFrame, *[None] * 9, *[np.ndarray] * 10]
    fake.driver.synchronize(store.stream)
    assert "frames stay no longer on the GPU: the GPU is full" in caplog.text


def test_regions_of_frames_on_the_gpu_are_hidden_before_anything_sees_them(nvdec: Nvdec, store: DeviceFrames) -> None:
    units = [unit for _, unit in packets("h264", 2)]
    [frame, _] = decode_all(PacketDecoder("h264", VideoOptions(LIMIT, nvdec, store)), units)
    assert isinstance(frame, DecodedFrame)
    region = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    assert not np.asarray(Hidden([region]).cover(frame.pixels)).any()
    assert np.asarray(frame.pixels).any()
    assert Hidden([]).cover(frame.pixels) is frame.pixels
