"""Live sources other than RTSP cameras, from real senders: GStreamer's RTSP server over TLS, and ffmpeg."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from tests.e2e.running import Server, serving, street_video
from tests.e2e.test_cameras import camera, eventually
from tests.tiny_bundle import tiny_bundle

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="`make packages` installs ffmpeg")


@pytest.fixture(scope="module")
def puller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    tiny_bundle(models / "tiny")
    with serving("--allow-pull", "127.0.0.1", "--backend", "onnxruntime", models=models) as server:
        yield server


def _has_srt() -> bool:
    try:
        av.open("srt://127.0.0.1:1", timeout=0.1)
    except av.error.ProtocolNotFoundError:
        return False
    except av.error.FFmpegError:
        return True
    raise AssertionError


@contextmanager
def pulled(server: Server, source: str, **options: Any) -> Iterator[httpx.Client]:
    """Let the server pull a source as the stream `live`, which is deleted at the end."""
    with httpx.Client(base_url=server.url, timeout=30) as http:
        created = http.post("/v1/streams", json={"id": "live", "source": source, **options})
        assert created.status_code == 201, created.text
        assert created.json()["mode"] == "latest"
        yield http
        assert http.delete("/v1/streams/live").is_success


def info(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/v1/streams/live").json()
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def sender(*output: str) -> Iterator[None]:
    """Send the street video as a live encoder does, again and again."""
    options = ("-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(street_video()), "-c", "copy")
    with subprocess.Popen(["ffmpeg", *options, *output], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make a certificate")
def test_a_camera_over_tls_is_pulled(puller: Server, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    files = ("-keyout", key, "-out", certificate)
    request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=camera", *files)
    subprocess.run(request, check=True, capture_output=True)
    with camera(0, "--tls", str(certificate), str(key)) as port:
        source = f"rtsps://127.0.0.1:{port}/camera"
        with pulled(puller, source) as http:
            eventually(lambda: info(http)["frames"] >= 10)
            assert info(http)["state"] == "running"
            assert info(http)["source"] == source


@needs_ffmpeg
def test_rtmp_is_pulled(puller: Server) -> None:
    address = f"rtmp://127.0.0.1:{free_port()}/live/gate"
    with sender("-f", "flv", "-listen", "1", address), pulled(puller, address) as http:
        eventually(lambda: info(http)["frames"] >= 10)
        assert info(http)["state"] == "running"


@needs_ffmpeg
def test_a_transport_stream_over_udp_is_pulled_and_its_frame_rate_limited(puller: Server) -> None:
    address = f"udp://127.0.0.1:{free_port()}"
    with sender("-f", "mpegts", f"{address}?pkt_size=1316"), pulled(puller, address, max_fps=5) as http:
        eventually(lambda: info(http)["frames"] >= 10)
        found = info(http)
        assert (found["state"], found["max_fps"]) == ("running", 5)
        assert found["dropped"] >= 3 * found["frames"]  # of 25 frames a second


@pytest.mark.skipif(_has_srt(), reason="this build of FFmpeg has SRT")
def test_a_protocol_that_ffmpeg_lacks_is_named(puller: Server) -> None:
    with pulled(puller, f"srt://127.0.0.1:{free_port()}") as http:
        eventually(lambda: info(http)["problem"] is not None)
        assert info(http)["problem"] == "FFmpeg, as it is installed here, has no SRT"


@pytest.mark.parametrize("source", ["udp://127.0.0.1", "srt://127.0.0.1"])
def test_a_source_without_a_port_of_its_own_must_name_one(puller: Server, source: str) -> None:
    refused = httpx.post(f"{puller.url}/v1/streams", json={"source": source})
    assert refused.status_code == 400
    assert "must name a port" in refused.json()["detail"]
