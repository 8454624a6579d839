"""`keywarp ray serve`, run as a user runs it: a replica is killed, and one is taken away."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.affinity import check_affinity
from tests.faults.viewers import check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

pytestmark = pytest.mark.ray

START_SECONDS = 180.0  # for Ray, its proxy and the replicas
REPLICAS = 3
CLIENTS = 9
BEFORE = 2.0  # seconds that all streams run undisturbed
AFTER = 6.0  # seconds that they run after the fault


@dataclass(frozen=True)
class Serving:
    """A running command."""

    url: str
    process: subprocess.Popen[str]

    def replicas(self) -> set[int]:
        """Return the process ids of the replicas."""
        parents = dict(_processes())
        return {pid for pid in parents if self._is_below(pid, parents) and _title(pid).startswith("ray::ServeReplica")}

    def busiest(self, seconds: float) -> int:
        """Return the process id of the replica that computes most, which therefore has streams."""
        before = {pid: _computed(pid) for pid in self.replicas()}
        time.sleep(seconds)
        return max(before, key=lambda pid: _computed(pid) - before[pid])

    def _is_below(self, pid: int, parents: dict[int, int]) -> bool:
        while pid in parents:
            if pid == self.process.pid:
                return True
            pid = parents[pid]
        return False


def _processes() -> Iterator[tuple[int, int]]:
    """List all processes: their ids, and those of their parents."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                yield int(entry.name), int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _computed(pid: int) -> int:
    """Return the ticks of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextmanager
def ray_serving(models: Path, *options: str) -> Iterator[Serving]:
    """Run `keywarp ray serve` until the block ends; it must then stop by itself on SIGTERM."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "keywarp.cli", "ray", "serve", "--models", str(models), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--backend", "onnxruntime", "--replica-cpus", "0.1", *options],
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    watchdog = threading.Timer(START_SECONDS, process.terminate)
    watchdog.start()
    try:
        lines = iter(process.stdout.readline, "")
        assert any(line == f"keywarp: listening on http://127.0.0.1:{port}\n" for line in lines)
        watchdog.cancel()
        rest = threading.Thread(target=lambda: [*lines])  # what replicas print
        rest.start()
        yield Serving(f"http://127.0.0.1:{port}", process)
        process.terminate()
        assert process.wait(START_SECONDS) == 0
        rest.join()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Run the command with a tiny bundle and three replicas."""
    models = tmp_path_factory.mktemp("ray") / "models"
    tiny_bundle(models / "tiny")
    with ray_serving(models, "--replicas", str(REPLICAS)) as running:
        yield running


def test_streams_are_found_again_by_their_ids(serving: Serving) -> None:
    check_affinity(serving.url, CLIENTS)
    listed = httpx.get(f"{serving.url}/v1/streams").json()
    assert len(listed) < 2 * CLIENTS, "the streams are on several replicas"


def test_a_killed_replicas_streams_go_on_elsewhere_and_each_frame_has_one_result(serving: Serving) -> None:
    replicas = serving.replicas()
    assert len(replicas) == REPLICAS
    with viewing(serving.url, CLIENTS) as viewers:
        victim = serving.busiest(BEFORE)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        time.sleep(AFTER)
        now = time.monotonic()
    check_each_frame_once(viewers)
    concerned = [viewer for viewer in viewers if viewer.reconnects]
    others = [viewer for viewer in viewers if not viewer.reconnects]
    breaks = {viewer.stream: round(viewer.longest_gap(killed, viewer.times[-1]), 2) for viewer in concerned}
    gaps = {viewer.stream: round(viewer.longest_gap(killed, now), 2) for viewer in others}
    before = max(viewer.longest_gap(killed - BEFORE, killed) for viewer in viewers)
    print(f"breaks {breaks}, gaps of others {gaps}, longest before {before:.2f} s")
    assert concerned
    assert others
    assert all(viewer.reconnects == 1 for viewer in concerned)
    deadline = time.monotonic() + START_SECONDS
    while len(serving.replicas() - {victim}) < REPLICAS:
        assert time.monotonic() < deadline, "Serve starts no other replica"
        time.sleep(0.1)


def test_models_that_cannot_be_loaded_end_the_command_with_the_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "keywarp.cli", "ray", "serve", "--models", str(tmp_path), "--port", "8199"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=START_SECONDS, check=False)
    assert result.returncode == 1
    assert "keywarp: the replicas can't start" in result.stderr
