"""At what size the experiments run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keywarp.training
from keywarp.choices import PresetName, Task
from keywarp.datasets.moving_scenes import SceneOptions
from keywarp.training.recipe import Augmented, ImageRecipe, MovingScenesData, Recipe, read_recipe

RECIPES = Path(keywarp.training.__file__).parent / "recipes"
TASKS: tuple[Task, ...] = ("segmentation", "detection")
FLOWS = ("flownet", "flownet_half", "flownet_inception")
SPLITS = (21, 12, 5, 1, 0)  # layers of the head (Table 5)
ROUNDS = 100  # of a key frame and a propagated frame of each motion source, timed in turns


@dataclass(frozen=True)
class Preset:
    """The recipes of both tasks, and how much is done with them."""

    name: str
    recipes: Mapping[Task, Recipe]  # of the variant "dff"
    files: Mapping[Task, Path]
    flows: tuple[str, ...]  # of Figure 3
    splits: tuple[int, ...]  # of Table 5: layers of the head
    seeds: tuple[int, ...]  # that Table 4 is averaged over; the first one is the other experiments'
    longest: Mapping[Task, int]  # frames: the longest key interval of Figure 3
    clips: int  # videos with cuts that adaptive key frames are tried on
    clip_frames: int
    rounds: int  # of timing


def open_preset(name: PresetName, folder: Path = RECIPES) -> Preset:
    """Read a preset's recipes.

    Args:
        name: `cpu`: Moving Scenes and compact networks, hours on two cores; `smoke`: the same, but hardly trained,
            to see that everything runs; `paper`: Cityscapes, ImageNet and ResNet-101, for GPUs.
        folder: Where the recipes are.

    Raises:
        keywarp.training.RecipeError: A recipe can't be read.
        ValueError: There is no such preset.
    """
    files: dict[Task, Path]
    if name == "paper":
        files = {"segmentation": folder / "cityscapes.toml", "detection": folder / "imagenet-vid.toml"}
    elif name in ("cpu", "smoke"):
        files = {task: folder / f"scenes-{task}.toml" for task in TASKS}
    else:
        raise ValueError(f"there is no preset {name!r}; there are cpu, smoke and paper")
    recipes: dict[Task, Recipe] = {task: read_recipe(files[task]) for task in TASKS}
    if name == "smoke":
        recipes = {task: _hardly(recipe) for task, recipe in recipes.items()}
        longest = dict.fromkeys(TASKS, 4)
        flows, splits = FLOWS[::2], SPLITS[-2:]
        return Preset(name, recipes, files, flows, splits, (0, 1), longest, clips=1, clip_frames=24, rounds=2)
    longest = {"segmentation": 10, "detection": 20}
    return Preset(name, recipes, files, FLOWS, SPLITS, (0, 1, 2), longest, clips=8, clip_frames=240, rounds=ROUNDS)


def _hardly(recipe: Recipe) -> Recipe:
    """Two steps of everything, on a handful of scenes."""
    image = ImageRecipe(short_side=64, long_side=96)
    scenes = MovingScenesData(kind="moving_scenes", scenes=3, options=SceneOptions(diameter=(24, 48), shot=(8, 12)))
    network = {"blocks": (1, 1, 1, 1), "channels": 16, "width": 0.125, "flow_share": 0.125}
    crop = Augmented(height=image.short_side, width=image.long_side)
    half = Augmented(height=image.short_side // 2, width=image.long_side // 2, zoom=(0.5, 0.5))
    few = {"steps": 2, "batch": 2, "crop": crop}
    return recipe.model_copy(
        update={
            "key_interval": 3,
            "image": image,
            "data": scenes,
            "network": recipe.network.model_copy(update=network),
            "features": recipe.features and recipe.features.model_copy(update=few),
            "flow": recipe.flow and recipe.flow.model_copy(update={**few, "crop": half}),
            "joint": recipe.joint.model_copy(update=few),
        }
    )
