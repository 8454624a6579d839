"""A recipe's data: opening it, drawing batches from it, and measuring accuracy on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from keywarp.datasets import ClipFlowSource, LabelledClip, SyntheticMotion
from keywarp.datasets.batches import FlowDataset, PairDataset
from keywarp.datasets.cityscapes import Cityscapes
from keywarp.datasets.classes import BACKGROUND, CITYSCAPES, IMAGENET_VID
from keywarp.datasets.flying_chairs import FlyingChairs
from keywarp.datasets.flying_pieces import FlyingPieces
from keywarp.datasets.imagenet import ImageNetDet, ImageNetVid
from keywarp.datasets.mixture import Mixture
from keywarp.datasets.moving_scenes import CLASSES, MovingScenes, SceneOptions
from keywarp.datasets.photographs import photographs, split_photographs
from keywarp.datasets.samples import PairSource, SnippetSource, Truth
from keywarp.datasets.videos import LabelledVideos
from keywarp.networks import DeepFeatureFlow
from keywarp.training import pseudo_labels
from keywarp.training.evaluation import PROPAGATIONS, Accuracy, evaluate, evaluate_stream, warp_features
from keywarp.training.recipe import (
    CityscapesData,
    ClipsFlow,
    Color,
    CropRecipe,
    FlowTraining,
    FlyingChairsFlow,
    FlyingPiecesFlow,
    ImageNetData,
    MovingScenesData,
    MovingScenesFlow,
    PseudoLabelledClips,
    Recipe,
    VideoData,
)
from keywarp.training.reporting import Reporter
from keywarp.training.variants import METHODS

EVALUATION_SEED = 1 << 20  # seed of the scenes for evaluation; the scenes for training have other seeds
Class = tuple[str, Color]


@dataclass(frozen=True)
class TrainingData:
    """The data that a recipe trains and evaluates on."""

    classes: tuple[Class, ...]  # the background first
    train: PairSource
    evaluation: Mapping[str, SnippetSource]  # by name of the data set
    description: str  # where the data come from
    clips: tuple[LabelledClip, ...] = ()  # the clips with pseudo-labels, if there are any


def open_data(recipe: Recipe, cache: Path, reporter: Reporter) -> TrainingData:
    """Open the data, after fetching or generating what is missing.

    Args:
        recipe: The recipe.
        cache: The folder for packages, labels and generated data.
        reporter: Shows the progress of long work.

    Raises:
        keywarp.datasets.DataError: If data are missing or damaged.
    """
    sides = (recipe.image.short_side, recipe.image.long_side)
    match recipe.data:
        case PseudoLabelledClips():
            return _open_clips(recipe, recipe.data, cache, reporter)
        case MovingScenesData(scenes=scenes, options=options):
            train, held_out = open_moving_scenes(recipe, cache, options, scenes)
            return TrainingData(CLASSES, train, {"scenes": held_out}, "Moving Scenes (generated)")
        case CityscapesData(root=root):
            parts = [Cityscapes(root, split, *sides) for split in ("train", "val")]
            return TrainingData(CITYSCAPES, parts[0], {"val": parts[1]}, "Cityscapes")
        case ImageNetData(root=root, still_share=share):
            video = ImageNetVid(root, "train", *sides)
            found = cache / "imagenet-det.json"
            stills = [(ImageNetDet(root, *sides, found, _reading(reporter)), share)] if share else []
            train_on = Mixture([(video, 1 - share), *stills])
            return TrainingData(
                IMAGENET_VID, train_on, {"val": ImageNetVid(root, "val", *sides)}, "ImageNet VID and DET"
            )
        case VideoData(train=folder, evaluate=held_out_folder, classes=classes, upright=upright, video=video):
            known = (BACKGROUND, *classes)
            truth: Literal["labels", "boxes"] = "labels" if recipe.task == "segmentation" else "boxes"
            first, second = (
                LabelledVideos(root, known, *sides, truth, upright=upright, video=video)
                for root in (folder, held_out_folder)
            )
            return TrainingData(known, first, {held_out_folder.name: second}, folder.name)


def _reading(reporter: Reporter) -> Callable[[int, int], None]:
    """Return a function that reports how many annotation files have been read."""
    started = False

    def progress(done: int, total: int) -> None:
        nonlocal started
        if not started:
            reporter.stage("reading annotations", total)
            started = True
        reporter.step(done)

    return progress


def pair_batches(
    recipe: Recipe, data: TrainingData, crop: CropRecipe, batch: int, max_gap: int, workers: int
) -> PairDataset:
    """Return batches of pairs of frames.

    Args:
        recipe: The recipe.
        data: The recipe's data.
        crop: The augmented crops.
        batch: Samples in a batch, of all processes together.
        max_gap: The largest number of frames between key frame and current frame.
        workers: Processes that load samples; 0 for this process.
    """
    return PairDataset(data.train, crop.augmentation(), batch, recipe.seed, max_gap, workers)


def flow_batches(recipe: Recipe, training: FlowTraining, data: TrainingData, cache: Path, workers: int) -> FlowDataset:
    """Return batches of pairs of images with known motion.

    Args:
        recipe: The recipe.
        training: The recipe's pre-training of the flow network.
        data: The recipe's data.
        cache: The folder for packages.
        workers: Processes that load samples; 0 for this process.
    """
    crop = training.crop.augmentation()
    match training.source:
        case FlyingChairsFlow(root=root):
            return FlowDataset(FlyingChairs(root, "train"), crop, training.batch, recipe.seed, workers)
        case MovingScenesFlow():
            options = recipe.data.options if isinstance(recipe.data, MovingScenesData) else SceneOptions()
            scenes, _ = open_moving_scenes(recipe, cache, options, 1)
            return FlowDataset(scenes, crop, training.batch, recipe.seed, workers)
        case FlyingPiecesFlow(shift=shift):
            pictures, _ = split_photographs(photographs(cache / "packages"))
            pieces = FlyingPieces(pictures, crop.height, crop.width, SyntheticMotion(shift=shift))
            return FlowDataset(pieces, crop, training.batch, recipe.seed, workers)
        case ClipsFlow(made_share=share):
            clips = ClipFlowSource(data.clips, crop, share, SyntheticMotion())
            return FlowDataset(clips, None, training.batch, recipe.seed, workers)


def measure_accuracy(
    network: DeepFeatureFlow[Any], recipe: Recipe, data: TrainingData, reporter: Reporter, device: torch.device
) -> dict[str, dict[str, Accuracy]]:
    """Measure the accuracy on the recipe's data.

    Clips are run as streams, other data by the paper's protocol. Features are propagated by the flow network only if
    the variant has one.

    Args:
        network: The networks, on the device.
        recipe: The recipe.
        data: The recipe's data.
        reporter: Shows the progress.
        device: The networks' device.

    Returns:
        The accuracy by data set, then by propagation.
    """
    accuracy = {}
    has_flow = METHODS[recipe.variant].motion == "network"
    ways = {name: way for name, way in PROPAGATIONS.items() if has_flow or way is not warp_features}
    classes, interval = len(data.classes), recipe.key_interval
    for name, source in data.evaluation.items():
        reporter.stage(f"evaluating {name}", len(source))
        if isinstance(source, LabelledClip):
            frames = zip(source.clip.frames, (Truth(labels=labels) for labels in source.labels), strict=True)
            accuracy[name] = evaluate_stream(network, frames, classes, interval, ways, device, reporter.step)
        else:
            accuracy[name] = evaluate(network, source, classes, interval, ways, device, reporter.step)
    return accuracy


def open_moving_scenes(
    recipe: Recipe, cache: Path, options: SceneOptions, scenes: int
) -> tuple[MovingScenes, MovingScenes]:
    """Return the scenes for training and for evaluation, which are made of different photographs.

    Args:
        recipe: The recipe, with the size of the images.
        cache: The folder for packages.
        options: The distribution of the scenes.
        scenes: The number of scenes for evaluation.
    """
    options = replace(options, height=recipe.image.short_side, width=recipe.image.long_side)
    first, second = split_photographs(photographs(cache / "packages"))
    return MovingScenes(first, options), MovingScenes(second, options, seed=EVALUATION_SEED, size=scenes)


def _open_clips(recipe: Recipe, data: PseudoLabelledClips, cache: Path, reporter: Reporter) -> TrainingData:
    """Fetch, decode and label clips. A clip without held-out frames is evaluated on the frames that it trains on."""
    splits = []
    for clip_recipe in data.clips:
        clip = pseudo_labels.open_clip(clip_recipe, recipe.image, cache)
        reporter.stage(f"labelling {clip.name}", len(clip.frames))
        source = pseudo_labels.label(clip, clip_recipe, data, recipe.image, cache, reporter.step)
        splits.append(pseudo_labels.split(source, clip_recipe.holdout))
    evaluation = {
        f"{part.train.clip.name} ({'held out' if part.holdout else 'trained on'})": part.holdout or part.train
        for part in splits
    }
    clips = tuple(part.train for part in splits)
    sources = (c.source if isinstance(c.source, Path) else c.source.member for c in data.clips)
    return TrainingData(
        classes=tuple((c.name, c.color) for c in data.classes),
        train=Mixture([(clip, clip.weight) for clip in clips]),
        evaluation=evaluation,
        description=", ".join(Path(source).name for source in sources),
        clips=clips,
    )
