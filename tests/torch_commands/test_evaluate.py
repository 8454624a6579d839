import json
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from keywarp.networks import Checkpoint, ModelCard, save_checkpoint
from tests.command_line import keywarp
from tests.tiny_bundle import tiny_bundle
from tests.training.recipes import VIDEOS, write_recipe
from tests.training.tiny import OPTIONS, networks


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a recipe, its videos, and checkpoints of untrained networks."""
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, VIDEOS)
    card = ModelCard("square", "0.1.0", "Apache-2.0", ("background", "square"), short_side=64, long_side=96)
    save_checkpoint(Checkpoint(OPTIONS, card, networks().state_dict()), tmp_path / "checkpoint.pt")
    for name, options in {
        "detector": replace(OPTIONS, task="detection"),
        "three": replace(OPTIONS, classes=3),
    }.items():
        save_checkpoint(Checkpoint(options, card, {}), tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    return tmp_path


def run(*arguments: str) -> CompletedProcess[str]:
    return keywarp("evaluate", *arguments, "--work", "work")


@pytest.mark.parametrize(
    ("checkpoint", "recipe", "error"),
    [
        (
            "detector.pt",
            "square.toml",
            "detector.pt is for detection of 2 classes, but the recipe's data are for segmentation",
        ),
        (
            "three.pt",
            "square.toml",
            "three.pt is for segmentation of 3 classes, but the recipe's data are for segm",
        ),
        ("text.pt", "square.toml", "text.pt is not a checkpoint of keywarp train or init"),
        ("none.pt", "square.toml", "can't read the checkpoint none.pt: No such file"),
        ("checkpoint.pt", "none.toml", "can't read the recipe none.toml: No such file"),
    ],
)
def test_what_cannot_be_measured_is_reported_in_one_sentence(checkpoint: str, recipe: str, error: str) -> None:
    done = run(checkpoint, "--recipe", recipe)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"keywarp: {error}")
    assert done.stdout == ""


def test_figures_are_printed_and_written(folder: Path) -> None:
    ways = ("--motion", "network", "--motion", "sift-fast")
    done = run("checkpoint.pt", "--recipe", "square.toml", *ways, "--no-runtime", "--json", "--out", "new/found.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures == json.loads((folder / "new" / "found.json").read_text())
    assert (figures["interval"], figures["height"], figures["width"], figures["runtime"]) == (4, 64, 96, {})
    [ways_found] = figures["accuracy"].values()
    assert list(ways_found) == ["per frame", "network", "sift-fast"]
    for found in ways_found.values():
        assert (found["metric"], len(found["by_age"])) == ("mIoU", 4)
        assert found["by_age"][0] == ways_found["per frame"]["by_age"][0]
        assert found["worst"] == min(found["by_age"]) <= found["mean"] <= 1
    assert (folder / "work" / "sift-fast.npz").exists()


def test_a_table_shows_accuracy_by_key_age_and_speed() -> None:
    done = run("checkpoint.pt", "--recipe", "square.toml", "--interval", "3")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    ages = [line for line in lines if "by key age:" in line]
    assert [line.split(", by key age:")[0] for line in ages] == [
        "held-out, per frame",
        "held-out, network",
        "held-out, none",
    ]
    assert all(len(line.split(":")[1].split()) == 3 for line in ages)
    timed = [line for line in lines if line.startswith("Runtime, ")]
    assert [line.split(":")[0] for line in timed] == ["Runtime, network", "Runtime, none"]
    assert "fps at l = 3 and" in timed[0]


def test_an_output_file_that_cannot_be_written_is_reported() -> None:
    done = run("checkpoint.pt", "--recipe", "square.toml", "--no-runtime", "--out", "text.pt/found.json")
    assert done.returncode == 1
    assert "keywarp: can't write text.pt/found.json: " in done.stderr


def test_an_unknown_motion_source_is_wrong_use() -> None:
    done = run("checkpoint.pt", "--recipe", "square.toml", "--motion", "guess")
    assert done.returncode == 2
    assert "'guess' is not one of network, none, sift-fast, sift-slow" in " ".join(
        done.stderr.replace("│", " ").split()
    )


def test_a_bundle_runs_in_the_engine_and_is_as_accurate_as_its_checkpoint(folder: Path) -> None:
    done = keywarp("export", "checkpoint.pt", "--out", "models/square", "--motion", "network")
    assert done.returncode == 0, done.stderr
    bundle = run("models/square", "--recipe", "square.toml", "--precision", "fp32", "--json", "--out", "found.json")
    assert bundle.returncode == 0, bundle.stderr
    figures = json.loads(bundle.stdout)
    assert figures == json.loads((folder / "found.json").read_text())
    [found] = figures["accuracy"].values()
    assert "fp32" in found["fp32"]["backend"]
    network = run("checkpoint.pt", "--recipe", "square.toml", "--motion", "network", "--no-runtime", "--json")
    [expected] = json.loads(network.stdout)["accuracy"].values()
    assert found["fp32"]["per_frame"]["mean"] == pytest.approx(expected["per frame"]["by_age"][0], abs=0.01)
    assert found["fp32"]["by_motion"]["network"]["by_age"] == pytest.approx(expected["network"]["by_age"], abs=0.01)
    table = run("models/square", "--recipe", "square.toml", "--precision", "fp32", "--precision", "auto")
    assert "auto" in table.stdout
    assert "by key age:" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("checkpoint.pt", "--precision", "int8"), "checkpoint.pt is a checkpoint, which is evaluated in fp32"),
        (("models/square", "--precision", "int4"), "'int4' is not one of auto, fp32"),
        (("models/square", "--motion", "codec"), "'codec' needs a video's own motion vectors"),
        (("models/square", "--motion", "guess"), "there is no motion source 'guess'"),
    ],
)
def test_options_that_do_not_fit_are_wrong_use(folder: Path, arguments: tuple[str, ...], error: str) -> None:
    tiny_bundle(folder / "models" / "square")
    done = run(*arguments, "--recipe", "square.toml")
    assert done.returncode == 2
    assert error in " ".join(done.stderr.replace("│", " ").split())
