"""`POST /v1/videos/annotated`, on a real server."""

import io
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest

from keywarp.server.routes import annotated
from keywarp.videos import writing
from tests.server.conftest import Running, eventually
from tests.server.media import NO_DELAY, moving, mpegts, pieces

ROUTE = "/v1/videos/annotated"
TS = {"content-type": "video/mp2t"}


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder in which the server keeps a video while it works on it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_video_comes_back_with_its_results_drawn_in(server: Running, scratch: Path) -> None:
    response = server.http.post(ROUTE, content=mpegts(12, NO_DELAY), headers=TS, params={"interval": 4})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "video/mp4"
    assert len(response.content) == int(response.headers["content-length"])
    with av.open(io.BytesIO(response.content), "r") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    with av.open(io.BytesIO(response.content), "r") as video:
        times = [packet.pts for packet in video.demux(video=0) if packet.pts is not None]
    assert len(frames) == 12
    assert times == sorted(times)
    height, width = frames[0].shape[:2]
    assert (width, height) == moving(1)[0].shape[1::-1]
    corner = frames[0][8:22, 10:20].reshape(-1, 3).mean(axis=0)
    assert corner[0] > corner[2] + 60, "the flag of a key frame is yellow"
    flags = [np.abs(frames[4].astype(int) - frames[i])[6:24, 6:40].mean() for i in (0, 1)]
    assert flags[0] < flags[1], "every fourth frame is a key frame"
    assert server.http.get("/v1/streams").json() == []
    eventually(lambda: not [*scratch.glob("keywarp-annotated-*")])


def test_a_server_without_an_encoder_says_so_before_the_video_is_sent(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ENCODER", "libx264-of-another-build")
    response = server.http.post(ROUTE, content=mpegts(3, NO_DELAY), headers=TS)
    assert response.status_code == 501
    assert "has no libx264" in response.json()["detail"]
    assert server.http.get("/v1/streams").json() == []


def test_the_picture_is_as_wide_as_was_asked_for(server: Running) -> None:
    width = moving(1)[0].shape[1] // 2
    response = server.http.post(ROUTE, content=mpegts(3, NO_DELAY), headers=TS, params={"width": width})
    with av.open(io.BytesIO(response.content)) as video:
        assert video.streams.video[0].width == width


def test_a_video_may_be_larger_than_bodies_that_only_describe_something(server: Running) -> None:
    null_packet = b"\x47\x1f\xff\x10".ljust(188, b"\xff")
    video = mpegts(3, NO_DELAY) + null_packet * 12_000
    assert len(video) > 2 * 2**20
    assert server.http.post(ROUTE, content=video, headers=TS).status_code == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"this is no video", "video/mp4", 422),
        (b"", "video/mp2t", 422),
        (b"hello", "text/plain", 415),
    ],
)
def test_what_is_no_video_is_refused(
    server: Running, scratch: Path, body: bytes, content_type: str, status: int
) -> None:
    response = server.http.post(ROUTE, content=body, headers={"content-type": content_type})
    assert response.status_code == status
    assert response.json()["detail"]
    eventually(lambda: not [*scratch.glob("keywarp-annotated-*")])
    assert server.http.get("/v1/streams").json() == []


def test_a_video_that_would_become_too_large_is_refused(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotated, "MAX_BYTES", 10)
    monkeypatch.setattr(annotated, "CHECKED", 1)
    response = server.http.post(ROUTE, content=mpegts(60, NO_DELAY), headers=TS)
    assert response.status_code == 422
    assert "more than 10 bytes" in response.json()["detail"]


def test_only_some_are_made_at_a_time_and_nothing_stays_of_a_client_that_leaves(server: Running, scratch: Path) -> None:
    go = threading.Event()

    def slow() -> httpx.Response | None:
        def body() -> Iterator[bytes]:
            first, *rest = pieces(mpegts(12, NO_DELAY), 4000)
            yield first
            go.wait(20)
            if rest:
                raise OSError("the client leaves")

        try:
            return httpx.post(f"{server.url}{ROUTE}", content=body(), headers=TS, timeout=30)
        except OSError:
            return None

    threads = [threading.Thread(target=slow) for _ in range(annotated.MAX_RUNNING)]
    for thread in threads:
        thread.start()
    eventually(lambda: len([*scratch.glob("keywarp-annotated-*")]) == annotated.MAX_RUNNING)
    refused = server.http.post(ROUTE, content=mpegts(3, NO_DELAY), headers=TS)
    assert (refused.status_code, "already" in refused.json()["detail"]) == (429, True)
    go.set()
    for thread in threads:
        thread.join()
    eventually(lambda: not [*scratch.glob("keywarp-annotated-*")])
    assert server.http.post(ROUTE, content=mpegts(3, NO_DELAY), headers=TS).status_code == 200
