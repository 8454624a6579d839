from pathlib import Path

import pytest

import keywarp.training
from keywarp.training import RecipeError, read_recipe
from keywarp.training.pipeline import check_networks
from keywarp.training.recipe import PseudoLabelledClips, Recipe
from tests.training.recipes import FEATURES, TAUGHT, VIDEOS, write_recipe

RECIPES = sorted((Path(keywarp.training.__file__).parent / "recipes").glob("*.toml"))
SHORT_HASH = "{ ecosystem = 'npm', package = 'p@1', member = 'm', sha256 = 'abc' }"
MOVING_SCENES = """
[data]
kind = "moving_scenes"
"""
CITYSCAPES = """
[data]
kind = "cityscapes"
root = "cityscapes"
"""
IMAGENET = """
[data]
kind = "imagenet"
root = "ILSVRC"
"""


def read(folder: Path, *parts: str, change: tuple[str, str] = ("", "")) -> Recipe:
    path = write_recipe(folder, *parts)
    path.write_text(path.read_text().replace(*change))
    return read_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    check_networks(recipe)


def test_the_shipped_model_is_made_of_two_clips_one_of_them_partly_held_out() -> None:
    [path] = (path for path in RECIPES if path.stem == "street")
    data = read_recipe(path).data
    assert isinstance(data, PseudoLabelledClips)
    assert [c.name for c in data.classes] == ["background", "person", "bicycle", "vehicle"]
    assert {clip.name: clip.holdout for clip in data.clips} == {"bikes": 0, "vtest": 0.2}


def test_the_defaults_of_a_recipe_are_the_papers(tmp_path: Path) -> None:
    text = """
        name = "paper"
        version = "0.1.0"
        license = "Apache-2.0"
        task = "detection"
        key_interval = 10
        seed = 0
        image = { short_side = 600, long_side = 1000 }
        network = {}
        data = { kind = "imagenet", root = "ILSVRC" }
        [joint]
        steps = 60_000
        batch = 8
        features_rate = 1e-3
        flow_rate = 1e-3
        new_rate = 1e-3
        crop = { height = 600, width = 1000 }
        """
    (tmp_path / "paper.toml").write_text(text)
    recipe = read_recipe(tmp_path / "paper.toml")
    assert recipe.variant == "dff"
    assert (recipe.network.blocks, recipe.network.channels, recipe.network.flow) == ((3, 4, 23, 3), 1024, "flownet")
    assert (recipe.network.regions.proposals, recipe.network.regions.pooling) == (300, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed = 0", "sead = 0"), r"seed: Field required; sead: Extra inputs are not permitted"),
        (("steps = ", "steps = -"), r"joint\.steps: .*greater than or equal to 1"),
        (("batch = 2", "batch = 0"), r"joint\.batch: .*greater than or equal to 1"),
        (("features_rate = ", "features_rate = -"), r"joint\.features_rate: .*greater than 0"),
        (("width = 64", "with = 64"), r"joint\.crop\.width: .*joint\.crop\.with: "),
        (("warm_up = 0", "warm_up = 2"), r"joint\.optimization\.warm_up: .*less than or equal to 1"),
        (('"sgd"', '"adam"'), r"joint\.optimization\.algorithm: .*'adamw' or 'sgd'"),
        (("[network]", "[network]\nregions = { pooled = 3 }"), r"network\.regions\.pooled: Unexpected"),
        (('"flownet_inception"', '"raft"'), r"network: .*there is no flow network 'raft'; choose one of flownet, "),
        (("seed = 0", 'seed = 0\nvariant = "fast"'), r"variant: .*'frame', 'sff_slow'"),
        (("seed = 0", 'seed = 0\ntask = "depth"'), r"task: .*'segmentation' or 'detection'"),
        (('kind = "videos"', 'kind = "films"'), r"data: .*'films'.*'cityscapes'"),
        (("[network]", "[network"), "not TOML"),
        (
            ("[network]", f"[network]\nweights = {{ source = {SHORT_HASH}, layout = 'keras' }}"),
            "sha256 must be 64 hexadec",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, VIDEOS, change=change)


DETECTION = ("seed = 0", 'seed = 0\ntask = "detection"')
SEGMENTATION = ("", "")


@pytest.mark.parametrize(
    ("data", "task"),
    [
        (VIDEOS, SEGMENTATION), (VIDEOS, DETECTION), (MOVING_SCENES, SEGMENTATION), (MOVING_SCENES, DETECTION),
        (CITYSCAPES, SEGMENTATION), (IMAGENET, DETECTION), (TAUGHT, SEGMENTATION),
    ],
)  # fmt: skip
def test_data_with_labels_for_the_task_are_accepted(data: str, task: tuple[str, str], tmp_path: Path) -> None:
    read(tmp_path, data, FEATURES, change=task)


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        (CITYSCAPES, DETECTION, "cityscapes has no labels for detection"),
        (IMAGENET, SEGMENTATION, "imagenet has no labels for segmentation"),
        (TAUGHT, DETECTION, "taught has no labels for detection"),
    ],
)
def test_data_without_labels_for_the_task_are_refused(
    data: str, task: tuple[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        read(tmp_path, data, change=task)


def test_flow_from_clips_needs_clips_as_data(tmp_path: Path) -> None:
    flow = TAUGHT[TAUGHT.index("[flow]") :]
    with pytest.raises(RecipeError, match="kind = 'clips' needs clips as data"):
        read(tmp_path, VIDEOS, flow)
    read(tmp_path, VIDEOS, flow, change=('{ kind = "clips", made_share = 0.5 }', '{ kind = "moving_scenes" }'))


def test_photographs_cannot_be_the_only_samples(tmp_path: Path) -> None:
    stills = (DETECTION[0], DETECTION[1])
    assert read(tmp_path, IMAGENET, change=stills).data.kind == "imagenet"
    with pytest.raises(RecipeError, match=r"data\.imagenet\.still_share: .*less than 1"):
        read(tmp_path, IMAGENET + "still_share = 1.0\n", change=stills)


def test_initial_weights_and_training_from_scratch_exclude_each_other(tmp_path: Path) -> None:
    weights = '[network.weights]\nsource = "resnet.pth"\nlayout = "caffe"\n'
    with pytest.raises(
        RecipeError, match=r"\[network\.weights\] replaces training from scratch; leave out one of the two"
    ):
        read(tmp_path, VIDEOS, FEATURES + weights)
    read(tmp_path, VIDEOS, weights)


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="can't read the recipe"):
        read_recipe(tmp_path / "none.toml")
