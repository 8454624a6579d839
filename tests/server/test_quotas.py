"""What one API key may use, on a real server: crossed while another key's stream runs undisturbed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from keywarp.protocol import CloseCode, Hello
from keywarp.server import Settings
from keywarp.server.access import Key, new_key
from keywarp.server.quotas import Limits
from tests.server.conftest import Conversation, Running, Starter
from tests.server.media import jpeg
from tests.server.test_rest import problem

ADMIN, ADMIN_LINE = new_key("admin", "stream,metrics,models")
GATE, GATE_LINE = new_key("gate", "stream")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Locked:
    """A server with the keys `gate`, which has the server's limits, and `admin`, which has none to speak of."""

    def __init__(self, start: Starter, folder: Path, *lines: Key, **settings: Any) -> None:
        file = folder / "keys.txt"
        admin = f"{ADMIN_LINE} streams=1000"
        file.write_text("\n".join(str(line) for line in (admin, GATE_LINE, *lines)))
        self.server: Running = start(keys=file, **settings)
        self.server.http.headers.update(bearer(GATE))

    def post(self, path: str, key: str = GATE, **request: Any) -> httpx.Response:
        return self.server.http.post(path, headers=bearer(key), **request)

    @contextmanager
    def connect(self, stream: str, hello: Hello | None, key: str = GATE) -> Iterator[Conversation]:
        with self.server.connect(stream, hello, additional_headers=bearer(key)) as talk:
            yield talk

    def refused(self, limit: str) -> float:
        """How often the metrics say so."""
        text = self.server.http.get("/metrics", headers=bearer(ADMIN)).text
        name = f'keywarp_requests_refused_total{{reason="{limit}"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Another key's stream goes on as if nothing happened beside it."""
        with self.connect("other", Hello(interval=10), ADMIN) as talk:
            talk.frame(jpeg())
            before = talk.result()
            yield
            talk.frame(jpeg())
            after = talk.result()
            assert [(r.frame, r.kind) for r in (before, after)] == [(0, "key"), (1, "propagated")]


def test_a_key_has_only_so_many_streams_whatever_opens_them(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_streams=2)
    with locked.undisturbed(), ExitStack() as open_streams:
        assert locked.post("/v1/streams", json={"id": "first"}).status_code == 201
        open_streams.enter_context(locked.connect("second", Hello()))
        for refused in (locked.post("/v1/streams", json={}), locked.post("/v1/videos?codec=mp4")):
            found = problem(refused)
            assert (found.status, found.retry_after) == (429, 5)
            assert "API key gate has its 2 streams" in found.detail
            assert refused.headers["retry-after"] == "5"
        with locked.connect("third", None) as talk:
            talk.say(Hello())
            error = talk.error()
            assert (error.fatal, error.problem.status, error.problem.retry_after) == (True, 429, 5)
            assert talk.closed() == CloseCode.TRY_AGAIN_LATER
        assert locked.refused("key_streams") == 3
        # What is there isn't new, and others have their own.
        assert locked.server.frame("first").status_code == 200
        assert locked.post("/v1/streams", ADMIN, json={"id": "theirs"}).status_code == 201
        locked.server.http.delete("/v1/streams/first")
        assert locked.post("/v1/streams", json={}).status_code == 201


def test_a_sequence_is_a_stream_of_its_key(start: Starter, tmp_path: Path) -> None:
    locked = Locked(start, tmp_path, key_streams=1)
    with locked.undisturbed():
        assert infer(locked, sequence_id=1, sequence_start=True).status_code == 200
        refused = infer(locked, sequence_id=2, sequence_start=True)
        assert problem(refused).status == 429
        assert refused.json()["error"] == refused.json()["detail"]
        assert infer(locked).status_code == 429  # a stream for one frame
        assert infer(locked, sequence_id=1, sequence_end=True).status_code == 200
        assert infer(locked).status_code == 200
    assert locked.refused("key_streams") == 2


def infer(locked: Locked, **parameters: object) -> httpx.Response:
    """One frame of 2 x 2 pixels by the Open Inference Protocol."""
    pixels = {"name": "frame", "shape": [2, 2, 3], "datatype": "UINT8", "data": [0] * 12}
    return locked.post("/v2/models/tiny/infer", json={"inputs": [pixels], "parameters": parameters})


def test_a_key_may_have_a_limit_of_its_own(start: Starter, tmp_path: Path) -> None:
    secret, line = new_key("guest", "stream", "streams=1")
    locked = Locked(start, tmp_path, line, key_streams=2)
    assert locked.post("/v1/streams", secret, json={}).status_code == 201
    assert "its 1 streams" in problem(locked.post("/v1/streams", secret, json={})).detail


def test_a_limit_of_keys_needs_keys(models: Path) -> None:
    with pytest.raises(ValidationError, match="needs `keys`"):
        Settings(models=models, key_streams=2)


def test_limits_are_written_as_they_are_read() -> None:
    for text in ("", "streams=4", "streams=2000000"):
        _, key = new_key("one", "stream", text)
        assert str(key).endswith(text or key.digest)
    assert Limits(streams=3).over(Limits(streams=4)) == Limits(streams=3)
    assert Limits().over(Limits(streams=4)) == Limits(streams=4)
