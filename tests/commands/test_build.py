"""`keywarp build`, for the CPU, and for GPUs of other machines."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.running import keywarp
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def models(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path / "models" / "tiny")
    return tmp_path / "models"


def built(models: Path, *arguments: str) -> list[dict[str, Any]]:
    done = keywarp("build", "tiny", "--models", models, "--cache", models / "cache", "--json", *arguments)
    assert done.status == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["built"]
    return found


def test_openvino_compiles_each_size_of_the_network_once(models: Path) -> None:
    first = built(models, "--backend", "openvino", "--sizes", "64x96", "--sizes", "128x192")
    assert [(b["graph"], b["height"], b["width"]) for b in first] == [("key", 64, 96), ("propagate", 64, 96)]
    assert all(b["size"] > 0 and not b["cached"] for b in first)
    assert all(b["cached"] for b in built(models, "--backend", "openvino", "--sizes", "64x96"))


def test_a_backend_without_a_cache_has_nothing_to_build(models: Path) -> None:
    failed = keywarp("build", "tiny", "--models", models, "--backend", "onnxruntime")
    assert failed.status == 1
    assert "nothing to build" in failed.stderr


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
    failed = keywarp("build", "tiny", "--models", models, *arguments)
    assert failed.status == 2
    assert arguments[0] in failed.stderr


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
def test_a_gpu_that_tensorrt_does_not_support_is_an_error(models: Path) -> None:
    failed = keywarp("build", "tiny", "--models", models, "--compute-capability", "3.5")
    assert failed.status == 1
    assert "not for 3.5" in failed.stderr


def test_all_frame_sizes_share_an_exact_input(models: Path) -> None:
    tiny_bundle(
        models / "tiny", image={"fit": "letterbox", "height": 96, "width": 128}, flow_network=False, motion="dis"
    )
    first = built(models, "--backend", "openvino", "--sizes", "64x96", "--sizes", "720x1280")
    assert [(b["graph"], b["height"], b["width"]) for b in first] == [("key", 96, 128), ("propagate", 96, 128)]
    failed = keywarp("build", "tiny", "--models", models, "--backend", "openvino", "--motion", "network")
    assert failed.status == 1
    assert "has no flow network" in failed.stderr
