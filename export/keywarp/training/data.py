"""A recipe's data, ready to draw from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from keywarp.datasets import Augmentation, ClipFlowSource, LabelledClip, SyntheticMotion
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
from keywarp.training import taught
from keywarp.training.evaluation import PROPAGATIONS, Accuracy, by_network, evaluate, evaluate_stream
from keywarp.training.recipe import (
    Augmented,
    CityscapesData,
    Color,
    FileInPackage,
    FlowTraining,
    FlyingChairsFlow,
    FlyingPiecesFlow,
    ImageNetData,
    MadeFlow,
    MovingScenesData,
    MovingScenesFlow,
    Recipe,
    TaughtClips,
    VideoData,
)
from keywarp.training.reporting import Reporter
from keywarp.training.variants import METHODS

EVALUATION_SEED = 1 << 20  # of the scenes that are evaluated on; those of training have their own
Class = tuple[str, Color]


@dataclass(frozen=True)
class Data:
    """What a recipe trains and evaluates on."""

    classes: tuple[Class, ...]  # the background first
    train: PairSource
    evaluation: Mapping[str, SnippetSource]  # by name
    described: str  # where it comes from
    clips: tuple[LabelledClip, ...] = ()  # that it is made of, if it is


def open_data(recipe: Recipe, cache: Path, reporter: Reporter) -> Data:
    """Find, fetch or make the data.

    Args:
        recipe: Says which.
        cache: Folder for what is fetched and made.
        reporter: Told about what takes long.

    Raises:
        keywarp.datasets.DataError: Something is missing or broken.
    """
    sides = (recipe.image.short_side, recipe.image.long_side)
    match recipe.data:
        case TaughtClips():
            return _taught(recipe, recipe.data, cache, reporter)
        case MovingScenesData(scenes=scenes, options=options):
            train, held_out = moving_scenes(recipe, cache, options, scenes)
            return Data(CLASSES, train, {"scenes": held_out}, "Moving Scenes (generated)")
        case CityscapesData(root=root):
            parts = [Cityscapes(root, split, *sides) for split in ("train", "val")]
            return Data(CITYSCAPES, parts[0], {"val": parts[1]}, "Cityscapes")
        case ImageNetData(root=root, still_share=share):
            video = ImageNetVid(root, "train", *sides)
            found = cache / "imagenet-det.json"
            stills = [(ImageNetDet(root, *sides, found, _reading(reporter)), share)] if share else []
            train_on = Mixture([(video, 1 - share), *stills])
            return Data(IMAGENET_VID, train_on, {"val": ImageNetVid(root, "val", *sides)}, "ImageNet VID and DET")
        case VideoData(train=folder, evaluate=held_out_folder, classes=classes):
            known = (BACKGROUND, *classes)
            truth: Literal["labels", "boxes"] = "labels" if recipe.task == "segmentation" else "boxes"
            first, second = (LabelledVideos(root, known, *sides, truth) for root in (folder, held_out_folder))
            return Data(known, first, {held_out_folder.name: second}, folder.name)


def _reading(reporter: Reporter) -> Callable[[int, int], None]:
    """Tell a reporter how many files have been read."""
    told: list[int] = []

    def progress(done: int, total: int) -> None:
        if not told:
            reporter.stage("reading annotations", total)
            told.append(total)
        reporter.step(done)

    return progress


def pair_draws(recipe: Recipe, data: Data, crop: Augmented, batch: int, max_gap: int, workers: int) -> PairDataset:
    """Batches of pairs."""
    return PairDataset(data.train, augmentation(crop), batch, recipe.seed, max_gap, workers)


def flow_draws(recipe: Recipe, training: FlowTraining, data: Data, cache: Path, workers: int) -> FlowDataset:
    """Batches of known motion."""
    crop = augmentation(training.crop)
    match training.source:
        case FlyingChairsFlow(root=root):
            return FlowDataset(FlyingChairs(root, "train"), crop, training.batch, recipe.seed, workers)
        case MovingScenesFlow():
            options = recipe.data.options if isinstance(recipe.data, MovingScenesData) else SceneOptions()
            scenes, _ = moving_scenes(recipe, cache, options, 1)
            return FlowDataset(scenes, crop, training.batch, recipe.seed, workers)
        case FlyingPiecesFlow(shift=shift):
            pictures, _ = split_photographs(photographs(cache / "packages"))
            pieces = FlyingPieces(pictures, crop.height, crop.width, SyntheticMotion(shift=shift))
            return FlowDataset(pieces, crop, training.batch, recipe.seed, workers)
        case MadeFlow(made_share=share):
            clips = ClipFlowSource(data.clips, crop, share, SyntheticMotion())
            return FlowDataset(clips, None, training.batch, recipe.seed, workers)


def measure(
    network: DeepFeatureFlow[Any], recipe: Recipe, data: Data, reporter: Reporter, device: torch.device
) -> dict[str, dict[str, Accuracy]]:
    """Accuracy by data set and way of propagation. Clips are run as streams, others by the paper's protocol.

    Features are propagated where the variant has a flow network to do it.
    """
    accuracy = {}
    has_flow = METHODS[recipe.variant].motion == "network"
    ways = {name: way for name, way in PROPAGATIONS.items() if has_flow or way is not by_network}
    classes, interval = len(data.classes), recipe.key_interval
    for name, source in data.evaluation.items():
        reporter.stage(f"evaluating {name}", len(source))
        if isinstance(source, LabelledClip):
            frames = zip(source.clip.frames, (Truth(labels=labels) for labels in source.labels), strict=True)
            accuracy[name] = evaluate_stream(network, frames, classes, interval, ways, device, reporter.step)
        else:
            accuracy[name] = evaluate(network, source, classes, interval, ways, device, reporter.step)
    return accuracy


def augmentation(crop: Augmented) -> Augmentation:
    """The recipe's crops."""
    return Augmentation(crop.height, crop.width, crop.zoom, crop.gain, crop.tint, crop.flip)


def moving_scenes(recipe: Recipe, cache: Path, options: SceneOptions, scenes: int) -> tuple[MovingScenes, MovingScenes]:
    """To train on, and to evaluate on: of different photographs."""
    options = replace(options, height=recipe.image.short_side, width=recipe.image.long_side)
    first, second = split_photographs(photographs(cache / "packages"))
    return MovingScenes(first, options), MovingScenes(second, options, seed=EVALUATION_SEED, size=scenes)


def _taught(recipe: Recipe, data: TaughtClips, cache: Path, reporter: Reporter) -> Data:
    """Fetch, decode and label clips; evaluate on what is held out, or else on what was trained on."""
    splits = []
    for clip_recipe in data.clips:
        clip = taught.read(clip_recipe, recipe.image, cache)
        reporter.stage(f"labelling {clip.name}", len(clip.frames))
        source = taught.labelled(clip, clip_recipe, data, recipe.image, cache, reporter.step)
        splits.append(taught.split(source, clip_recipe.holdout))
    evaluation = {
        f"{part.train.clip.name} ({'held out' if part.holdout else 'trained on'})": part.holdout or part.train
        for part in splits
    }
    clips = tuple(part.train for part in splits)
    sources = (c.source.member if isinstance(c.source, FileInPackage) else c.source for c in data.clips)
    return Data(
        classes=tuple((c.name, c.color) for c in data.classes),
        train=Mixture([(clip, clip.weight) for clip in clips]),
        evaluation=evaluation,
        described=", ".join(Path(source).name for source in sources),
        clips=clips,
    )
