"""The main job: a real clip through the real server process by the real client, with the shipped model."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import simplejpeg
from websockets import ConnectionClosedError, Subprotocol
from websockets.sync.client import connect

from keywarp.client import ApiError, Client, ModelNotFoundError, open_source
from keywarp.commands.sample_video import sample_video
from keywarp.engines import Engine, FixedInterval, LabelMap, StreamSession, load_bundle
from keywarp.protocol import FrameHeader, pack
from tests.e2e.running import MODELS, Server, keywarp, serving, street_video

FRAMES = 250  # of the whole video
CLIP = 50  # frames of the fixture `clip`
TIMINGS = {"decode", "queue", "inference", "postprocess"}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def video_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def check_results(results: list[dict[str, Any]], frames: int, interval: int) -> None:
    assert [r["frame"] for r in results] == list(range(frames))
    assert [r["kind"] for r in results] == ["propagated" if i % interval else "key" for i in range(frames)]
    assert [r["key_age"] for r in results] == [i % interval for i in range(frames)]
    assert all(set(r["timings"]) == TIMINGS and r["latency"] > 0 for r in results)


def test_the_demo_writes_its_files_and_prints_its_figures(clip: Path, tmp_path: Path) -> None:
    done = keywarp("demo", "--video", clip, "--models", MODELS, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["keyed"]["frames"] == figures["per_frame"]["frames"] == figures["per_frame"]["key_frames"] == CLIP
    assert figures["keyed"]["key_frames"] == 5
    assert figures["speed_up"] == figures["keyed"]["fps"] / figures["per_frame"]["fps"]
    check_results(lines(tmp_path / "bikes.ndjson"), CLIP, interval=10)
    assert video_frames(tmp_path / "bikes.mp4") == CLIP


def test_the_demos_own_video_is_the_street_scene() -> None:
    with open_source(sample_video()) as source:
        assert (source.count, source.width, source.height) == (FRAMES, 640, 272)


def test_stream_writes_one_line_and_one_picture_for_each_frame(server: Server, clip: Path, tmp_path: Path) -> None:
    annotated, results = tmp_path / "annotated.mp4", tmp_path / "results.ndjson"
    options = ["--server", server.url, "--model", "street", "--interval", "5"]
    done = keywarp("stream", clip, *options, "--out", annotated, "--ndjson", results)
    assert done.returncode == 0, done.stderr
    check_results(lines(results), CLIP, interval=5)
    assert video_frames(annotated) == CLIP


def test_run_gives_the_same_results_without_a_server(tmp_path: Path) -> None:
    results = tmp_path / "results.ndjson"
    done = keywarp("run", street_video(), "--models", MODELS, "--ndjson", results)
    assert done.returncode == 0, done.stderr
    check_results(lines(results), FRAMES, interval=10)


def test_h264_through_the_server_gives_exactly_the_engines_results(server: Server, clip: Path) -> None:
    """Packets are sent as they are, so both sides decode the same frames, and the results must be the same."""
    with Client(server.url) as client, client.stream(clip, codec="h264", interval=10) as results:
        streamed = [result.labels for result in results]
    assert len(streamed) == CLIP
    session = StreamSession(Engine(load_bundle(MODELS / "street")), FixedInterval(10))
    for labels, frame in zip(streamed, open_source(clip), strict=True):
        np.testing.assert_array_equal(labels, session.process(frame.image).labels)


def test_interval_one_is_per_frame_evaluation_exactly(server: Server, clip: Path) -> None:
    """A stream at interval 1 gives the results that the engine gives on each frame by itself."""
    with Client(server.url) as client, client.stream(clip, codec="h264", interval=1) as results:
        streamed = [result.labels for result in results]
    assert len(streamed) == CLIP
    engine = Engine(load_bundle(MODELS / "street"))
    for labels, frame in zip(streamed, open_source(clip), strict=True):
        output = engine.key(frame.image)[0].output
        assert isinstance(output, LabelMap)
        np.testing.assert_array_equal(labels, output.labels)


def test_killing_the_client_frees_its_stream(server: Server) -> None:
    command = [sys.executable, "-m", "keywarp.cli", "stream", str(street_video()), "--server", server.url]
    client = subprocess.Popen([*command, "--interval", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_streams(server, 1)
        os.kill(client.pid, signal.SIGKILL)
        await_streams(server, 0)
    finally:
        client.kill()
        client.wait()


def await_streams(server: Server, count: int) -> None:
    """Wait until the server has a number of streams."""
    deadline = time.monotonic() + 20
    while len(httpx.get(f"{server.url}/v1/streams").json()) != count:
        assert time.monotonic() < deadline, f"never {count} streams"
        time.sleep(0.05)


def test_bad_sources_fail_with_one_sentence(server: Server, tmp_path: Path) -> None:
    text, cut = tmp_path / "text.mp4", tmp_path / "cut.mp4"
    text.write_text("this is no video\n" * 100)
    cut.write_bytes(street_video().read_bytes()[:100_000])
    for source in (text, cut, tmp_path / "missing.mp4"):
        done = keywarp("stream", source, "--server", server.url)
        assert done.returncode == 1
        assert done.stderr.startswith("keywarp: ")
        assert source.name in done.stderr
        assert "Traceback" not in done.stderr


def test_bad_input_is_answered_and_disturbs_no_other_stream(server: Server) -> None:
    jpeg = simplejpeg.encode_jpeg(np.zeros((272, 640, 3), np.uint8))
    vast = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 20_000, 20_000, 8, 2, 0, 0, 0)
    with ThreadPoolExecutor(1) as pool, Client(server.url) as client:
        good = pool.submit(lambda: [r.result.model_dump() for r in client.stream(street_video(), interval=10)])
        client.create_stream("bad")
        with pytest.raises(ApiError, match="damaged") as half:
            client.infer("bad", jpeg[: len(jpeg) // 2])
        with pytest.raises(ApiError, match="20000x20000") as large:
            client.infer("bad", vast)
        with pytest.raises(ApiError, match="not a JPEG") as text:
            client.infer("bad", b"this is no image")
        assert [e.value.status for e in (half, large, text)] == [422, 413, 415]
        assert client.infer("bad", jpeg).kind == "key"  # the stream itself goes on
        client.delete_stream("bad")
        with pytest.raises(ModelNotFoundError, match="nothing"):
            client.stream(street_video(), model="nothing")
        assert close_code(server, '{"type": "hello", "codec": "h264"}', pack(FrameHeader(), b"no video")) == 4422
        assert close_code(server, '{"type": "end"}') == 4400
        assert close_code(server, "not even JSON") == 4400
        assert close_code(server, b"\xff\xff\xff\xff") == 4400
        results = good.result(60)
    assert [r["frame"] for r in results] == list(range(FRAMES))
    assert sum(r["kind"] == "key" for r in results) == 25


def close_code(server: Server, *messages: str | bytes) -> int | None:
    """Send messages without our client; return the code that the server closes with, after a fatal error."""
    url = server.url.replace("http", "ws") + "/v1/streams/odd/ws"
    with connect(url, subprotocols=[Subprotocol("keywarp.v1")], compression=None) as websocket:
        for message in messages:
            websocket.send(message)
        received: list[dict[str, Any]] = []
        with suppress(ConnectionClosedError):
            received.extend(json.loads(message) for message in websocket)
        assert received[-1]["type"] == "error"
        assert received[-1]["fatal"]
        assert received[-1]["problem"]["detail"]
        return websocket.close_code


def test_an_unknown_model_is_named_with_the_known_ones(server: Server) -> None:
    done = keywarp("stream", street_video(), "--server", server.url, "--model", "nothing")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "street" in done.stderr


def test_a_bundle_with_a_changed_byte_is_not_served(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "street", tmp_path / "street")
    file = tmp_path / "street" / "features.onnx"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    done = keywarp("serve", "--port", "0", "--models", tmp_path)
    assert done.returncode == 1
    assert "features.onnx doesn't match its manifest" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_told_to_stop_ends_a_running_stream_with_a_reason(tmp_path: Path) -> None:
    with serving() as server:
        command = [sys.executable, "-m", "keywarp.cli", "stream", str(street_video()), "--server", server.url]
        results = tmp_path / "results.ndjson"
        client = subprocess.Popen(
            [*command, "--interval", "1", "--reconnect", "0", "--ndjson", str(results)],
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        await_streams(server, 1)
    _, message = client.communicate(timeout=30)
    assert client.returncode == 1
    assert "the server stops" in message
    assert not results.exists()  # results that aren't complete don't pass for complete ones


def test_an_unreachable_server_is_reported_in_one_sentence() -> None:
    done = keywarp("stream", street_video(), "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("keywarp: ")
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_every_backend_runs_the_shipped_model(backend: str, clip: Path) -> None:
    done = keywarp("run", clip, "--models", MODELS, "--backend", backend, "--interval", "25", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["frames"], figures["key_frames"]) == (CLIP, 2)
