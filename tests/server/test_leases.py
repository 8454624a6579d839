"""Several servers on one host share the cameras of a site."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from threading import Event

import pytest

from keywarp.server.errors import SiteError
from keywarp.server.leases import LONGEST_FREE, Leases
from tests.server.conftest import Running, Starter, eventually
from tests.server.sinks.test_sinks import write_site
from tests.server.source_server import SourceServer, camera

Join = Callable[[], Leases]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Let servers join."""
    servers: list[Leases] = []

    def join_one() -> Leases:
        servers.append(Leases(tmp_path / "leases"))
        return servers[-1]

    yield join_one
    for server in servers:
        server.close()


def play(servers: list[Leases], cameras: list[str], rounds: int = 12) -> list[int]:
    """Let each server take its turn some times, and return how many cameras each has."""
    for _ in range(rounds):
        for server in servers:
            moves = server.plan(cameras)
            if moves.give:
                server.give(moves.give)
            for one in moves.take:
                server.take(one)
    held = Counter(one for one in cameras for server in servers if one in server)
    assert held == Counter(cameras), "each camera has exactly one server"
    return [sum(one in server for one in cameras) for server in servers]


@pytest.mark.parametrize(("count", "shares"), [(1, [0, 0, 1]), (4, [1, 1, 2]), (6, [2, 2, 2]), (50, [16, 17, 17])])
def test_servers_that_start_together_have_equal_shares(join: Join, count: int, shares: list[int]) -> None:
    assert sorted(play([join(), join(), join()], [f"camera-{n}" for n in range(count)])) == shares


def test_of_servers_that_want_the_same_camera_at_the_same_time_one_gets_it(join: Join) -> None:
    servers = [join(), join(), join()]
    assert [server.plan(["gate"]).take for server in servers] == [("gate",)] * 3
    assert [server.take("gate") for server in servers] == [True, False, False]
    servers[0].give("gate")
    assert [server.take("gate") for server in reversed(servers)] == [True, False, False]


def test_a_servers_cameras_go_to_the_others_and_theirs_stay(join: Join) -> None:
    cameras = [f"camera-{n}" for n in range(6)]
    dead, *others = servers = [join(), join(), join()]
    play(servers, cameras)
    before = [{one for one in cameras if one in server} for server in others]
    dead.close()
    assert play(others, cameras) == [3, 3]
    assert all({one for one in cameras if one in server} > had for server, had in zip(others, before, strict=True))


def test_a_server_that_joins_gets_its_share_and_no_more_than_needed_moves(join: Join) -> None:
    cameras = [f"camera-{n}" for n in range(4)]
    servers = [join(), join()]
    assert play(servers, cameras) == [2, 2]
    before = {one: server for one in cameras for server in servers if one in server}
    servers.append(join())
    assert sorted(play(servers, cameras)) == [1, 1, 2]
    assert sum(one not in server for one, server in before.items()) == 1


def test_a_camera_that_the_servers_with_the_fewest_leave_alone_is_taken_by_another(join: Join) -> None:
    busy, idle = join(), join()
    busy.take("a")
    for _ in range(LONGEST_FREE):
        assert busy.plan(["a", "b"]).take == ()
        assert idle.plan(["a", "b"]).take == ("b",)  # but it can't start it
    assert busy.plan(["a", "b"]).take == ("b",)


def test_a_camera_whose_file_cannot_be_written_is_held_by_nobody(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    full, other = join(), join()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", fail)
        with pytest.raises(OSError, match="no space left"):
            full.take("gate")
    assert "gate" not in full
    assert other.take("gate")


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SiteError, match="can't be shared out in"):
        Leases(tmp_path / "file")


def test_each_camera_is_pulled_by_one_server_and_goes_on_elsewhere_when_that_stops(
    start: Starter, tmp_path: Path, web: SourceServer
) -> None:
    hang_up = Event()
    names = ["gate", "yard", "door", "roof"]
    for name in names:
        web.responders[f"/{name}"] = camera(3, hang_up)
    site = write_site(tmp_path, "\n".join(f'[streams.{name}]\nsource = "{web.address}/{name}"' for name in names))

    def pulled(*servers: Running) -> list[list[str]]:
        return [sorted(stream["id"] for stream in server.http.get("/v1/streams").json()) for server in servers]

    one = start(site=site, leases=tmp_path / "leases")
    eventually(lambda: pulled(one) == [sorted(names)])
    two = start(site=site, leases=tmp_path / "leases")
    eventually(lambda: [len(ids) for ids in pulled(one, two)] == [2, 2])
    first, second = pulled(one, two)
    assert sorted(first + second) == sorted(names)
    metrics = two.http.get("/metrics").text
    assert all((f'camera="{name}"' in metrics) == (name in second) for name in names), "those of this server only"

    site.write_text(site.read_text().replace(f"[streams.{first[0]}]", "[streams.attic]"))
    for server in (one, two):
        assert server.http.post("/v1/reload").is_success
    renamed = sorted({*names, "attic"} - {first[0]})
    eventually(lambda: sorted(chain(*pulled(one, two))) == renamed)

    one.server.should_exit = True
    eventually(lambda: pulled(two) == [renamed])
    hang_up.set()


def test_a_camera_that_cannot_be_started_stops_no_other(start: Starter, tmp_path: Path, web: SourceServer) -> None:
    hang_up = Event()
    web.responders["/live"] = camera(3, hang_up)
    text = f"""
        [streams.bad]
        source = "{web.address}/live"
        model = "other"

        [streams.good]
        source = "{web.address}/live"
    """
    server = start(site=write_site(tmp_path, text), leases=tmp_path / "leases")
    eventually(lambda: [stream["id"] for stream in server.http.get("/v1/streams").json()] == ["good"])
    eventually(lambda: 'keywarp_camera_state{camera="bad",state="failed"} 1.0' in server.http.get("/metrics").text)
    hang_up.set()
