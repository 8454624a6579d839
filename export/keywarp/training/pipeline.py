"""From a recipe to a checkpoint, in stages that are kept: what is done isn't done again."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from keywarp.datasets import Augmentation, PairSampler
from keywarp.networks import Checkpoint, DeepFeatureFlow, ModelCard, save_checkpoint
from keywarp.training import material
from keywarp.training.evaluation import Accuracy, evaluate
from keywarp.training.flow import flow_loss
from keywarp.training.joint import joint_loss, joint_rates
from keywarp.training.loop import Progress, train
from keywarp.training.recipe import AugmentationRecipe, FileInPackage, Recipe, read_recipe

CHECKPOINT = "checkpoint.pt"


class Reporter(Protocol):
    """Where progress is shown."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` steps begins."""

    def step(self, done: int | None = None, note: str = "") -> None:
        """One more step of it is done; `done`: so many in all, when some had been done before."""


def run(recipe_file: Path, work: Path, reporter: Reporter) -> tuple[Path, dict[str, Accuracy]]:
    """Train what a recipe says.

    Args:
        recipe_file: The recipe.
        work: Folder for packages, labels and progress; what is there already isn't done again.
        reporter: Told about progress.

    Returns:
        The checkpoint's path, and the accuracy on each clip.

    Raises:
        keywarp.training.TrainingError: The recipe or the kept progress can't be used.
        keywarp.datasets.DataError: A package or clip can't be had.
        keywarp.networks.WeightsError: The first weights don't fit.
    """
    recipe = read_recipe(recipe_file)
    splits = labelled_clips(recipe, work, reporter)
    sources = [split.train for split in splits]
    network = material.initial_network(recipe, work)

    def report(progress: Progress) -> None:
        reporter.step(progress.step, f"loss {progress.loss:.3f}")

    sampler = PairSampler(sources, _augmentation(recipe.flow.crop), recipe.seed)
    reporter.stage("pre-training flow", recipe.flow.steps)
    train(
        network.flow,
        [(network.flow.parameters(), recipe.flow.learning_rate)],
        lambda step: flow_loss(network.flow, sampler, step, recipe.flow.batch, recipe.flow.made_share),
        recipe.flow.steps,
        work / "flow.pt",
        report,
    )
    pairs = PairSampler(sources, _augmentation(recipe.joint.crop), recipe.seed)
    reporter.stage("joint training", recipe.joint.steps)
    train(
        network,
        joint_rates(network, recipe.joint),
        lambda step: joint_loss(network, pairs, step, recipe.joint.batch),
        recipe.joint.steps,
        work / "joint.pt",
        report,
        recipe.joint.weight_decay,
    )
    accuracy = measure(network, splits, recipe, reporter)
    path = work / CHECKPOINT
    card = model_card(recipe, recipe_file, accuracy)
    save_checkpoint(Checkpoint(material.network_options(recipe), card, network.state_dict()), path)
    return path, accuracy


def labelled_clips(recipe: Recipe, work: Path, reporter: Reporter) -> list[material.Split]:
    """Fetch, decode and label the recipe's clips."""
    splits = []
    for clip_recipe in recipe.clips:
        clip = material.read(clip_recipe, recipe, work)
        reporter.stage(f"labelling {clip.name}", len(clip.frames))
        source = material.labelled(clip, clip_recipe, recipe, work, reporter.step)
        splits.append(material.split(source, clip_recipe.holdout))
    return splits


def measure(
    network: DeepFeatureFlow[Tensor], splits: list[material.Split], recipe: Recipe, reporter: Reporter
) -> dict[str, Accuracy]:
    """Accuracy on every held-out part; on the whole of clips that have none, although those were trained on."""
    accuracy = {}
    for part in splits:
        source = part.holdout or part.train
        name = f"{part.train.clip.name} ({'held out' if part.holdout else 'trained on'})"
        reporter.stage(f"evaluating {name}", len(source.clip.frames))
        accuracy[name] = evaluate(
            network, source, len(recipe.classes), recipe.key_interval, recipe.image.multiple, reporter.step
        )
    return accuracy


def model_card(recipe: Recipe, file: Path, accuracy: Mapping[str, Accuracy]) -> ModelCard:
    """What the recipe and the measurement say of the model."""
    sources = (c.source.member if isinstance(c.source, FileInPackage) else c.source for c in recipe.clips)
    return ModelCard(
        name=recipe.name,
        version=recipe.version,
        license=recipe.license,
        classes=tuple((c.name, c.color) for c in recipe.classes),
        short_side=recipe.image.short_side,
        long_side=recipe.image.long_side,
        multiple=recipe.image.multiple,
        key_interval=recipe.key_interval,
        recipe=file.name if file.is_absolute() else file.as_posix(),  # no paths of this machine
        data=", ".join(Path(source).name for source in sources),
        accuracy={f"mean IoU, {name}": _figures(value, recipe) for name, value in accuracy.items()},
        notes=" ".join(recipe.notes.split()),
    )


def _figures(accuracy: Accuracy, recipe: Recipe) -> dict[str, Any]:
    """Accuracy for people: four decimals, classes by name."""
    figures = json.loads(json.dumps(asdict(accuracy)), parse_float=lambda text: round(float(text), 4))
    names = [c.name for c in recipe.classes]
    return {**figures, "per_class": dict(zip(names, figures["per_class"], strict=True))}


def _augmentation(crop: AugmentationRecipe) -> Augmentation:
    return Augmentation(crop.height, crop.width, crop.zoom)
