"""`keywarp bench` on a tiny model: that it runs, and that its figures add up."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from keywarp.commands.local_server import local_server
from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle
from tests.videos.films import film, saved


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


@pytest.fixture(scope="module")
def url(models: Path) -> Iterator[str]:
    with local_server(models) as url:
        yield url


def bench(*arguments: str | Path) -> str:
    done = keywarp("bench", *arguments)
    assert done.status == 0, done.stderr
    return done.stdout


def figures(*arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench(*arguments, "--json"))
    return found


def test_the_engine_is_timed_by_itself(models: Path) -> None:
    common = "engine", "--model", "tiny", "--models", models, "--interval", "5", "--rounds", "2"
    found = figures(*common)
    seconds = found["seconds"]
    assert set(seconds) == {"key", "propagated", "keyed", "per_frame"}
    assert found["speed_up"] == pytest.approx(seconds["per_frame"] / seconds["keyed"])
    assert "640x272, interval 5, batch 1, model tiny" in found["setting"]
    assert "speed-up" in bench(*common)


def test_frames_that_are_stored_on_their_side_are_timed_upright_unless_they_are_wanted_as_stored(
    models: Path, tmp_path: Path
) -> None:
    turned = saved(tmp_path / "turned.mp4", film(turn=90))
    common = "--model", "tiny", "--models", models, "--video", turned, "--rounds", "1"
    assert "48x64" in figures("engine", *common)["setting"]
    assert "64x48" in figures("engine", *common, "--as-stored")["setting"]
    # A decoder of bare packets leaves them as they are stored, so JPEG images are made of frames as stored, too.
    assert "64x48" in figures("server", *common, "--frames", "5")["setting"]


def test_the_server_is_compared_with_one_process(models: Path) -> None:
    found = figures("server", "--model", "tiny", "--models", models, "--rounds", "1", "--frames", "12")
    assert set(found["fps"]) == {"image alone", "image served", "h264 alone", "h264 served"}
    assert found["share"]["h264"] == pytest.approx(found["fps"]["h264 served"] / found["fps"]["h264 alone"])
    for codec in ("image", "h264"):
        assert set(found["processor"][codec]) == {"alone", "server", "client"}
        assert all(0 <= seconds < 1 for seconds in found["processor"][codec].values())
        assert found["processor"][codec]["alone"] > 0
    for where in ("alone", "served"):
        assert 0 < found["latency"]["p50"][where] <= found["latency"]["p99"][where]


@pytest.mark.parametrize(
    "options", [(), ("--codec", "h264"), ("--codec", "h264", "--size", "64x48"), ("--over", "rest")], ids=" ".join
)
def test_every_frame_of_the_cameras_is_accounted_for(url: str, options: tuple[str, ...]) -> None:
    common = "load", "--model", "tiny", "--server", url, "--warm-up", "0.2"
    found = figures(*common, "--cameras", "3", "--fps", "20", "--seconds", "1", *options)
    (step,) = found["steps"]
    assert step["results"] > 0
    assert step["due"] == 3 * 20
    assert step["results"] + sum(step["lost"].values()) == step["due"]
    assert step["latency"]["all"]["count"] == step["results"]
    assert step["latency"]["all"]["p50"] <= step["latency"]["all"]["p100"]
    assert step["latency"]["key"]["count"] == pytest.approx(step["key_share"] * step["results"])
    assert step["generator"]["lateness"]["count"] == step["due"]
    assert step["server"]["memory"] > 0


def test_a_ramp_finds_a_limit_for_two_intervals_and_draws_it(url: str, tmp_path: Path) -> None:
    picture = tmp_path / "load.png"
    common = "load", "--model", "tiny", "--server", url, "--warm-up", "0.1", "--seconds", "1", "--fps", "5"
    ramp = "--ramp", "--objective", "p50=60s,lost=0.001%", "--against-interval", "1", "--repeats", "1"
    found = figures(*common, *ramp, "--cameras", "40", "--picture", picture)  # more than the server's 64 streams soon
    assert [limit["interval"] for limit in found["limits"]] == [None, 1]
    assert all(limit["cameras"] <= 64 for limit in found["limits"])
    assert any(step["refused"] for step in found["steps"])
    assert {step["interval"] for step in found["steps"]} == {None, 1}
    with Image.open(picture) as drawn:
        assert drawn.width > drawn.height


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "no-url"])
def test_a_server_that_cannot_be_reached_is_an_error(server: str) -> None:
    failed = keywarp("bench", "load", "--server", server)
    assert failed.status == 1
    assert failed.stderr.startswith(f"keywarp: can't connect to {server!r}: ")


def test_a_refused_stream_is_an_error_with_the_servers_reason(url: str) -> None:
    failed = keywarp("bench", "load", "--model", "other", "--server", url)
    assert failed.status == 1
    assert failed.stderr == "keywarp: the server returned no result: there is no model 'other'; there are: tiny\n"


def test_the_load_is_printed_as_tables(url: str) -> None:
    printed = bench("load", "--model", "tiny", "--server", url, "--cameras", "1", "--fps", "5", "--seconds", "1")
    assert "keywarp bench load" in printed
    assert "propagated" in printed
    assert "websocket" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--objective", "fast"), "'fast' is not like p99=200ms"),
        (("--size", "64"), "'64' is not like 640x360"),
        (("--over", "rest", "--codec", "h264"), "REST takes images only"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: tuple[str, ...], part: str) -> None:
    refused = keywarp("bench", "load", *options)
    assert refused.status == 2
    assert part in refused.stderr
