"""What a camera sends over RTSP, and where its redirects lead."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from keywarp.server.decode.rtsp import Responses
from keywarp.server.errors import PullError
from tests.server.conftest import Starter, eventually
from tests.server.faults.neighbour import undisturbed
from tests.server.media import pieces

REPLY = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\nv=0\r\n"
PACKET = b"$\x00" + (12).to_bytes(2) + b"RTSP/1.0 302"
DATA = REPLY + PACKET + b"RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n" + PACKET


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_responses_and_packets_pass(size: int) -> None:
    responses = Responses()
    passed = b"".join(responses.feed(piece) for piece in pieces(DATA, size))
    assert passed == DATA


@pytest.mark.parametrize(
    "data",
    [
        b"RTSP/1.0 302 Found\r\nLocation: rtsp://127.0.0.1:22/\r\n\r\n",
        b"RT\rSP/1.0 301 Moved\nLocation: rtsp://127.0.0.1:22/\n\n",
        b"RTSP/1.0 +302 Found\r\n",
        b"RTSP/1.0\t302 Found\r\n",
        b"RTSP/1.0 200 OK\r\n\0\r\nRTSP/1.0 302 Found\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"$\0\0\x04RTSP/1.0 302 Found\r\n",
        5000 * b"x",
    ],
)
def test_redirects_and_what_is_no_rtsp_are_refused(data: bytes) -> None:
    with pytest.raises(PullError):
        Responses().feed(data)


def test_a_location_never_passes() -> None:
    assert Responses().feed(b"RTSP/1.0 200 OK\r\nLOC\rATION: rtsp://x/\r\nCSeq: 1\r\n\r\n") == (
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Make a certificate as cameras have them: nobody vouches for it."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("there is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    key, file = folder / "key.pem", folder / "certificate.pem"
    request = (openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=camera")
    subprocess.run((*request, "-keyout", key, "-out", file), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context


@contextmanager
def redirecting(target: str, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a camera that redirects, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as camera:

        def answer() -> None:
            with suppress(OSError):  # closed
                while True:
                    connection, _ = camera.accept()
                    client = tls.wrap_socket(connection, server_side=True) if tls else connection
                    with client, suppress(ConnectionResetError):
                        while request := client.recv(4096):
                            number = request.partition(b"CSeq: ")[2].partition(b"\r\n")[0]
                            status = b"200 OK\r\nPublic: DESCRIBE" if request.startswith(b"OPTIONS") else b"302 Found"
                            head = b"RTSP/1.0 " + status + b"\r\nCSeq: " + number + b"\r\n"
                            client.sendall(head + b"Location: " + target.encode() + b"\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield camera.getsockname()[1]
        camera.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("scheme", "listens"), [("rtsp", True), ("rtsp", False), ("rtsps", True)])
def test_a_camera_leads_to_no_other_port_and_does_not_learn_which_are_open(
    start: Starter, request: pytest.FixtureRequest, scheme: str, listens: bool
) -> None:
    tls = request.getfixturevalue("certificate") if scheme == "rtsps" else None
    server = start(allow_pull=("127.0.0.1",))
    with socket.create_server(("127.0.0.1", 0)) as inner:
        inner.settimeout(0.2)
        port = inner.getsockname()[1]
        if not listens:
            inner.close()
        with undisturbed(server) as neighbour, redirecting(f"{scheme}://127.0.0.1:{port}/x", tls) as camera:
            source = f"{scheme}://127.0.0.1:{camera}/camera"
            server.http.post("/v1/streams", json={"id": "gate", "source": source})
            eventually(lambda: server.http.get("/v1/streams/gate").json()["state"] == "retrying")
            assert "redirects, which isn't followed" in server.http.get("/v1/streams/gate").json()["problem"]
            if listens:
                with pytest.raises(TimeoutError):
                    inner.accept()
            neighbour.receives(1)
            server.http.delete("/v1/streams/gate")


def test_a_camera_without_tls_is_told_apart(start: Starter) -> None:
    server = start(allow_pull=("127.0.0.1",))
    with redirecting("rtsp://127.0.0.1:1/") as camera:
        server.http.post("/v1/streams", json={"id": "gate", "source": f"rtsps://127.0.0.1:{camera}/camera"})
        eventually(lambda: server.http.get("/v1/streams/gate").json()["state"] == "retrying")
        assert "TLS fails" in server.http.get("/v1/streams/gate").json()["problem"]
        server.http.delete("/v1/streams/gate")
