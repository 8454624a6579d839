"""Decoding on hardware that FFmpeg drives. There is none here: FFmpeg's software decoder is its stand-in."""

import logging
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext

from keywarp.protocol import FrameHeader
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.hwaccel import Hardware, Hwaccel, open_hwaccel
from keywarp.server.decode.packets import PacketDecoder
from keywarp.server.decode.video import VideoOptions
from keywarp.server.errors import DecoderError
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from tests.server.media import packets

PIXELS = 10**6
HEADER = FrameHeader()


class StandIn:
    """Stands in for an Intel GPU: opens FFmpeg's software decoders, for H.264 only, and notes what was asked for."""

    def __init__(self, decoder: str = "h264") -> None:
        self.asked: list[str] = []
        self._decoder = decoder  # that frames are decoded with

    def open(self, kind: Hardware, decoder: str) -> VideoCodecContext:
        self.asked.append(f"{kind} {decoder}")
        if not decoder.startswith("h264"):
            raise NotImplementedError("no such thing")
        return cast("VideoCodecContext", av.CodecContext.create(self._decoder, "r"))


def decode(codec: str, options: VideoOptions, count: int = 5) -> list[DecodedFrame]:
    decoder = PacketDecoder(codec, options)  # type: ignore[arg-type]
    found = [
        item
        for _, packet in packets(codec, count)  # type: ignore[arg-type]
        for item in decoder.decode(HEADER, memoryview(packet))
    ]
    found += decoder.finish()
    decoder.close()
    return [item for item in found if isinstance(item, DecodedFrame)]


@pytest.mark.parametrize(("kind", "decoder"), [("vaapi", "h264"), ("qsv", "h264_qsv")])
def test_frames_come_from_the_hardware_as_from_the_processor(kind: Hardware, decoder: str) -> None:
    gpu = StandIn()
    found = decode("h264", VideoOptions(PIXELS, hwaccel=Hwaccel(kind, gpu.open)))
    expected = decode("h264", VideoOptions(PIXELS))
    assert set(gpu.asked) == {f"{kind} {decoder}"}
    assert len(found) == len(expected) == 5
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_codec_that_the_hardware_lacks_is_decoded_by_the_processor_which_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    gpu = StandIn()
    options = VideoOptions(PIXELS, hwaccel=Hwaccel("vaapi", gpu.open))
    assert len(decode("vp8", options)) == len(decode("vp8", options)) == 5
    assert gpu.asked == ["vaapi vp8"]
    assert caplog.messages == ["the processor decodes vp8, not vaapi: no such thing"]


def test_a_video_that_the_hardware_fails_on_goes_on_with_the_processor(caplog: pytest.LogCaptureFixture) -> None:
    gpu = StandIn(decoder="vp8")  # which fails on H.264
    assert len(decode("h264", VideoOptions(PIXELS, hwaccel=Hwaccel("qsv", gpu.open)))) == 5
    assert "a video is decoded by the processor, because qsv failed on it" in caplog.messages


def test_motion_vectors_are_wanted_from_the_processor() -> None:
    gpu = StandIn()
    decode("h264", VideoOptions(PIXELS, hwaccel=Hwaccel("vaapi", gpu.open), vectors=True))
    assert gpu.asked == []


def test_hardware_that_is_not_there_is_an_error_unless_the_processor_may_do_it(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DecoderError, match="qsv can't decode video: no such thing"):
        open_hwaccel("qsv", lambda _, __: StandIn().open("qsv", "none"))
    with pytest.raises(DecoderError, match="can't decode video"):
        Service(Settings(models=models, decoder="vaapi"))
    caplog.set_level(logging.INFO)
    service = Service(Settings(models=models, decoder="auto"))
    assert (service.nvdec, service.hwaccel) == (None, None)
    assert "the processor decodes video" in caplog.messages
    service.events.abandon()
