from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keywarp.datasets import LabelledClip
from keywarp.training import pseudo_labels
from keywarp.training.recipe import PseudoLabelledClips, Recipe, read_recipe
from tests.datasets.synthetic import moving_square
from tests.training.recipes import TAUGHT, write_recipe
from tests.training.test_pipeline import white

Label = Callable[[], LabelledClip]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return read_recipe(write_recipe(tmp_path, TAUGHT))


@pytest.fixture
def taught_frames(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Label, list[int]]:
    """Return a function that labels the recipe's clip, and a list that grows with every frame that is labelled."""
    frames: list[int] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pseudo_labels, "make_teacher", lambda *_: white)
    assert isinstance(recipe.data, PseudoLabelledClips)
    data, [clip_recipe] = recipe.data, recipe.data.clips
    clip = pseudo_labels.open_clip(clip_recipe, recipe.image, tmp_path)

    def label() -> LabelledClip:
        return pseudo_labels.label(clip, clip_recipe, data, recipe.image, tmp_path, lambda: frames.append(1))

    return label, frames


def test_a_clip_is_labelled_by_the_teacher_once(taught_frames: tuple[Label, list[int]]) -> None:
    label, frames = taught_frames
    first = label()
    assert len(frames) == 12
    assert (first.labels == moving_square(frames=12).labels).mean() > 0.95
    assert np.array_equal(label().labels, first.labels)
    assert len(frames) == 12


def test_labels_that_were_not_written_whole_are_not_used(
    taught_frames: tuple[Label, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    label, frames = taught_frames

    def stop_halfway(file: Any, **arrays: np.ndarray[Any, Any]) -> None:  # noqa: ARG001
        file.write(b"PK\x03\x04")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", stop_halfway)
        with pytest.raises(KeyboardInterrupt):
            label()
    assert label().labels.shape == (12, 64, 96)
    assert len(frames) == 24


@pytest.mark.parametrize(("holdout", "frames"), [(0.25, (9, 3)), (0.0, (12, None))])
def test_the_end_of_a_clip_can_be_held_out(holdout: float, frames: tuple[int, int | None]) -> None:
    source = moving_square(frames=12)
    parts = pseudo_labels.split(source, holdout)
    assert (len(parts.train), parts.holdout and len(parts.holdout)) == frames
    if parts.holdout:
        assert np.array_equal(parts.holdout.labels, source.labels[9:])
        assert np.array_equal(parts.holdout.clip.frames, source.clip.frames[9:])
