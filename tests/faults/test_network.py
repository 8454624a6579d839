"""A network that is cut, resets connections or loses packets, and a proxy that is restarted, all under load.

The server runs in a network namespace of its own, behind a pair of virtual Ethernet interfaces. nftables drops packets
there, because kernels of virtual machines often lack netem.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.client.media import write_video
from tests.e2e.running import Server, serving
from tests.e2e.test_cameras import PATIENCE, camera, eventually
from tests.faults.proxy import PATH, haproxy
from tests.faults.viewers import FPS, check_each_frame_once, viewing
from tests.tiny_bundle import tiny_bundle

HERE, THERE = "10.213.77.1", "10.213.77.2"
VIEWERS = 3
LOST = 5  # per cent of the packets, in each direction
AWAY = 1.0  # seconds


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("models") / "tiny").path.parent


@dataclass(frozen=True)
class Network:
    """A network namespace. Its packets pass through a chain of rules."""

    name: str
    numbers: Iterator[int] = field(default_factory=count)  # of the tables of rules

    @property
    def within(self) -> tuple[str, ...]:
        """What runs a command in it."""
        return ("ip", "netns", "exec", self.name)

    @contextmanager
    def faulty(self, rule: str, hooks: Sequence[str] = ("input", "output")) -> Iterator[None]:
        """Apply a rule of nftables to packets of TCP that come in, go out or both, until the block ends."""
        table = f"fault{next(self.numbers)}"
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0; meta l4proto tcp {rule}; }}\n" for hook in hooks
        )
        self._nft(f"table inet {table} {{\n{chains}}}\n")
        try:
            yield
        finally:
            self._nft(f"delete table inet {table}\n")

    def _nft(self, rules: str) -> None:
        subprocess.run([*self.within, "nft", "-f", "-"], input=rules, encoding="utf-8", check=True)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    if not (shutil.which("ip", path=PATH) and shutil.which("nft", path=PATH)):
        pytest.skip("no iproute2 or nftables: `make packages` installs them")
    name = f"keywarp-{os.getpid()}"
    near, far = f"kw{os.getpid()}a"[:15], f"kw{os.getpid()}b"[:15]
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets root make no network namespace")
    try:
        for line in (
            f"link add {near} type veth peer name {far} netns {name}",
            f"address add {HERE}/30 dev {near}",
            f"link set {near} up",
            f"-n {name} address add {THERE}/30 dev {far}",
            f"-n {name} link set {far} up",
            f"-n {name} link set lo up",
        ):
            subprocess.run(["ip", *line.split()], check=True)
        yield Network(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@contextmanager
def far_server(network: Network, models: Path, *options: str) -> Iterator[Server]:
    with ExitStack() as opened:
        yield opened.enter_context(
            serving(
                *("--host", THERE, "--backend", "onnxruntime", "--address-streams", "32", *options),
                models=models,
                within=network.within,
            )
        )


def test_clients_and_a_camera_outlive_loss_a_silent_cut_and_resets(
    network: Network, models: Path, tmp_path: Path
) -> None:
    archive, site = tmp_path / "gate.ndjson", tmp_path / "site.toml"
    clip = write_video(tmp_path / "clip.mp4", frames=1000, fps=FPS)
    with camera(0, clip=clip) as port:
        site.write_text(
            f"""
            [streams.gate]
            source = "rtsp://{HERE}:{port}/camera"
            sinks = ["archive"]

            [sinks.archive]
            file = "{archive}"
            """
        )
        with (
            far_server(network, models, "--site", str(site)) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE) as http,
            viewing(server.url, VIEWERS) as viewers,
        ):

            def more_results() -> None:
                counts = [len(viewer.frames) for viewer in viewers]
                eventually(lambda: all(len(v.frames) > n + FPS for v, n in zip(viewers, counts, strict=True)))
                frames = http.get("/v1/streams/gate").json()["frames"]
                eventually(lambda: http.get("/v1/streams/gate").json()["frames"] > frames)

            with network.faulty(f"numgen random mod 100 < {LOST} drop"):
                more_results()
            with network.faulty("drop"):  # the cable is out; nobody is told
                time.sleep(AWAY)
            more_results()
            with network.faulty("tcp flags & rst == 0 reject with tcp reset"):
                time.sleep(AWAY)
            more_results()
            # Only the viewers' ends are reset, and the server isn't told by their answers either.
            to_server = f"tcp dport {urlsplit(server.url).port}"
            with network.faulty(f"{to_server} tcp flags & rst != 0 drop", ["input"]):
                with network.faulty(f"{to_server} tcp flags & rst == 0 reject with tcp reset", ["input"]):
                    time.sleep(AWAY)
                more_results()
            eventually(lambda: http.get("/v1/streams/gate").json()["state"] == "running")
            gate = http.get("/v1/streams/gate").json()
    check_each_frame_once(viewers)
    assert all(viewer.reconnects >= 2 for viewer in viewers), "a reset ends connections"
    assert gate["reconnects"] >= 1
    kept = [json.loads(line) for line in archive.read_text().splitlines()]
    assert [line["frame"] for line in kept] == list(range(len(kept))), "each frame that was read has one response"
    assert len(kept) >= gate["frames"] + gate["dropped"] + gate["errors"]


def test_streams_go_on_after_the_proxy_was_restarted(models: Path, tmp_path: Path) -> None:
    with (
        serving("--backend", "onnxruntime", models=models) as one,
        serving("--backend", "onnxruntime", models=models) as two,
        ExitStack() as later,
    ):
        first = ExitStack()
        url = first.enter_context(haproxy(tmp_path, [one.url, two.url]))
        with first, viewing(url, VIEWERS) as viewers:
            first.close()
            time.sleep(AWAY)
            counts = [len(viewer.frames) for viewer in viewers]
            later.enter_context(haproxy(tmp_path, [one.url, two.url], urlsplit(url).port or 0))
            eventually(lambda: all(len(v.frames) > n + FPS for v, n in zip(viewers, counts, strict=True)))
    check_each_frame_once(viewers)
    assert all(viewer.reconnects for viewer in viewers)
