"""Clips are cut from a video's own packets."""

import io
from collections.abc import Callable

import av
import numpy as np
import pytest

from keywarp.server.decode import recorder as module
from keywarp.server.decode.recorder import Recorder
from tests.server.media import encode, moving

FPS, GROUP = 25, 10  # frames


def record(recorder: Recorder, moments: tuple[int, ...], done: Callable[[bytes], object], frames: int = 150) -> None:
    """Decode a video, and ask for clips after the given packets."""
    video = encode(moving(frames), "mpegts", {"bf": "0", "g": str(GROUP), "sc_threshold": "0"})[0]
    with av.open(io.BytesIO(video), "r") as container:
        stream = container.streams.video[0]
        with recorder.recording(stream) as keep:
            for number, packet in enumerate(container.demux(stream)):
                if packet.size:
                    keep(packet)
                if number in moments:
                    assert recorder.request(done)


def pictures(clip: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(clip), "r") as container:
        assert container.streams.video[0].codec_context.name == "h264"
        frames = [*container.decode(video=0)]
    assert frames[0].pts == 0
    return [frame.to_ndarray(format="gray") for frame in frames]


def test_a_clip_begins_at_the_key_frame_before_its_start_and_ends_in_time() -> None:
    clips: list[bytes] = []
    record(Recorder(before=1.0, after=2.0), (63,), clips.append)
    [clip] = clips
    found = pictures(clip)
    assert len(found) == 113 - 30 + 1  # from the key frame 30 before 63 - 25, to 63 + 50
    expected = moving(150)[30]
    assert np.abs(found[0].astype(int) - expected.mean(axis=2)).mean() < 12, "it shows what was there"


def test_a_clip_that_the_source_breaks_off_is_as_long_as_it_could_be() -> None:
    clips: list[bytes] = []
    record(Recorder(before=1.0, after=60.0), (100, 140), clips.append)
    assert [len(pictures(clip)) for clip in clips] == [150 - 70, 150 - 110]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 3000)
    clips: list[bytes] = []
    record(Recorder(before=60.0, after=0.1), (140,), clips.append)
    [clip] = clips
    assert len(clip) < 3 * 3000
    assert len(pictures(clip)) < 100


def test_nothing_is_promised_while_nothing_is_recorded() -> None:
    assert not Recorder(1.0, 1.0).request(lambda _: None)


def test_an_event_gets_no_clip_while_as_many_as_fit_are_waiting() -> None:
    clips: list[bytes] = []
    recorder = Recorder(before=0.1, after=60.0)
    with pytest.raises(AssertionError):  # `record` asserts that a clip is promised
        record(recorder, tuple(range(50, 50 + module.MAX_REQUESTS + 1)), clips.append)
    assert len(clips) == module.MAX_REQUESTS
