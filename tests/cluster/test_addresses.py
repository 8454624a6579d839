"""Which requests reach the same replica. The router itself runs in tests/cluster/test_serve.py, with Ray."""

from typing import Any

import pytest

from keywarp.cluster.addresses import affinity


def scope(path: str, query: str = "", **headers: str) -> dict[str, Any]:
    return {
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.168.7.9", 50_000),
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (scope("/v1/streams/gate"), "gate"),
        (scope("/v1/streams/gate/ws"), "gate"),
        (scope("/v1/streams/gate/frames", keywarp_sequence="other"), "gate"),
        (scope("/v1/videos", "model=street&id=gate%201"), "gate 1"),
        (scope("/v1/events", "stream=gate"), "gate"),
        (scope("/v2/models/street/infer", keywarp_sequence="gate"), "gate"),
    ],
)
def test_requests_about_a_stream_go_by_its_id(request_: dict[str, Any], expected: str) -> None:
    assert affinity(request_) == expected


@pytest.mark.parametrize("path", ["/", "/v1/streams", "/v1/streams/", "/v1/models", "/v1/events", "/v2/health/live"])
def test_other_requests_of_a_client_stay_together(path: str) -> None:
    assert affinity(scope(path)) == "192.168.7.9"


def test_uploads_without_an_id_go_anywhere() -> None:
    assert affinity(scope("/v1/videos", "model=street")) is None
