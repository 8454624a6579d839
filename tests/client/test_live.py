import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from keywarp.client import Client, Frame, Source, SourceError, open_source
from keywarp.client.images import encode_jpeg
from keywarp.client.live import NewestFrames
from tests.client.media import grey_level, picture, write_video
from tests.client.scripted import Peer, ScriptedApi, ScriptedPeer


class Camera(Source):
    """A source that gives some frames at once, and the others when a test allows it."""

    fps, count, width, height, live = 25.0, None, 64, 48, True

    def __init__(self, at_once: int, later: int = 0, error: Exception | None = None) -> None:
        self.waiting = threading.Event()  # set when all frames that come at once were taken
        self.go_on = threading.Event()
        self._at_once = at_once
        self._later = later
        self._error = error

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._at_once + self._later):
            if index == self._at_once:
                self.waiting.set()
                self.go_on.wait()
            yield Frame(picture(grey_level(index)), index / 25)
        self.waiting.set()
        if self._error:
            raise self._error


def test_the_newest_frame_is_given_and_replaced_ones_are_counted() -> None:
    camera = Camera(at_once=5, later=1)
    with NewestFrames(camera) as newest:
        camera.waiting.wait()
        frames = iter(newest)
        assert next(frames).timestamp == 4 / 25
        assert newest.unsent == 4
        camera.go_on.set()
        assert next(frames).timestamp == 5 / 25
        assert next(frames, None) is None
        assert newest.unsent == 4
        assert (newest.width, newest.height, newest.fps) == (64, 48, 25.0)


def test_an_error_of_the_source_comes_after_its_last_frame() -> None:
    camera = Camera(at_once=2, error=SourceError("the camera was unplugged"))
    with NewestFrames(camera) as newest:
        camera.waiting.wait()
        frames = iter(newest)
        assert next(frames).timestamp == 1 / 25
        with pytest.raises(SourceError, match="unplugged"):
            next(frames)


def test_closing_ends_the_thread_that_reads() -> None:
    camera = Camera(at_once=1, later=1000)
    newest = NewestFrames(camera)
    camera.waiting.wait()
    camera.go_on.set()
    newest.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "keywarp-capture"]


def test_old_frames_of_a_camera_are_never_sent_in_the_mode_latest() -> None:
    camera = Camera(at_once=30, later=1)

    def script(peer: Peer) -> None:
        peer.greet()
        count = 0
        while (taken := peer.take()) is not None:
            peer.answer(count, taken[0])
            count += 1
            camera.go_on.set()
        peer.finish(count)

    with (
        ScriptedPeer(script) as server,
        Client(server.address) as client,
        client.stream(camera, mode="latest") as results,
    ):
        camera.waiting.wait()
        first, second = results
        assert first.image is not None
        np.testing.assert_array_equal(first.image, picture(grey_level(29)))
        assert (first.frame, second.frame) == (0, 1)
        assert results.unsent == 29
    assert not [thread for thread in threading.enumerate() if thread.name == "keywarp-capture"]


def test_other_modes_and_sources_give_every_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4")
    with ScriptedPeer() as server, Client(server.address) as client:
        with client.stream(Camera(at_once=9)) as lossless:
            assert len(list(lossless)) == 9
        with client.stream(video, mode="latest") as of_file:
            assert len(list(of_file)) == 20
            assert of_file.unsent == 0


def test_a_file_is_not_live_even_on_a_web_server(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", options={"movflags": "+faststart"})
    with open_source(video) as here:
        assert not here.live
    with ScriptedApi(200, video.read_bytes(), "video/mp4") as web, open_source(f"{web.address}/video.mp4") as there:
        assert not there.live


def test_a_url_without_an_end_is_live() -> None:
    pictures = b"".join(encode_jpeg(picture(grey_level(index)), 90) for index in range(30))
    with ScriptedApi(200, pictures, "image/jpeg") as web, open_source(f"{web.address}/camera.mjpeg") as source:
        assert source.live


def test_a_gap_before_a_frame_that_was_replaced_is_a_gap_before_the_next() -> None:
    class Damaged(Camera):
        def __iter__(self) -> Iterator[Frame]:
            yield Frame(picture(1), None)
            read.wait(10)
            yield Frame(picture(2), None, gap=True)
            yield Frame(picture(3), None)
            replaced.set()

    read, replaced = threading.Event(), threading.Event()
    with NewestFrames(Damaged(3)) as newest:
        frames = iter(newest)
        assert not next(frames).gap
        read.set()
        assert replaced.wait(10)
        assert next(frames).gap
