"""Presets: the recipes and sizes of the experiments."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keywarp.training
from keywarp.choices import PresetName, Task, Variant
from keywarp.datasets.moving_scenes import SceneOptions
from keywarp.training.recipe import CropRecipe, ImageRecipe, MovingScenesData, Recipe, read_recipe

Blocks = tuple[int, int, int, int]

RECIPES = Path(keywarp.training.__file__).parent / "recipes"
TASKS: tuple[Task, ...] = ("segmentation", "detection")
FLOWS = ("flownet", "flownet_half", "flownet_inception")
PAPER_VARIANTS: tuple[Variant, ...] = ("frame", "sff_slow", "sff_fast", "dff", "fix_n", "fix_f", "separate")
VARIANTS: tuple[Variant, ...] = (*PAPER_VARIANTS, "no_scale", "from_frame", "copy")
HEAD_LAYERS = (21, 12, 5, 1, 0)  # layers of the head at the split points (Table 5)
ROUNDS = 100  # how often a key frame and a propagated frame of each network are timed


@dataclass(frozen=True)
class Preset:
    """The recipes of both tasks, and the size of each experiment."""

    name: str
    recipes: Mapping[Task, Recipe]  # for the variant "dff"
    recipe_files: Mapping[Task, Path]
    variants: tuple[Variant, ...]  # variants of Table 4
    flow_networks: tuple[str, ...]  # flow networks of Figure 3
    lighter_blocks: Blocks | None  # blocks of a second feature network for Figure 3, as for `NetworkOptions`
    head_layers: tuple[int, ...]  # split points of Table 5, in layers of the head
    seeds: tuple[int, ...]  # seeds of Table 4; the other experiments use the first
    longest_intervals: Mapping[Task, int]  # the longest key interval of Figure 3, frames
    clips: int  # clips with cuts for the experiment on adaptive key frames
    clip_frames: int  # frames of each of these clips
    rounds: int  # how often each network is timed


def open_preset(name: PresetName, folder: Path = RECIPES) -> Preset:
    """Read a preset's recipes.

    Args:
        name: `cpu` for Moving Scenes and compact networks, hours on two cores; `hard` for the same networks on harder
            scenes, trained for longer; `smoke` for two training steps of smaller networks, to see that everything runs;
            `paper` for Cityscapes, ImageNet and ResNet-101 on GPUs.
        folder: The folder of the recipes.

    Raises:
        keywarp.training.RecipeError: If a recipe can't be read.
        ValueError: If there is no such preset.
    """
    files: dict[Task, Path]
    if name == "paper":
        files = {"segmentation": folder / "cityscapes.toml", "detection": folder / "imagenet-vid.toml"}
    elif name == "hard":
        files = {task: folder / f"hard-scenes-{task}.toml" for task in TASKS}
    elif name in ("cpu", "smoke"):
        files = {task: folder / f"scenes-{task}.toml" for task in TASKS}
    else:
        raise ValueError(f"there is no preset {name!r}; choose cpu, hard, smoke or paper")
    recipes: dict[Task, Recipe] = {task: read_recipe(files[task]) for task in TASKS}
    if name == "smoke":
        recipes = {task: _shrunk(recipe) for task, recipe in recipes.items()}
        longest = dict.fromkeys(TASKS, 4)
        return Preset(
            name,
            recipes,
            files,
            VARIANTS,
            flow_networks=FLOWS[::2],
            lighter_blocks=(1, 1, 1, 2),
            head_layers=HEAD_LAYERS[-2:],
            seeds=(0, 1),
            longest_intervals=longest,
            clips=1,
            clip_frames=24,
            rounds=2,
        )
    return Preset(
        name,
        recipes,
        files,
        (*PAPER_VARIANTS, "from_frame", "copy") if name == "hard" else VARIANTS,
        flow_networks=FLOWS,
        lighter_blocks=(1, 1, 1, 1) if name == "hard" else None,
        head_layers=HEAD_LAYERS,
        seeds=(0, 1) if name == "hard" else (0, 1, 2),
        longest_intervals={"segmentation": 10, "detection": 20},
        clips=8,
        clip_frames=240,
        rounds=ROUNDS,
    )


def _shrunk(recipe: Recipe) -> Recipe:
    """Reduce a recipe to two steps of each training, with tiny networks and three scenes."""
    image = ImageRecipe(short_side=64, long_side=96)
    scenes = MovingScenesData(kind="moving_scenes", scenes=3, options=SceneOptions(diameter=(24, 48), shot=(8, 12)))
    network = {"blocks": (1, 1, 1, 1), "channels": 16, "width": 0.125, "flow_share": 0.125}
    crop = CropRecipe(height=image.short_side, width=image.long_side)
    half = CropRecipe(height=image.short_side // 2, width=image.long_side // 2, zoom=(0.5, 0.5))
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
