"""A wall clock that jumps, as after a wrong NTP answer, under a server whose streams and rules go on."""

from pathlib import Path

import httpx
import pytest

from keywarp.client import Client
from keywarp.protocol.events import Rule, Rules
from tests.e2e.running import serving
from tests.e2e.test_cameras import PATIENCE, eventually
from tests.faults.viewers import FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
VIEWERS = 2


def test_streams_and_events_go_on_when_the_clock_jumps(tmp_path: Path) -> None:
    if not LIBRARY.exists():
        pytest.skip("no libfaketime: `make packages` installs it")
    models = tiny_bundle(tmp_path / "models" / "tiny").path.parent
    clock = tmp_path / "clock"
    clock.write_text("+0")
    within = (
        *("env", f"LD_PRELOAD={LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1"),
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

        client.set_rules("viewer-0", Rules(rules={"any": Rule()}))
        more_results()
        started = client.events("viewer-0")
        for jump in ("+1d", "-1d", "+0"):
            clock.write_text(jump)
            more_results()
        assert len({httpx.get(f"{server.url}/v1/streams/viewer-{n}").json()["id"] for n in range(VIEWERS)}) == VIEWERS
        clock.write_text("-1d")
        client.set_rules("viewer-0", Rules())  # ends the event, a day before it started
        ended = client.events("viewer-0")
    check_each_frame_once(viewers)
    assert not any(viewer.reconnects for viewer in viewers)
    assert started
    assert all(event.state == "ended" and event.end and event.end >= event.start for event in ended), ended
