"""The secrets of addresses are in no sentence and log of the client."""

import json
import logging
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from keywarp.client import Client, ConnectError, SourceError, open_source
from tests.client.scripted import ScriptedApi
from tests.command_line import keywarp

CLOSED = "http://user:SECRET@127.0.0.1:9"


@pytest.mark.parametrize(
    "source", [f"{CLOSED}/v.mp4?token=SECRET", "rtsp://u:SE#SECRET@127.0.0.1:9/x", "SECRET://u:SECRET@h"]
)
def test_the_error_of_a_source_shows_its_address_only(source: str) -> None:
    with pytest.raises(SourceError, match="://") as caught:
        open_source(source)
    traced = "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in traced.replace("'SECRET://***'", "").replace("SECRET://***", "")


def test_commands_show_addresses_only() -> None:
    for command in (
        ("stream", "x.mp4", "--server", CLOSED),
        ("stream", f"{CLOSED}/v.mp4?token=SECRET", "--server", "http://127.0.0.1:9"),
        ("watch", "gate", "--server", CLOSED),
        ("stream", "x.mp4", "--server", "ftp://user:SECRET@h"),
    ):
        done = keywarp(*command)
        assert done.returncode in (1, 2)
        assert "SECRET" not in done.stdout + done.stderr


def test_the_error_of_a_server_shows_its_address_only() -> None:
    with Client(CLOSED) as client, pytest.raises(ConnectError, match=r"http://127\.0\.0\.1:9 ") as caught:
        client.models()
    assert "SECRET" not in str(caught.value)


def test_the_login_of_a_server_is_sent_but_logged_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    received: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(json.dumps([]).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://user:SE%20CRET@127.0.0.1:{server.server_port}"
    try:
        with caplog.at_level(logging.DEBUG), Client(address, api_key="key") as client:
            client.models()
    finally:
        server.shutdown()
        server.server_close()
    assert received[0]["Authorization"] == "Basic dXNlcjpTRSBDUkVU"  # user:SE CRET
    assert received[0]["X-API-Key"] == "key"
    assert "CRET" not in caplog.text


def test_a_server_that_is_not_keywarp_is_named_without_its_login() -> None:
    with ScriptedApi(200, b"<html>", "text/html") as api:
        client = Client(api.address.replace("//", "//user:SECRET@"))
        with client, pytest.raises(Exception, match="Keywarp server") as caught:
            client.models()
    assert "SECRET" not in str(caught.value)
