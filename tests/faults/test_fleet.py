"""Real servers behind one address: their streams in one list and on one wall, with the caller's key."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from keywarp.client import Client
from keywarp.client.errors import ApiError
from keywarp.server.security.keys import add_key, new_key
from tests.e2e.running import Server, serving
from tests.e2e.test_cameras import PATIENCE, eventually
from tests.faults.proxy import haproxy
from tests.tiny_bundle import tiny_bundle

STREAMS = 8
PICTURE = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_bundle(folder / "tiny")
    return folder


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        probes = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def fleet(models: Path, *options: str, keys: tuple[Path, ...] = (), killed: bool = False) -> Iterator[list[Server]]:
    """Run two servers that know each other and themselves. The block may kill the second."""
    ports = free_ports(2)
    peers = [word for port in ports for word in ("--peer", f"http://127.0.0.1:{port}")]
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                serving(
                    *("--port", str(port), "--backend", "onnxruntime", *peers, *options),
                    *(("--keys", str(keys[number])) if keys else ()),
                    models=models,
                    status=-9 * (killed and number == 1),
                )
            )
            for number, port in enumerate(ports)
        ]


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def test_every_server_lists_and_shows_the_streams_of_all(models: Path, tmp_path: Path) -> None:
    with (
        fleet(models, killed=True) as servers,
        haproxy(tmp_path, [server.url for server in servers]) as url,
        Client(url, timeout=PATIENCE) as client,
    ):
        ids = {client.create_stream(f"stream-{number}").id for number in range(STREAMS)}
        homes = {id_: next(one for one in servers if has(one, id_)) for id_ in ids}
        assert len({home.url for home in homes.values()}) == 2, "both have streams"
        for asked in (url, *(server.url for server in servers)):
            with Client(asked) as one:
                found = one.fleet()
            assert {stream.id: stream.server for stream in found.streams} == {
                id_: address(home) for id_, home in homes.items()
            }
            assert sorted(info.address for info in found.servers) == sorted(map(address, servers))
            assert not any(info.problem for info in found.servers)
        assert on_wall(url, ids) == ids
        servers[1].process.kill()
        servers[1].process.wait()
        eventually(lambda: httpx.get(f"{url}/readyz").is_success)
        left = client.fleet()
        assert {stream.id for stream in left.streams} == {id_ for id_, home in homes.items() if home is servers[0]}
        silent = next(info for info in left.servers if info.address == address(servers[1]))
        assert silent.streams is None
        assert "can't be reached" in (silent.problem or "")


def has(server: Server, stream: str) -> bool:
    return httpx.get(f"{server.url}/v1/streams/{stream}").is_success


def on_wall(url: str, streams: set[str]) -> set[str]:
    """Watch the wall of one server until it has shown all streams, which get frames meanwhile."""
    over = threading.Event()

    def feed() -> None:
        with Client(url, timeout=PATIENCE) as client:
            while not over.wait(0.1):
                for stream in streams:
                    client.infer(stream, PICTURE)

    feeding = threading.Thread(target=feed)
    feeding.start()
    seen: set[str] = set()
    try:
        with httpx.stream("GET", f"{url}/v1/previews?fleet=true&fps=10", timeout=PATIENCE) as response:
            shown = b""
            for chunk in response.iter_raw():
                shown += chunk
                seen = {stream for stream in streams if f"Keywarp-Stream: {stream}\r\n".encode() in shown}
                if seen == streams:
                    break
    finally:
        over.set()
        feeding.join()
    return seen


def test_each_server_decides_what_the_callers_key_may_see(models: Path, tmp_path: Path) -> None:
    files = (tmp_path / "first.txt", tmp_path / "second.txt")
    shared, key = new_key("everywhere", "stream")
    lonely, other = new_key("only-first", "stream")
    for file in files:
        add_key(file, key)
    add_key(files[0], other)
    with fleet(models, keys=files) as servers:
        for number, server in enumerate(servers):
            with Client(server.url, api_key=shared) as client:
                client.create_stream(f"stream-{number}")
        with Client(servers[0].url, api_key=shared) as client:
            assert {stream.id for stream in client.fleet().streams} == {"stream-0", "stream-1"}
        with Client(servers[0].url, api_key=lonely) as client:
            found = client.fleet()
            assert {stream.id for stream in found.streams} == {"stream-0"}
            assert [info.problem for info in found.servers] == [None, "it refuses this API key (status 401)"]
        with Client(servers[0].url) as client, pytest.raises(ApiError) as refused:
            client.fleet()
        assert refused.value.status == 401


def test_a_server_that_hangs_is_named_and_delays_the_list_only_for_a_while(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections, and never answers
        port = silent.getsockname()[1]
        with (
            serving("--backend", "onnxruntime", "--peer", f"http://127.0.0.1:{port}", models=models) as server,
            Client(server.url, timeout=PATIENCE) as client,
        ):
            client.create_stream("here")
            found = client.fleet()
    assert [stream.id for stream in found.streams] == ["here"]
    assert [info.problem for info in found.servers] == [None, "it didn't answer within 2 s"]


def test_a_name_stands_for_all_servers_that_it_has_now(models: Path) -> None:
    peers = ("--peer", "dns://keywarp-nobody.invalid:8080", "--peer", "dns://localhost:9")
    with (
        serving("--backend", "onnxruntime", *peers, models=models) as server,
        Client(server.url, timeout=PATIENCE) as client,
    ):
        found = client.fleet()
    assert [info.address for info in found.servers][1:] == ["127.0.0.1:9"], "a name without servers is no fault"
    assert "can't be reached" in (found.servers[1].problem or "")
