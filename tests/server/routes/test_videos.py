"""`POST /v1/videos`, on a real server."""

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from keywarp.protocol import Done, Error, Result, ServerMessage
from keywarp.server.routes.videos import UnreadLines
from keywarp.videos import MAX_FAILED_UNITS
from tests.server.conftest import PATIENCE, Running, Starter, eventually
from tests.server.media import B_FRAMES, ENCODERS, FRAGMENTED, NO_DELAY, encode, h264, moving, mpegts, pieces
from tests.server.routes.test_streams import problem


def messages(body: str) -> list[Result | Error | Done]:
    return [message(line) for line in body.splitlines()]


def message(line: str) -> Result | Error | Done:
    found = ServerMessage.validate_json(line)
    assert isinstance(found, Result | Error | Done)
    return found


class Upload:
    """A client that sends and reads at the same time, as curl does."""

    def __init__(self, server: Running, content_type: str, query: str = "") -> None:
        address = httpx.URL(server.url)
        self._connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=PATIENCE)
        self._connection.putrequest("POST", f"/v1/videos{query}")
        self._connection.putheader("Content-Type", content_type)
        self._connection.putheader("Transfer-Encoding", "chunked")
        self._connection.endheaders()
        self._response: http.client.HTTPResponse | None = None

    def send(self, data: bytes) -> None:
        self._connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self._connection.send(b"0\r\n\r\n")

    def read(self) -> Result | Error | Done | None:
        if self._response is None:
            self._response = self._connection.getresponse()
            assert self._response.status == 200
        line = self._response.readline()
        return message(line.decode()) if line else None

    def rest(self) -> list[Result | Error | Done]:
        lines = []
        while line := self.read():
            lines.append(line)
        return lines

    def disconnect(self) -> None:
        self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


@contextmanager
def uploading(server: Running, content_type: str, query: str = "") -> Iterator[Upload]:
    upload = Upload(server, content_type, query)
    yield upload
    upload.disconnect()


VIDEOS = {
    "video/mp2t": mpegts(30, B_FRAMES),
    "video/mp4": encode(moving(30), "mp4", B_FRAMES, muxing=FRAGMENTED)[0],
    "video/webm; codecs=vp8": encode(moving(30), "webm", ENCODERS["vp8"][2], "libvpx")[0],
    "video/H264": b"".join(unit for _, unit in h264(30, B_FRAMES)),
}


@pytest.mark.parametrize("content_type", VIDEOS)
def test_a_video_gives_a_line_for_each_frame_and_then_their_number(server: Running, content_type: str) -> None:
    response = server.http.post(
        "/v1/videos?interval=5", content=VIDEOS[content_type], headers={"content-type": content_type}
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    *results, done = messages(response.text)
    assert [(r.type, r.frame) for r in results if isinstance(r, Result)] == [("result", i) for i in range(30)]
    assert [r.kind for r in results if isinstance(r, Result)] == [*["key", *["propagated"] * 4]] * 6
    assert done == Done(frames=30, key_frames=6, errors=0)
    assert server.http.get("/v1/streams").json() == []
    eventually(lambda: not server.tasks() and not server.demuxers())


def test_the_query_names_the_codec_if_there_is_no_content_type(server: Running) -> None:
    response = server.http.post("/v1/videos?codec=mpegts", content=VIDEOS["video/mp2t"])
    assert messages(response.text)[-1] == Done(frames=30, key_frames=3, errors=0)


def test_results_are_sent_while_the_video_is_uploaded(server: Running) -> None:
    first, *rest = pieces(mpegts(200, NO_DELAY), 188 * 40)
    with uploading(server, "video/mp2t") as upload:
        upload.send(first)
        for piece in rest[:3]:
            upload.send(piece)
        assert isinstance(upload.read(), Result)
        for piece in rest[3:]:
            upload.send(piece)
        upload.end()
        assert upload.rest()[-1] == Done(frames=200, key_frames=20, errors=0)


def test_lines_beyond_the_limit_wait_until_the_client_has_read() -> None:
    async def run() -> None:
        lines = UnreadLines(10)
        await lines.put(b"0123456789\n")
        waiting = asyncio.create_task(lines.put(b"more\n"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert await lines.take() == b"0123456789\n"
        await waiting
        await lines.end()
        assert [await lines.take(), await lines.take()] == [b"more\n", b""]

    asyncio.run(run())


def test_a_client_that_reads_nothing_before_it_has_sent_everything_is_served(server: Running) -> None:
    response = server.http.post("/v1/videos", content=VIDEOS["video/mp4"], headers={"content-type": "video/mp4"})
    assert messages(response.text)[-1] == Done(frames=30, key_frames=3, errors=0)


@pytest.mark.parametrize(
    ("query", "headers", "body", "status", "detail"),
    [
        ("", {"content-type": "video/mp4"}, b"a text file\n" * 500, 422, "not an MP4 stream"),
        ("", {"content-type": "image/jpeg"}, b"x", 415, "'image/jpeg' is none of video/mp4"),
        ("", {}, b"x", 415, "is none of"),
        ("?codec=vp8", {}, b"x", 422, "codec"),
        ("?model=nosuch", {"content-type": "video/mp4"}, b"x", 404, "nosuch"),
        ("?max_interval=9", {"content-type": "video/mp4"}, b"x", 400, "adaptive"),
    ],
)
def test_a_body_that_cannot_be_processed_is_refused_by_its_status(
    server: Running, query: str, headers: dict[str, str], body: bytes, status: int, detail: str
) -> None:
    found = problem(server.http.post(f"/v1/videos{query}", content=body, headers=headers))
    assert found.status == status
    assert detail in found.detail
    assert server.http.get("/v1/streams").json() == []


def test_an_empty_body_is_refused(server: Running) -> None:
    found = problem(server.http.post("/v1/videos", headers={"content-type": "video/mp4"}))
    assert (found.status, found.detail) == (422, "the body is empty: send a video")


def test_a_video_over_the_limit_is_refused_at_once_or_where_it_exceeds_it(start: Starter) -> None:
    video = mpegts(100, NO_DELAY)
    server = start(max_video_bytes=len(video) - 1)
    response = server.http.post("/v1/videos", content=video, headers={"content-type": "video/mp2t"})
    assert problem(response).status == 413
    with uploading(server, "video/mp2t") as upload:
        upload.send(video[: len(video) // 188 // 2 * 188])
        assert isinstance(upload.read(), Result)
        upload.send(video[len(video) // 188 // 2 * 188 :])
        *results, last = upload.rest()
    assert len(results) > 20
    assert isinstance(last, Error)
    assert (last.fatal, last.problem.status) == (True, 413)


def test_results_before_a_fault_are_sent_and_the_last_line_reports_it(
    server: Running,
) -> None:
    units = [unit for _, unit in h264(10, NO_DELAY)]
    damaged = b"".join(units[:5] + [unit[:6] + bytes(20) for unit in units[5:]] * MAX_FAILED_UNITS)
    with uploading(server, "video/h264") as upload:
        upload.send(damaged)
        upload.end()
        lines = upload.rest()
    assert sum(isinstance(line, Result) for line in lines) >= 4
    assert isinstance(lines[-1], Error)
    assert (lines[-1].fatal, lines[-1].problem.status) == (True, 422)


def test_a_client_that_disconnects_frees_everything(server: Running) -> None:
    for content_type, clip in VIDEOS.items():
        with uploading(server, content_type) as upload:
            upload.send(clip)
        eventually(lambda: not server.http.get("/v1/streams").json())
        eventually(lambda: not server.tasks() and not server.demuxers())


def test_a_client_that_disconnects_after_its_video_frees_everything(server: Running) -> None:
    release = server.hold_device()
    with uploading(server, "video/mp2t") as upload:
        upload.send(VIDEOS["video/mp2t"])
        upload.end()
    release()
    eventually(lambda: not server.tasks() and not server.demuxers())


def test_deleting_the_stream_ends_its_upload(server: Running) -> None:
    with uploading(server, "video/mp2t") as upload:
        upload.send(mpegts(100, NO_DELAY)[: 188 * 100])
        result = upload.read()
        assert isinstance(result, Result)
        server.http.delete(f"/v1/streams/{result.stream}")
        last = upload.rest()[-1]
    assert isinstance(last, Error)
    assert (last.fatal, last.problem.status) == (True, 410)


def test_a_server_that_stops_sends_the_results_of_the_frames_that_it_has(start: Starter) -> None:
    server = start()
    with uploading(server, "video/mp2t") as upload:
        upload.send(mpegts(100, NO_DELAY)[: 188 * 150])
        assert isinstance(upload.read(), Result)
        server.server.should_exit = True
        *results, last = upload.rest()
    assert len(results) > 10
    assert isinstance(last, Error)
    assert (last.fatal, last.problem.status) == (True, 503)


def test_a_stalled_upload_does_not_hold_up_other_streams(server: Running) -> None:
    with uploading(server, "video/mp4") as upload:
        upload.send(VIDEOS["video/mp4"][:2000])
        assert server.http.post("/v1/streams", json={"id": "beside"}).status_code == 201
        assert json.loads(server.frame("beside").text)["kind"] == "key"
        server.http.delete("/v1/streams/beside")
