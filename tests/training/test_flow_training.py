"""`keywarp train-flow`, from a recipe to weights that a flow network starts with."""

import json
from pathlib import Path

import pytest
import torch

from keywarp import training
from keywarp.networks import FeatureMap, load_flow_weights, pretrained_flow
from keywarp.training import RecipeError
from keywarp.training.flow_recipe import read_flow_recipe
from tests.command_line import keywarp
from tests.experiments.reproducing import write_photographs

RECIPES = sorted((Path(training.__file__).parent / "recipes" / "flow").glob("*.toml"))
TINY = """
name = "tiny"
license = "MIT"
share = 0.25
height = 64
width = 96
steps = {steps}
batch = 2
rate = 1e-3
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    assert read_flow_recipe(path).steps > 0


def test_the_command_trains_weights_for_any_feature_maps(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.format(steps=3))
    work = write_photographs(tmp_path / "work")
    command = ("train-flow", tmp_path / "tiny.toml", "--work", work, "--device", "cpu", "--workers", "0", "--json")
    done = keywarp(*command)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["steps"] == 3
    weights = Path(printed["weights"])
    known = load_flow_weights(weights)
    assert (known.share, known.license, known.description["recipe"]["name"]) == (0.25, "MIT", "tiny")
    network = pretrained_flow([FeatureMap(7, 16), FeatureMap(5, 32)], weights)
    with torch.inference_mode():
        motion = network(*torch.randn(2, 1, 3, 64, 96) * 50)
    assert [scale.shape[1] for scale in motion.scales] == [7, 5]
    again = keywarp(*command)  # everything is done already
    assert again.returncode == 0, again.stderr
    assert torch.equal(
        load_flow_weights(weights).weights["estimator.predict.weight"], known.weights["estimator.predict.weight"]
    )


def test_a_wrong_recipe_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.format(steps=0))
    with pytest.raises(RecipeError, match="steps"):
        read_flow_recipe(tmp_path / "tiny.toml")
    done = keywarp("train-flow", tmp_path / "tiny.toml", "--work", tmp_path / "work")
    assert done.returncode == 1
    assert "steps" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY.format(steps=1))
    done = keywarp("train-flow", tmp_path / "tiny.toml", "--work", "/proc/self/work")
    assert (done.returncode, done.stderr) == (
        1,
        "keywarp: '/proc/self/work' can't be written: No such file or directory\n",
    )
