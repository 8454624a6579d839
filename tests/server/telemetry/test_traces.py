"""Traces as a collector receives them from a server process."""

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from keywarp.protocol import SUBPROTOCOL, Hello, Result
from tests.server.conftest import StreamConnection, eventually
from tests.server.media import B_FRAMES, jpeg, mpegts
from tests.server.test_process import process

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
STAGES = ["decode", "queue", "inference", "postprocess"]


class Collector(ThreadingHTTPServer):
    """A collector of traces by OTLP over HTTP."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.resource: dict[str, Any] = {}
        self.spans: list[Span] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # milliseconds
        }

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, span: Span) -> list[Span]:
        return [child for child in self.spans if child.parent_span_id == span.span_id]


class _Taker(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resource = values(group.resource)
            for scope in group.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def values(of: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def serving(models: Path, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a server process, give its URL, and terminate it as a user would, so that it exports the remaining spans."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with process("--models", str(models)) as running:
        assert running.stdout
        url = running.stdout.readline().split()[-1]
        eventually(lambda: httpx.get(f"{url}/readyz").is_success)
        yield url
        running.terminate()
        assert running.wait(20) == 0


def test_a_request_is_a_span_of_its_callers_trace_with_a_span_for_its_frame(
    models: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    with serving(models, monkeypatch, collector.environment) as url, httpx.Client(base_url=url) as http:
        http.post("/v1/streams", json={"id": "door", "interval": 5})
        answer = http.post("/v1/streams/door/frames", content=jpeg(), headers=TRACEPARENT)
        result = Result.model_validate_json(answer.content)
        assert http.post("/v1/streams/door/frames", content=b"no image").status_code == 415
        assert http.post("/v1/streams/elsewhere/frames", content=jpeg()).status_code == 404
        eventually(lambda: len(collector.named("POST /v1/streams/{stream_id}/frames")) == 3)
    request, refused, unknown = collector.named("POST /v1/streams/{stream_id}/frames")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.kind == Span.SPAN_KIND_SERVER
    assert values(request)["http.route"] == "/v1/streams/{stream_id}/frames"
    assert values(request)["http.response.status_code"] == 200
    assert [values(span)["http.response.status_code"] for span in (refused, unknown)] == [415, 404]
    (frame,) = collector.children(request)
    assert (frame.name, frame.trace_id.hex()) == ("frame", TRACE)
    assert values(frame) == {
        "keywarp.stream": "door",
        "keywarp.model": "tiny",
        "keywarp.frame": 0,
        "keywarp.kind": "key",
        "keywarp.key_age": 0,
        "keywarp.key_age_seconds": 0.0,
        "keywarp.reason": "start",
    }
    stages = collector.children(frame)
    assert [stage.name for stage in stages] == STAGES
    for stage, (name, seconds) in zip(stages, result.timings, strict=True):
        assert stage.name == name
        assert (stage.end_time_unix_nano - stage.start_time_unix_nano) / 1e9 == pytest.approx(seconds, abs=2e-9)
    bounds = [time for stage in stages for time in (stage.start_time_unix_nano, stage.end_time_unix_nano)]
    assert bounds == sorted(bounds)
    assert frame.start_time_unix_nano == bounds[0]
    assert request.start_time_unix_nano <= bounds[0] < bounds[-1] <= request.end_time_unix_nano
    (failed,) = collector.children(refused)
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert values(failed)["error.type"] == "not_an_image"
    assert collector.resource["service.name"] == "keywarp"
    assert not [span for span in collector.spans if "readyz" in span.name]


def test_each_frame_of_a_connection_is_a_trace_linked_to_the_connection(
    models: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    with serving(models, monkeypatch, collector.environment) as url:
        address = url.replace("http", "ws", 1) + "/v1/streams/gate/ws"
        options: dict[str, Any] = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "additional_headers": TRACEPARENT}
        with connect(address, **options) as socket:
            StreamConnection(socket, Hello(interval=2)).stream([(i, jpeg()) for i in range(4)])
        eventually(lambda: bool(collector.named("WS /v1/streams/{stream_id}/ws")))
    (connection,) = collector.named("WS /v1/streams/{stream_id}/ws")
    assert (connection.trace_id.hex(), connection.parent_span_id.hex()) == (TRACE, PARENT)
    frames = collector.named("frame")
    assert [values(frame)["keywarp.kind"] for frame in frames] == ["key", "propagated"] * 2
    assert len({frame.trace_id for frame in frames} | {connection.trace_id}) == 5
    for frame in frames:
        assert not frame.parent_span_id
        assert [(link.trace_id, link.span_id) for link in frame.links] == [(connection.trace_id, connection.span_id)]
        assert [stage.name for stage in collector.children(frame)] == STAGES


def test_each_frame_of_an_upload_is_a_trace_and_the_uploads_span_lasts_to_its_end(
    models: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    with serving(models, monkeypatch, collector.environment) as url:
        video = mpegts(10, B_FRAMES)

        def in_two_parts() -> Iterator[bytes]:
            yield video[:1000]
            eventually(lambda: bool(httpx.get(f"{url}/v1/streams").json()))
            yield video[1000:]

        answer = httpx.post(f"{url}/v1/videos", params={"codec": "mpegts"}, content=in_two_parts())
        assert len(answer.text.splitlines()) == 11
        eventually(lambda: bool(collector.named("POST /v1/videos")))
    (upload,) = collector.named("POST /v1/videos")
    frames = collector.named("frame")
    assert [values(frame)["keywarp.frame"] for frame in frames] == list(range(10))
    assert all(frame.links[0].span_id == upload.span_id for frame in frames)
    assert upload.end_time_unix_nano >= max(frame.end_time_unix_nano for frame in frames)


def test_the_environment_chooses_the_sampler_and_the_names(
    models: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector
) -> None:
    environment = collector.environment | {
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_SERVICE_NAME": "gates",
        "OTEL_RESOURCE_ATTRIBUTES": "site=north",
    }
    with serving(models, monkeypatch, environment) as url, httpx.Client(base_url=url) as http:
        http.post("/v1/streams", json={"id": "door"})
        for _ in range(3):
            http.post("/v1/streams/door/frames", content=jpeg())
        http.post("/v1/streams/door/frames", content=jpeg(), headers=TRACEPARENT)
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}  # including the spans exported at the end
    assert len(collector.spans) == 2 + len(STAGES)
    assert (collector.resource["service.name"], collector.resource["site"]) == ("gates", "north")


def test_a_missing_collector_delays_no_request(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with serving(models, monkeypatch, environment) as url, httpx.Client(base_url=url) as http:
        http.post("/v1/streams", json={"id": "door"})
        for _ in range(20):
            assert http.post("/v1/streams/door/frames", content=jpeg()).is_success


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "not grpc"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "OTEL_ variable is wrong"),
    ],
)
def test_unsupported_settings_end_the_server_with_one_sentence(
    models: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with process("--models", str(models)) as running:
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 1
    assert says in errors
    assert "Traceback" not in errors


def test_a_missing_extra_is_named(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with process("--models", str(models)) as running:
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 1
    assert "traces need opentelemetry" in errors
    assert "`otel`" in errors


def test_no_exporter_is_imported_unless_traces_are_wanted(models: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from keywarp.server.app import create_app
from keywarp.server.settings import Settings
create_app(Settings(models=Path({str(models)!r}), backend="onnxruntime"))
assert not [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
