"""Passwords, tokens and keys of the operator are in no log and in no response."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import Starter, eventually
from tests.server.media import jpeg
from tests.server.sinks.test_sinks import Hook, broker, free_port, sink_count, write_site
from tests.server.test_process import process

PLACES = ("user", "password", "path", "token", "header", "key", "mqtt", "camera", "query")


def secret(place: str) -> str:
    return f"SECRET-{place}"


@contextmanager
def site(folder: Path) -> Iterator[tuple[Path, Hook]]:
    """Write a site file that is full of secrets, for a web server and a broker that take everything."""
    port = free_port()
    with Hook() as hook, broker(folder, port):
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        address = f"{secret('user')}:{secret('password')}@127.0.0.1:{hook.server_port}"
        yield (
            write_site(
                folder,
                f"""
                [streams.gate]
                source = "rtsp://admin:{secret("camera")}@127.0.0.1:1/live?key={secret("query")}"
                sinks = ["hook", "bus"]

                [sinks.hook]
                webhook = "http://{address}/hooks/{secret("path")}?token={secret("token")}"
                headers = {{X-Api-Key = "{secret("header")}"}}
                secret = "{secret("key")}"

                [sinks.bus]
                mqtt = "mqtt://{secret("user")}:{secret("mqtt")}@127.0.0.1:{port}"
                """,
            ),
            hook,
        )
        hook.shutdown()


def check(text: str) -> None:
    assert [place for place in PLACES if secret(place) in text] == []


def test_the_log_of_a_whole_run_has_no_secrets_at_any_level(models: Path, tmp_path: Path) -> None:
    with (
        site(tmp_path) as (file, hook),
        process("--models", str(models), "--site", str(file), "--log-level", "debug") as running,
    ):
        hook.refusals = 1  # failures are logged, too
        assert running.stdout
        assert running.stderr
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(running.stderr or ()))
        reader.start()
        url = running.stdout.readline().split()[-1]
        with httpx.Client(base_url=url, timeout=30) as http:
            eventually(lambda: http.get("/readyz").is_success)
            http.post("/v1/streams", json={"id": "door", "sinks": ["hook", "bus"]})
            http.post("/v1/streams/door/frames", content=jpeg())
            http.post("/v1/streams/door/frames", content=b"no image")
            eventually(lambda: bool(hook.taken))
            eventually(lambda: http.get("/v1/streams/gate").json()["state"] == "retrying")
            shown = [http.get(path).text for path in ("/v1/streams", "/v1/models", "/metrics", "/openapi.json")]
        running.terminate()
        assert running.wait(30) == 0
        reader.join()
    assert hook.taken, "something was posted"
    assert any("sink hook" in line for line in log), "the failure was logged"
    check("".join([*log, *shown]))


def test_no_package_logs_a_secret_wherever_the_log_goes(
    start: Starter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An application around the server has its own handlers, which hide nothing."""
    caplog.set_level(logging.DEBUG)
    with site(tmp_path) as (file, _):
        server = start(site=file)
        server.http.post("/v1/streams", json={"id": "door", "sinks": ["hook", "bus"]})
        server.frame("door")
        eventually(lambda: all(sink_count(server, name, "delivered") > 0 for name in ("hook", "bus")))
        server.stop()
    assert "httpx" in {record.name for record in caplog.records}, "other requests are logged as ever"
    check(caplog.text)
