"""A wall clock that jumps, as after a wrong NTP answer, under a server whose streams and rules go on."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import numpy as np
import pytest

from keywarp.client import Client
from keywarp.protocol.events import Rule, Rules
from tests.e2e.running import serving
from tests.e2e.test_cameras import PATIENCE, eventually
from tests.faults.viewers import FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
VIEWERS = 1


def test_streams_and_events_go_on_when_the_clock_jumps(tmp_path: Path) -> None:
    if not LIBRARY.exists():
        pytest.skip("no libfaketime: `make packages` installs it")
    models = tiny_bundle(tmp_path / "models" / "tiny").path.parent
    clock = tmp_path / "clock"
    clock.write_text("+0")
    within = (
        *("env", f"LD_PRELOAD={LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_CACHE_DURATION=1"),
        *("FAKETIME_DONT_FAKE_MONOTONIC=1", "OMP_NUM_THREADS=1"),
    )
    with (
        serving("--backend", "onnxruntime", models=models, within=within, log=tmp_path / "log") as server,
        Client(server.url, timeout=PATIENCE) as client,
        viewing(server.url, VIEWERS) as viewers,
    ):

        def more_results() -> None:
            counts = [len(viewer.frames) for viewer in viewers]
            eventually(lambda: all(len(v.frames) > n + FPS for v, n in zip(viewers, counts, strict=True)))

        def jump(days: int) -> None:
            clock.write_text(f"{days:+}d")
            eventually(lambda: round((server_time() - datetime.now(UTC)) / timedelta(days=1)) == days)

        def server_time() -> datetime:
            return parsedate_to_datetime(httpx.get(f"{server.url}/healthz", timeout=PATIENCE).headers["date"])

        for days in (1, -1):
            jump(days)
            more_results()
        client.create_stream("door")
        client.set_rules("door", Rules(rules={"red": Rule(classes=("red",))}))
        list(client.stream([np.full((48, 64, 3), (255, 0, 0), np.uint8)] * 10, stream_id="door"))
        started = client.events("door")
        jump(-2)
        client.set_rules("door", Rules())  # ends the event, a day before it started
        ended = client.events("door")
    check_each_frame_once(viewers)
    assert not any(viewer.reconnects for viewer in viewers)
    assert [event.state for event in started] == ["started"]
    assert all(event.state == "ended" and event.end and event.end >= event.start for event in ended), ended
