"""`keywarp bench`, on a tiny model: that it runs and adds up; what it measures is for quiet machines."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keywarp.commands.bench import app
from tests.tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "tiny")
    return path


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def figures(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bench(*arguments, "--json"))
    return found


def test_the_engine_is_timed_by_itself(models: Path) -> None:
    common = "engine", "--model", "tiny", "--models", str(models), "--interval", "5", "--rounds", "2"
    found = figures(*common)
    seconds = found["seconds"]
    assert set(seconds) == {"key", "propagated", "keyed", "per_frame"}
    assert found["speed_up"] == pytest.approx(seconds["per_frame"] / seconds["keyed"])
    assert "640x272, interval 5, batch 1, model tiny" in found["setting"]
    assert "speed-up" in bench(*common)


def test_the_server_is_compared_with_one_process(models: Path) -> None:
    common = "server", "--model", "tiny", "--models", str(models), "--rounds", "1", "--frames", "12"
    found = figures(*common)
    assert set(found["fps"]) == {"image alone", "image served", "h264 alone", "h264 served"}
    assert found["share"]["h264"] == pytest.approx(found["fps"]["h264 served"] / found["fps"]["h264 alone"])
    for where in ("alone", "served"):
        assert 0 < found["latency"]["p50"][where] <= found["latency"]["p99"][where]


@pytest.mark.parametrize("codec", ["image", "h264"])
def test_cameras_load_a_server_and_all_is_accounted_for(models: Path, codec: str) -> None:
    common = "load", "--model", "tiny", "--models", str(models), "--codec", codec
    found = figures(*common, "--cameras", "3", "--fps", "20", "--seconds", "1")
    assert found["results"] + found["dropped"] + found["error"] + found["unsent"] == 3 * 20
    assert found["latency"]["p50"] <= found["latency"]["max"]
    assert "results" in bench(*common, "--cameras", "1", "--fps", "5", "--seconds", "1")
