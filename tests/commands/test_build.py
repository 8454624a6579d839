"""`keywarp build`, for the CPU, and for GPUs that are elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from keywarp.commands.build import build
from tests.tiny_bundle import tiny_bundle

app = typer.Typer()
app.command()(build)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models" / "tiny")
    return tmp_path / "models"


def built(models: Path, *arguments: str) -> list[dict[str, Any]]:
    common = ["tiny", "--models", str(models), "--cache", str(models / "cache"), "--json"]
    done = CliRunner().invoke(app, [*common, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: list[dict[str, Any]] = json.loads(done.stdout)["built"]
    return found


def refused(models: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["tiny", "--models", str(models), *arguments])
    return done.exit_code, str(done.exception) + done.stderr


def test_openvinos_cache_is_filled_once(models: Path) -> None:
    first = built(models, "--backend", "openvino", "--sizes", "64x96", "--sizes", "128x192")
    assert [(b["graph"], b["height"], b["width"]) for b in first] == [("key", 64, 96), ("propagate", 64, 96)]
    assert all(b["size"] > 0 and not b["cached"] for b in first)
    assert all(b["cached"] for b in built(models, "--backend", "openvino", "--sizes", "64x96"))


def test_without_a_cache_there_is_nothing_to_build(models: Path) -> None:
    status, told = refused(models, "--backend", "onnxruntime")
    assert status == 1
    assert "nothing to build" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sizes", "600"),
        ("--sizes", "0x10"),
        ("--compute-capability", "86"),
        ("--compute-capability", "8.6", "--backend", "openvino"),
    ],
)
def test_wrong_use_is_status_two(models: Path, arguments: tuple[str, ...]) -> None:
    assert refused(models, *arguments)[0] == 2


@pytest.mark.gpu_check
def test_plans_are_built_ahead_of_time_once(models: Path) -> None:
    arguments = ("--compute-capability", "8.6", "--compute-capability", "7.5", "--sizes", "64x96")
    first = built(models, *arguments)
    assert [(b["graph"], b["target"], b["plugins"]) for b in first] == [
        ("key", "compute capability 8.6", 0),
        ("key", "compute capability 7.5", 0),
        ("propagate", "compute capability 8.6", 1),
        ("propagate", "compute capability 7.5", 1),
    ]
    assert all(Path(b["file"]).stat().st_size == b["size"] for b in first)
    assert all(b["cached"] for b in built(models, *arguments))


@pytest.mark.gpu_check
def test_a_gpu_that_tensorrt_does_not_know_is_told(models: Path) -> None:
    status, told = refused(models, "--compute-capability", "3.5")
    assert status == 1
    assert "not for 3.5" in told
