"""Quotas of API keys on a real server, exceeded while a stream of another key runs undisturbed."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from keywarp.protocol import CloseCode, Credit, Done, Dropped, End, Hello, Result
from keywarp.server.security.keys import ApiKey, new_key, parse_key
from keywarp.server.security.quotas import Limits, TokenBucket
from keywarp.server.service import Service
from keywarp.server.settings import Settings
from tests.server.clock import Clock
from tests.server.conftest import Running, Starter, StreamConnection
from tests.server.media import B_FRAMES, jpeg, mpegts
from tests.server.routes.test_streams import problem

ADMIN, ADMIN_LINE = new_key("admin", "stream,metrics,models")
GATE, GATE_LINE = new_key("gate", "stream")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Locked:
    """A server with the keys `gate`, which has the server's limits, and `admin`, whose limits are never reached."""

    def __init__(
        self,
        start: Starter,
        folder: Path,
        *lines: ApiKey,
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        file = folder / "keys.txt"
        admin = f"{ADMIN_LINE} streams=1000 rate=1000"
        file.write_text("\n".join(str(line) for line in (admin, GATE_LINE, *lines)))
        self.server: Running = start(partial(Service, clock=clock), keys=file, **settings)
        self.server.http.headers.update(bearer(GATE))

    def post(self, path: str, key: str = GATE, **request: Any) -> httpx.Response:
        return self.server.http.post(path, headers=bearer(key), **request)

    @contextmanager
    def connect(self, stream: str, hello: Hello | None, key: str = GATE) -> Iterator[StreamConnection]:
        with self.server.connect(stream, hello, additional_headers=bearer(key)) as talk:
            yield talk

    def count(self, metric: str, reason: str) -> int:
        """Return the count of a reason in the server's metrics."""
        text = self.server.http.get("/metrics", headers=bearer(ADMIN)).text
        name = f'keywarp_{metric}_total{{reason="{reason}"}} '
        return sum(int(float(line.removeprefix(name))) for line in text.splitlines() if line.startswith(name))

    @contextmanager
    def unaffected_stream(self) -> Iterator[None]:
        """Check that a stream of another key runs as if it were alone."""
        with self.connect("other", Hello(interval=10), ADMIN) as talk:
            talk.frame(jpeg())
            before = talk.result()
            yield
            talk.frame(jpeg())
            after = talk.result()
            assert [(r.frame, r.kind) for r in (before, after)] == [(0, "key"), (1, "propagated")]


def test_a_keys_limit_of_streams_holds_for_all_ways_to_open_one(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_streams=2)
    with locked.unaffected_stream(), ExitStack() as open_streams:
        assert locked.post("/v1/streams", json={"id": "first"}).status_code == 201
        open_streams.enter_context(locked.connect("second", Hello()))
        for refused in (locked.post("/v1/streams", json={}), locked.post("/v1/videos?codec=mp4")):
            found = problem(refused)
            assert (found.status, found.retry_after) == (429, 5)
            assert "API key gate has its 2 streams" in found.detail
            assert refused.headers["retry-after"] == "5"
        with locked.connect("third", None) as talk:
            talk.send(Hello())
            error = talk.error()
            assert (error.fatal, error.problem.status, error.problem.retry_after) == (True, 429, 5)
            assert talk.close_code() == CloseCode.TRY_AGAIN_LATER
        assert locked.count("requests_refused", "key_streams") == 3
        # Open streams go on, and other keys have quotas of their own.
        assert locked.server.frame("first").status_code == 200
        assert locked.post("/v1/streams", ADMIN, json={"id": "theirs"}).status_code == 201
        locked.server.http.delete("/v1/streams/first")
        assert locked.post("/v1/streams", json={}).status_code == 201


def test_a_sequence_counts_as_a_stream_of_its_key(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_streams=1)
    with locked.unaffected_stream():
        assert infer(locked, sequence_id=1, sequence_start=True).status_code == 200
        refused = infer(locked, sequence_id=2, sequence_start=True)
        assert problem(refused).status == 429
        assert refused.json()["error"] == refused.json()["detail"]
        assert infer(locked).status_code == 429  # a stream for one frame
        assert infer(locked, sequence_id=1, sequence_end=True).status_code == 200
        assert infer(locked).status_code == 200
    assert locked.count("requests_refused", "key_streams") == 2


def infer(locked: Locked, **parameters: object) -> httpx.Response:
    """Send one frame of 2 x 2 pixels by the Open Inference Protocol."""
    pixels = {"name": "frame", "shape": [2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
    return locked.post("/v2/models/tiny/infer", json={"inputs": [pixels], "parameters": parameters})


def test_single_frames_beyond_a_keys_rate_are_refused(start: Starter, tmp_path: Path, clock: Clock) -> None:
    locked = Locked(start, tmp_path, clock=clock, key_rate=0.5)
    locked.post("/v1/streams", json={"id": "single"})
    with locked.unaffected_stream():
        assert locked.server.frame("single").status_code == 200
        for refused in (locked.server.frame("single"), infer(locked)):
            found = problem(refused)
            assert found.status == 429
            assert "its 0.5 frames a second" in found.detail
            assert found.retry_after == 2
            assert refused.headers["retry-after"] == "2"
        assert refused.json()["error"] == found.detail
        assert locked.count("requests_refused", "key_rate") == 2
        clock.now += 2
        assert locked.server.frame("single").status_code == 200
        # The stream doesn't count refused frames.
        info = locked.server.http.get("/v1/streams/single").json()
        assert (info["frames"], info["key_frames"], info["errors"]) == (2, 1, 0)


def test_a_lossless_stream_beyond_its_keys_rate_is_slowed_down(start: Starter, tmp_path: Path, clock: Clock) -> None:
    # The clock stands still, so each frame waits as if all had come at once.
    locked = Locked(start, tmp_path, clock=clock, key_rate=10, credit=4)
    with locked.unaffected_stream(), locked.connect("lossless", Hello(interval=10)) as talk:
        answers, done = talk.stream([(i, jpeg()) for i in range(13)])
    assert done == Done(frames=13, key_frames=2, errors=0)
    assert [answer.frame for answer in answers] == list(range(13))
    queued = [answer.timings.queue for answer in answers if isinstance(answer, Result)]
    for place, wait in enumerate((0.1, 0.2, 0.3), 10):  # the ten frames before them are a burst that the rate allows
        assert queued[place] >= wait - 1e-6
    assert locked.count("requests_refused", "key_rate") == 0


def test_a_stream_does_not_expire_while_it_waits_for_its_keys_rate(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_rate=0.5, idle_timeout=1.0)
    with locked.connect("slow", Hello()) as talk:
        _, done = talk.stream([(i, jpeg()) for i in range(2)])
    assert done == Done(frames=2, key_frames=1, errors=0)


def test_a_latest_stream_beyond_its_keys_rate_drops_frames(start: Starter, tmp_path: Path, clock: Clock) -> None:
    locked = Locked(start, tmp_path, clock=clock, key_rate=2)
    with locked.unaffected_stream(), locked.connect("latest", Hello(mode="latest", interval=1000)) as talk:
        answers = []
        for number in range(20):
            talk.frame(jpeg(), number)
            answers.append(talk.response())
        assert [answer.frame for answer in answers] == list(range(20))
        kinds = Counter(answer.reason or "result" for answer in answers if isinstance(answer, Dropped | Result))
        assert kinds == {"start": 1, "result": 1, "rate": 18}
        assert locked.count("frames_dropped", "rate") == kinds["rate"]
        clock.now += 0.5
        talk.frame(jpeg(), 20)
        result = talk.response()
        assert isinstance(result, Result)
        assert (result.kind, result.key_age) == ("propagated", 20)  # dropped frames leave no gap
        talk.send(End())
        while isinstance(done := talk.receive(), Credit):
            pass
        assert isinstance(done, Done)
        assert done.frames + done.dropped == 21
        assert (done.dropped, done.key_frames) == (kinds["rate"], 1)


def test_all_uploads_and_streams_of_a_key_share_its_rate(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_rate=20)
    video = mpegts(30, B_FRAMES)
    started = time.monotonic()
    with locked.unaffected_stream(), ThreadPoolExecutor() as threads:
        uploads = [threads.submit(locked.post, "/v1/videos?codec=mpegts", content=video) for _ in range(2)]
        lasts = [json.loads(upload.result().text.splitlines()[-1]) for upload in uploads]
    assert [(last["type"], last["frames"]) for last in lasts] == [("done", 30)] * 2
    assert time.monotonic() - started >= 2.0  # 60 frames at 20 a second, after a burst of 20


def test_a_bucket_holds_the_tokens_of_a_second_and_fills_evenly() -> None:
    bucket = TokenBucket(4)
    for _ in range(4):
        assert bucket.wait(100) == 0
        bucket.take(100)
    assert bucket.wait(100) == 0.25
    bucket.take(100)  # taken in advance
    assert bucket.wait(100.25) == 0.25
    bucket.give_back()
    assert bucket.wait(100.25) == 0
    for _ in range(4):
        assert bucket.wait(200) == 0  # no more than a second's tokens are kept
        bucket.take(200)
    assert bucket.wait(200) == 0.25


def test_a_bucket_holds_at_least_one_token() -> None:
    bucket = TokenBucket(0.1)
    assert bucket.wait(0) == 0
    bucket.take(0)
    assert bucket.wait(0) == 10
    assert bucket.wait(10) == 0


def test_a_key_may_have_a_limit_of_its_own(start: Starter, tmp_path: Path) -> None:
    secret, line = new_key("guest", "stream", streams=1)
    locked = Locked(start, tmp_path, line, key_streams=2)
    assert locked.post("/v1/streams", secret, json={}).status_code == 201
    assert "its 1 streams" in problem(locked.post("/v1/streams", secret, json={})).detail


def test_a_limit_of_keys_needs_keys(models: Path) -> None:
    with pytest.raises(ValidationError, match="needs `keys`"):
        Settings(models=models, key_streams=2)
    with pytest.raises(ValidationError, match="needs `keys`"):
        Settings(models=models, key_rate=2)


def test_limits_are_written_as_they_are_read() -> None:
    for limits, text in (
        ({}, ""),
        ({"streams": 4, "rate": None}, " streams=4"),
        ({"streams": 2_000_000, "rate": 0.5}, " streams=2000000 rate=0.5"),
    ):
        _, key = new_key("one", "stream", **limits)
        assert str(key).endswith(key.digest + text)
        assert parse_key(str(key)) == key
    assert Limits(streams=3).with_defaults(Limits(streams=4)) == Limits(streams=3)
    assert Limits().with_defaults(Limits(streams=4)) == Limits(streams=4)
