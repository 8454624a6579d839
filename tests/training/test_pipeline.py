import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from keywarp.datasets import Image
from keywarp.datasets.labels import Evidence
from keywarp.networks import load_checkpoint
from keywarp.training.command import train
from tests.datasets.clips import moving_square
from tests.datasets.test_clips import write_video

RECIPE = """
name = "square"
version = "0.1.0"
license = "Apache-2.0"
key_interval = 4
seed = 0

classes = [
    { name = "background", color = [0, 0, 0] },
    { name = "square", color = [255, 255, 255], categories = [1], accept = 0.4 },
]
image = { short_side = 64, long_side = 96 }
network = { channels = 8, conv4_blocks = 1 }

[teacher]
threshold = 0.2
model = { ecosystem = "npm", package = "none@1.0", member = "none", sha256 = "SHA" }

[[clips]]
name = "square"
source = "VIDEO"
grids = [[1, 1]]
holdout = 0.5

[flow]
steps = 2
batch = 2
learning_rate = 1e-4
made_share = 0.5
crop = { height = 32, width = 32, zoom = [0.5, 0.5] }

[joint]
steps = 2
batch = 2
features_rate = 1e-4
flow_rate = 1e-4
new_rate = 1e-3
weight_decay = 1e-4
frozen_stages = 2
crop = { height = 48, width = 64, zoom = [1, 1] }
""".replace("SHA", "0" * 64)


def white(frame: Image) -> Evidence:
    """A teacher that knows the square."""
    return np.asarray(frame.min(axis=2) > 200, np.float32)[None]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Run `keywarp train` with the given arguments: exit status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keywarp.training.material.teacher", lambda *_: white)
    app = typer.Typer()
    app.command()(train)

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, arguments)
        return result.exit_code, result.stdout, result.stderr

    return run


def write_recipe(folder: Path) -> None:
    write_video(folder / "v.mp4", moving_square(frames=12).clip.frames)
    (folder / "square.toml").write_text(RECIPE.replace("VIDEO", str(folder / "v.mp4")))


def test_training_runs_from_a_recipe_to_a_checkpoint_and_is_not_repeated(
    invoke: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_recipe(tmp_path)
    status, out, err = invoke("square.toml", "--json")
    assert status == 0, err
    assert "joint training: 2/2" in err
    result = json.loads(out)
    assert list(result["accuracy"]) == ["square (held out)"]
    assert len(result["accuracy"]["square (held out)"]["by_age"]) == 4

    checkpoint = load_checkpoint(tmp_path / ".cache" / "keywarp" / "square" / "checkpoint.pt")
    assert checkpoint.card.recipe == "square.toml"
    assert checkpoint.card.data == "v.mp4"
    assert checkpoint.card.accuracy["mean IoU, square (held out)"]["by_age"]
    checkpoint.network()

    status, again, err = invoke("square.toml", "--json")
    assert status == 0
    assert "training" not in err
    assert json.loads(again) == result


def test_a_missing_video_is_one_sentence_and_status_1(
    invoke: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    write_recipe(tmp_path)
    (tmp_path / "v.mp4").unlink()
    status, _, err = invoke("square.toml")
    assert status == 1
    assert err.strip().splitlines()[-1].startswith("Error: ")
    assert "v.mp4" in err


def test_a_wrong_recipe_is_status_1(invoke: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("name = 1")
    status, _, err = invoke("r.toml")
    assert status == 1
    assert "is not a recipe" in err
