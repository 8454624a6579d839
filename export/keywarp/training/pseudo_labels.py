"""Clips with pseudo-labels, which are the labels that a detector, the teacher, gives them."""

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
    ShapePrior,
    TeacherClass,
    VotingRule,
    evidence,
    fetch,
    label_clip,
    read_clip,
)
from keywarp.datasets.labelling import Evidence
from keywarp.training.recipe import ClipRecipe, ImageRecipe, PseudoLabelledClips


@dataclass(frozen=True)
class Split:
    """A labelled clip, divided into a part for training and a part for evaluation only."""

    train: LabelledClip
    holdout: LabelledClip | None


def open_clip(clip: ClipRecipe, image: ImageRecipe, cache: Path) -> Clip:
    """Fetch and decode a clip at the recipe's size.

    Raises:
        keywarp.datasets.DataError: If the clip can't be fetched or decoded.
    """
    path = clip.source if isinstance(clip.source, Path) else fetch(clip.source, cache / "packages")
    return read_clip(path, clip.name, clip.cuts, image.short_side, image.long_side)


def label(
    clip: Clip,
    recipe: ClipRecipe,
    data: PseudoLabelledClips,
    image: ImageRecipe,
    cache: Path,
    progress: Callable[[], None],
) -> LabelledClip:
    """Label a clip with the recipe's teacher, or load the labels if the cache has them.

    Args:
        clip: The decoded clip.
        recipe: The clip's table in the recipe.
        data: The recipe's data, with the teacher and the classes.
        image: The recipe's image size.
        cache: The folder for packages and labels.
        progress: A function that is called after every labelled frame.
    """
    settings = {
        "clip": recipe.model_dump(mode="json", include={"source", "cuts", "grids"}),
        "teacher": data.teacher.model_dump(),
        "image": image.model_dump(),
        "classes": [c.model_dump(exclude={"name", "color"}) for c in data.classes],
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / "labels" / f"{recipe.name}-{key}.npz"
    if not file.exists():
        labels = label_clip(clip, make_teacher(recipe, data, cache), voting_rule(data), progress)
        file.parent.mkdir(parents=True, exist_ok=True)
        # A finished file is renamed into place, so that neither a kill nor another process leaves a partial one.
        partial = file.with_suffix(f".{os.getpid()}")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, labels=labels)
        partial.replace(file)
    with np.load(file) as content:
        return LabelledClip(clip, content["labels"], recipe.weight)


def voting_rule(data: PseudoLabelledClips) -> VotingRule:
    """Return the rule by which neighbouring frames vote for a pixel's class."""
    return VotingRule(tuple(c.accept for c in data.classes[1:]))


def split(source: LabelledClip, holdout: float) -> Split:
    """Divide a clip into a part for training and a part for evaluation.

    Args:
        source: The clip.
        holdout: The fraction of its frames, at the end, that is for evaluation only.
    """
    frames = len(source.clip.frames)
    cut = round(frames * (1 - holdout))
    if cut == frames:
        return Split(source, None)
    first = LabelledClip(source.clip.part(source.clip.name, 0, cut), source.labels[:cut], source.weight)
    rest = source.clip.part(source.clip.name, cut, frames)
    return Split(first, LabelledClip(rest, source.labels[cut:], source.weight))


def make_teacher(clip: ClipRecipe, data: PseudoLabelledClips, cache: Path) -> Callable[[Image], Evidence]:
    """Return a function that computes the evidence for each class on a frame of the clip."""
    detector = Detector(fetch(data.teacher.model, cache / "packages"))
    classes = tuple(TeacherClass(c.name, c.color, c.categories, ShapePrior(c.power, c.core)) for c in data.classes)
    groups = tuple(c.categories for c in classes[1:])

    def teacher(frame: Image) -> Evidence:
        return evidence(frame, detector(frame, clip.grids, groups, data.teacher.threshold), classes)

    return teacher
