"""Frames of more sizes than a model is compiled for."""

from typing import Any

import pytest

from keywarp.engines import Engine
from tests.server.conftest import Starter
from tests.server.faults.neighbour import undisturbed
from tests.server.media import jpeg


def test_a_further_size_does_not_take_the_place_of_one_in_use(
    start: Starter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[int, int]] = []
    compile_ = Engine._compile

    def counting(engine: Engine, height: int, width: int) -> Any:
        compiled.append((height, width))
        return compile_(engine, height, width)

    server = start(max_sizes=3)
    monkeypatch.setattr(Engine, "_compile", counting)
    with undisturbed(server) as neighbour:
        server.http.post("/v1/streams", json={"id": "wide"})
        statuses = [server.frame("wide", jpeg(width=128 + 32 * i)).status_code for i in range(1, 9)]
        assert statuses == [200, 200, *[503] * 6]
        refused = server.frame("wide", jpeg(width=512))
        assert refused.headers["Retry-After"] == "60"
        assert "at most 3 input sizes" in refused.json()["detail"]
        assert server.frame("wide", jpeg(width=160)).is_success, "the stream doesn't go on"
        neighbour.receives(3)
    assert len(compiled) == 3, "the model is compiled again and again"
    assert caplog.text.count("allow more by --max-sizes") == 1
    assert 'reason="too_many_sizes"' in server.http.get("/metrics").text
