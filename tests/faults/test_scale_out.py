"""Three server processes behind haproxy: one is killed, one stops."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tests.client.media import write_video
from tests.e2e.running import Server, serving
from tests.e2e.test_cameras import PATIENCE, camera, eventually
from tests.faults.affinity import check_affinity
from tests.faults.proxy import haproxy
from tests.faults.viewers import CLIENTS, FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

SERVERS = 3
BEFORE = 2.0  # seconds that all streams run undisturbed
AFTER = 4.0  # seconds that they run after the fault
MOST_BREAK = 2.0  # seconds up to the next result of a stream that it does


@dataclass(frozen=True)
class Farm:
    """Servers behind a proxy."""

    url: str
    servers: list[Server]

    def holding(self, stream: str) -> list[Server]:
        """Return the servers that live and have a stream."""
        living = [server for server in self.servers if server.process.poll() is None]
        return [server for server in living if httpx.get(f"{server.url}/v1/streams/{stream}").is_success]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Make a folder with one tiny bundle."""
    tiny_bundle(tmp_path / "models" / "tiny")
    return tmp_path / "models"


@contextmanager
def farm(folder: Path, models: Path, *, site: str = "", killed: bool = False) -> Iterator[Farm]:
    """Run the servers and the proxy. Servers must stop by themselves, except for the first if the block kills it."""
    (folder / "site.toml").write_text(site)
    options = ("--backend", "onnxruntime", "--site", str(folder / "site.toml"), "--leases", str(folder / "leases"))
    with ExitStack() as opened:
        servers = [
            opened.enter_context(serving(*options, models=models, status=-9 * (killed and n == 0)))
            for n in range(SERVERS)
        ]
        yield Farm(opened.enter_context(haproxy(folder, [server.url for server in servers])), servers)


def archived(file: Path) -> list[tuple[int, datetime]]:
    """Return the frame and the time of all responses in a sink's file."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [(line["frame"], datetime.fromisoformat(line["time"])) for line in lines]


def test_a_killed_servers_streams_and_camera_go_on_elsewhere_and_others_feel_nothing(
    tmp_path: Path, models: Path
) -> None:
    clip = write_video(tmp_path / "clip.mp4", frames=600, fps=FPS)
    archive = tmp_path / "gate.ndjson"
    with camera(0, clip=clip) as port:
        site = f"""
            [streams.gate]
            source = "rtsp://127.0.0.1:{port}/camera"
            sinks = ["archive"]

            [sinks.archive]
            file = "{archive}"
        """
        with farm(tmp_path, models, site=site, killed=True) as servers, viewing(servers.url) as viewers:
            eventually(lambda: archive.exists() and len(archived(archive)) > FPS)
            victim = servers.servers[0]
            assert servers.holding("gate") == [victim]
            homes = {viewer.stream: servers.holding(viewer.stream) for viewer in viewers}
            assert all(len(home) == 1 for home in homes.values()), "each stream is on one server"
            concerned = [viewer for viewer in viewers if homes[viewer.stream] == [victim]]
            others = [viewer for viewer in viewers if viewer not in concerned]
            assert concerned
            assert len({home.url for (home,) in homes.values()}) == SERVERS, "every server has streams"
            time.sleep(BEFORE)
            killed, since = time.monotonic(), len(archived(archive))
            victim.process.kill()
            time.sleep(AFTER)
            now = time.monotonic()
            eventually(lambda: len(archived(archive)) > since + FPS)
            assert len(servers.holding("gate")) == 1, "one server pulls the camera"
            responses = archived(archive)
    check_each_frame_once(viewers)
    breaks = {viewer.stream: viewer.longest_gap(killed, now) for viewer in concerned}
    gaps = {viewer.stream: viewer.longest_gap(killed, now) for viewer in others}
    before = max(viewer.longest_gap(killed - BEFORE, killed) for viewer in viewers)
    frames = [frame for frame, _ in responses]
    again = frames.index(0, 1)  # where the other server begins
    dark = (responses[again][1] - responses[again - 1][1]).total_seconds()
    print(f"breaks {breaks}, gaps of others {gaps}, longest before {before:.3f} s, camera {dark:.2f} s")
    assert frames == [*range(again), *range(len(frames) - again)], "one response for each frame that was read"
    assert all(viewer.reconnects == 1 for viewer in concerned)
    assert all(viewer.reconnects == 0 for viewer in others)
    assert max(breaks.values()) < MOST_BREAK
    assert dark < MOST_BREAK


def test_a_server_that_stops_finishes_its_frames_and_its_streams_go_on_elsewhere(tmp_path: Path, models: Path) -> None:
    with farm(tmp_path, models) as servers, viewing(servers.url) as viewers:
        leaving = servers.servers[0]
        concerned = [viewer for viewer in viewers if leaving in servers.holding(viewer.stream)]
        assert concerned
        leaving.process.terminate()
        assert leaving.process.wait(PATIENCE) == 0
        counts = [len(viewer.frames) for viewer in viewers]
        eventually(lambda: all(len(viewer.frames) > count + FPS for viewer, count in zip(viewers, counts, strict=True)))
    check_each_frame_once(viewers)
    assert [viewer for viewer in viewers if viewer.reconnects] == concerned


def test_streams_are_found_again_by_their_ids_in_the_path_and_the_header(tmp_path: Path, models: Path) -> None:
    with farm(tmp_path, models) as servers:
        ids = check_affinity(servers.url, CLIENTS)
        assert len({home.url for id_ in ids for home in servers.holding(id_)}) > 1
        lists = [httpx.get(f"{server.url}/v1/streams").json() for server in servers.servers]
        sequences = [[stream for stream in streams if stream["id"] not in ids] for streams in lists]
        assert len([streams for streams in sequences if streams]) > 1, "sequences are on several servers"
