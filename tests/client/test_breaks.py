"""Broken connections between both clients and a real server."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from keywarp.client import (
    ApiError,
    Client,
    ConnectError,
    ModelNotFoundError,
    ProcessedFrame,
    Reconnect,
    ResumeError,
    StreamGoneError,
    UnavailableError,
)
from keywarp.protocol import CloseCode, Codec, Error, Problem
from tests.client.media import grey_level, picture, write_video
from tests.client.proxy import CuttingProxy
from tests.client.scripted import Peer, ScriptedApi, ScriptedPeer, answer_all
from tests.client.twins import Twin
from tests.server.conftest import Running, eventually, running
from tests.tiny_bundle import tiny_bundle

SOON = Reconnect(seconds=30, first=0.01, longest=0.1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Running]:
    server = running(models)
    server.start()
    yield server
    server.stop()


def frames(count: int) -> list[NDArray[np.uint8]]:
    return [picture(grey_level(index)) for index in range(count)]


def at(frame: int, act: Callable[[], None]) -> Callable[[ProcessedFrame], None]:
    """Return a callback that acts once, at one result."""
    left = [act]

    def watch(result: ProcessedFrame) -> None:
        if result.frame == frame and left:
            left.pop()()

    return watch


def check(results: list[ProcessedFrame], count: int) -> None:
    """Check that each frame was answered once, in order, and has its own image."""
    assert [r.frame for r in results] == list(range(count))
    for index, result in enumerate(results):
        if result.image is not None:
            assert abs(float(result.image.mean()) - grey_level(index)) < 3


def test_images_continue_over_a_new_connection(twin: Twin, server: Running, caplog: pytest.LogCaptureFixture) -> None:
    with CuttingProxy(server.url) as proxy, caplog.at_level(logging.WARNING, "keywarp.client"):
        results = twin.stream(
            proxy.address, frames(30), in_flight=4, reconnect=SOON, watch=at(9, proxy.cut), stream_id="door"
        )
        assert proxy.connections == 2
    check(results, 30)
    assert [r.result.id for r in results] == list(range(30))
    assert any(r.kind == "key" for r in results[10:15])
    (record,) = caplog.records
    assert "stream door: the connection to the server broke" in record.message
    assert "connecting again in 0.0 s" in record.message


@pytest.mark.parametrize(
    ("codec", "encoder", "suffix"),
    [
        ("h264", "libx264", "mp4"),
        ("hevc", "libx265", "mp4"),  # its key frames are followed by frames shown before them
        ("vp8", "libvpx", "webm"),
        ("vp9", "libvpx-vp9", "webm"),
        ("av1", "libsvtav1", "mp4"),
    ],
)
def test_packets_continue_over_a_new_connection(
    twin: Twin, server: Running, tmp_path: Path, codec: Codec, encoder: str, suffix: str
) -> None:
    video = write_video(tmp_path / f"video.{suffix}", frames=60, codec=encoder, gop=10)
    with CuttingProxy(server.url) as proxy:

        def watch(result: ProcessedFrame) -> None:
            if result.frame in (0, 25, 43):
                proxy.cut()

        results = twin.stream(proxy.address, video, codec=codec, decode=True, reconnect=SOON, watch=watch)
        assert proxy.connections >= 4  # more where the server still held the stream
    check(results, 60)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 20_000), max_size=5), st.sampled_from(["image", "h264"]))
def test_each_frame_is_answered_once_wherever_the_network_breaks(
    server: Running, tmp_path: Path, cuts: list[int], codec: Codec
) -> None:
    video = tmp_path / "video.mp4"
    if not video.exists():
        write_video(video, frames=40)
    always = replace(SOON, at_start=True)
    with CuttingProxy(server.url, tuple(cuts)) as proxy, Client(proxy.address) as client:
        check(list(client.stream(video, codec=codec, decode=True, reconnect=always)), 40)


def test_a_stream_goes_on_at_once_though_the_server_has_not_noticed_the_break(twin: Twin, server: Running) -> None:
    with CuttingProxy(server.url) as proxy:
        results = twin.stream(
            proxy.address, frames(20), reconnect=SOON, watch=at(5, lambda: proxy.cut(hold=True)), stream_id="held"
        )
        assert proxy.connections == 2, "the second was refused"
    check(results, 20)


@contextmanager
def restarting(models: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield a server's address, and a function that stops it and starts it again on the same port."""
    servers = [running(models)]
    servers[0].start()
    threads: list[threading.Thread] = []

    def again() -> None:
        servers[0].stop()
        servers.append(running(models, port=int(servers[0].url.rpartition(":")[2])))
        servers[1].start()

    def restart() -> None:
        servers[0].server.should_exit = True
        eventually(servers[0].service.draining.is_set)
        threads.append(threading.Thread(target=again))
        threads[0].start()

    yield servers[0].url, restart
    for thread in threads:
        thread.join()
    servers[-1].stop()


@pytest.mark.parametrize("codec", ["image", "h264", "hevc"])
def test_a_stream_continues_after_the_server_restarts(twin: Twin, models: Path, tmp_path: Path, codec: Codec) -> None:
    video = write_video(tmp_path / "video.mp4", frames=60, codec="libx265" if codec == "hevc" else "libx264", gop=10)
    with restarting(models) as (address, restart):
        results = twin.stream(address, video, codec=codec, decode=True, reconnect=SOON, watch=at(20, restart))
    check(results, 60)


def test_frames_under_way_are_dropped_in_the_mode_latest(server: Running) -> None:
    given = []
    with (
        CuttingProxy(server.url) as proxy,
        Client(proxy.address) as client,
        client.stream(frames(40), mode="latest", reconnect=SOON) as results,
    ):
        for result in results:
            given.append(result)
            if len(given) == 5:
                proxy.cut()
        assert results.reconnects == 1
        assert len(given) + results.dropped == 40
    assert [r.frame for r in given] == [r.result.id for r in given]


def test_a_break_ends_the_stream_of_a_container(twin: Twin, server: Running, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.ts", frames=400)
    with CuttingProxy(server.url) as proxy, pytest.raises(ConnectError, match="broke"):
        twin.stream(proxy.address, video, codec="mpegts", reconnect=SOON, watch=at(3, proxy.cut))
    assert proxy.connections == 1


def test_a_group_of_pictures_beyond_the_memory_is_reported(twin: Twin, server: Running, tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", frames=60, gop=60)
    reconnect = Reconnect(memory=100)
    with CuttingProxy(server.url) as proxy, pytest.raises(ResumeError, match="more than 100 bytes"):
        twin.stream(proxy.address, video, codec="h264", reconnect=reconnect, watch=at(20, proxy.cut))


def test_permanent_errors_are_not_tried_again(twin: Twin) -> None:
    def gone(peer: Peer) -> None:
        peer.greet()
        peer.fail(CloseCode.STREAM_GONE, "it was deleted")

    with ScriptedPeer(gone) as server:
        with pytest.raises(StreamGoneError):
            twin.stream(server.address, frames(3), reconnect=SOON)
        assert len(server.paths) == 1


def test_a_permanent_error_of_the_new_connection_ends_the_stream(twin: Twin) -> None:
    def script(peer: Peer) -> None:
        if len(scripted.paths) == 1:
            peer.greet()
            peer.connection.close(CloseCode.SERVICE_RESTART)
        else:
            peer.connection.recv()
            peer.fail(CloseCode.NOT_FOUND, "there is no model 'street'")

    with ScriptedPeer(script) as scripted, pytest.raises(ModelNotFoundError, match="no model"):
        twin.stream(scripted.address, frames(3), reconnect=SOON)


def test_a_frame_that_breaks_every_connection_ends_the_stream(twin: Twin) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take()

    reconnect = Reconnect(seconds=0.2, first=0.01, longest=0.1)
    with ScriptedPeer(script) as scripted:
        with pytest.raises(ConnectError, match="broke"):
            twin.stream(scripted.address, frames(3), reconnect=reconnect)
        assert len(scripted.paths) > 2


def test_the_first_connection_is_tried_again_only_with_at_start(twin: Twin) -> None:
    def script(peer: Peer) -> None:
        if len(scripted.paths) == 1:
            peer.connection.recv()
            peer.connection.close(CloseCode.TRY_AGAIN_LATER)
        else:
            answer_all(peer)

    with ScriptedPeer(script) as scripted:
        check(twin.stream(scripted.address, frames(3), reconnect=Reconnect(first=0.01, at_start=True)), 3)
    with pytest.raises(ConnectError, match="keywarp serve"):
        twin.stream("http://127.0.0.1:9", frames(1), reconnect=SOON)


def test_a_full_server_is_tried_again_after_the_time_that_it_asks_for(twin: Twin) -> None:
    tries: list[float] = []

    def script(peer: Peer) -> None:
        tries.append(time.monotonic())
        if len(tries) > 1:
            answer_all(peer)
            return
        peer.connection.recv()
        problem = Problem(title="Service Unavailable", status=503, detail="no room", retry_after=1)
        peer.connection.send(Error(problem=problem, fatal=True).model_dump_json(exclude_none=True))
        peer.connection.close(CloseCode.TRY_AGAIN_LATER)

    reconnect = Reconnect(first=0.01, longest=0.01, at_start=True)
    with ScriptedPeer(script) as scripted:
        check(twin.stream(scripted.address, frames(3), reconnect=reconnect), 3)
        assert tries[1] - tries[0] >= 1
        tries.clear()
        with pytest.raises(UnavailableError, match="no room") as caught:
            twin.stream(scripted.address, frames(1))
        assert caught.value.retry_after == 1


def test_the_error_of_a_refused_handshake_has_its_retry_after(twin: Twin) -> None:
    with ScriptedApi(503, b"<html>", "text/html", {"Retry-After": "7"}) as proxy:
        with pytest.raises(ApiError, match="503") as caught:
            twin.stream(proxy.address, frames(1))
        assert caught.value.retry_after == 7
        with pytest.raises(ApiError):  # more than there is time for
            twin.stream(proxy.address, frames(1), reconnect=Reconnect(seconds=5, at_start=True))
    assert len(proxy.requests) == 2


def test_closing_ends_the_attempts_to_connect_again(caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.take()

    patient = Reconnect(seconds=1000, first=500, longest=500)
    with ScriptedPeer(script) as scripted, Client(scripted.address) as client:
        results = client.stream(frames(3), reconnect=patient)

        def close_while_it_waits() -> None:
            eventually(lambda: "connecting again" in caplog.text)
            results.close()

        closing = threading.Thread(target=close_while_it_waits)
        closing.start()
        with pytest.raises(ConnectError):
            next(results)
        closing.join()
