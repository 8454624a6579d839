"""From `keywarp init` over `keywarp export` to `keywarp run`, as a user types it."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from keywarp.choices import FlowNetworkName
from keywarp.networks import FLOW_NETWORKS, load_checkpoint
from tests.client.media import write_video
from tests.command_line import keywarp


def test_the_command_knows_every_flow_network() -> None:
    assert get_args(FlowNetworkName) == tuple(FLOW_NETWORKS)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_untrained_networks_run_a_video(task: str, tmp_path: Path) -> None:
    made = keywarp(
        "init", tmp_path / "r50.pt", "--task", task, "--features", "resnet50", "--flow", "flownet_half",
        "--classes", "cat, dog", "--short-side", "96", "--long-side", "160",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "resnet50, flownet_half" in made.stdout
    checkpoint = load_checkpoint(tmp_path / "r50.pt")
    assert [c[0] for c in checkpoint.card.classes] == ["background", "cat", "dog"]
    exported = keywarp("export", tmp_path / "r50.pt", "--out", tmp_path / "r50", "--motion", "flow-repaired")
    assert exported.returncode == 0, exported.stderr
    video = write_video(tmp_path / "v.mp4", frames=3)
    ran = keywarp("run", video, "--model", tmp_path / "r50", "--ndjson", tmp_path / "r.ndjson", "--interval", "2")
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.ndjson").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["key", "propagated", "key"]
    assert all((line["detections"] is not None) == (task == "detection") for line in lines)
    assert lines[1]["motion"] == "flow-repaired"


def test_an_impossible_split_point_is_refused_in_one_sentence(tmp_path: Path) -> None:
    made = keywarp("init", tmp_path / "x.pt", "--head-layers", "3", "--features", "resnet50")
    assert made.returncode == 1
    assert "choose one of 0, 1, 2, 5" in made.stderr.replace("\n", " ")
    assert "Traceback" not in made.stderr
    assert not (tmp_path / "x.pt").exists()


def test_files_that_hold_no_such_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("not weights")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for weights, complaint in (("w.pth", "not a file of PyTorch weights"), ("other.pth", "conv1.weight")):
        made = keywarp("init", tmp_path / "x.pt", "--features", "resnet50", "--weights", tmp_path / weights)
        assert made.returncode == 1
        assert complaint in made.stderr.replace("\n", " ")
        assert "Traceback" not in made.stderr


def test_an_existing_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "trained.pt").write_text("weeks of work")
    made = keywarp("init", tmp_path / "trained.pt", "--features", "resnet50")
    assert made.returncode == 1
    assert "--force replaces it" in made.stderr
    assert (tmp_path / "trained.pt").read_text() == "weeks of work"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--classes", ","),
        ("--short-side", "200", "--long-side", "100"),
        ("--flow", "flownet_half", "--flow-weights", "x"),
    ],
)
def test_wrong_use_is_status_two(arguments: tuple[str, ...], tmp_path: Path) -> None:
    made = keywarp("init", tmp_path / "x.pt", *arguments)
    assert made.returncode == 2, made.stderr
    assert "Traceback" not in made.stderr


def test_a_folder_without_a_resnet_of_keras_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"weightsManifest": []}))
    made = keywarp("init", tmp_path / "x.pt", "--features", "resnet50", "--weights", tmp_path, "--layout", "keras")
    assert made.returncode == 1
    assert "Traceback" not in made.stderr
