import numpy as np

from keywarp.datasets import IGNORE, Augmentation, Clip, LabelledClip, MadeMotion, PairSampler
from tests.datasets.clips import moving_square

EXACT = Augmentation(64, 96, zoom=(1, 1), gain=0, tint=0, flip=0)


def numbered(frames: int, cut: int) -> LabelledClip:
    """A clip whose pixels hold their frame's number."""
    pictures = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 16, 16, 3)).copy()
    return LabelledClip(Clip("numbered", pictures, (range(cut), range(cut, frames))), pictures[..., 0] % 2)


def test_pairs_stay_within_a_shot_and_at_most_nine_frames_apart() -> None:
    sampler = PairSampler([numbered(40, 12)], Augmentation(16, 16, (1, 1), 0, 0, 0), seed=0)
    batch = sampler.labelled(0, 400)
    current, key = batch.current[:, 0, 0, 0].astype(int), batch.key[:, 0, 0, 0].astype(int)
    gaps = current - key
    assert set(gaps) == set(range(10))
    assert ((current < 12) == (key < 12)).all()
    assert np.array_equal(batch.propagated, gaps > 0)
    assert (batch.labels[:, 0, 0] == current % 2).all()


def test_without_augmentation_a_sample_is_the_frame() -> None:
    source = moving_square()
    batch = PairSampler([source], EXACT, seed=0).labelled(0, 4)
    for image, labels in zip(batch.current, batch.labels, strict=True):
        index = next(i for i, frame in enumerate(source.clip.frames) if np.array_equal(frame, image))
        np.testing.assert_array_equal(labels, source.labels[index])


def test_labels_follow_zoom_crop_and_mirror() -> None:
    sampler = PairSampler([moving_square()], Augmentation(48, 64, (0.7, 1.4), gain=0, tint=0), seed=1)
    batch = sampler.labelled(0, 16)
    white = batch.current.min(axis=3) > 250
    known = batch.labels != IGNORE
    assert (white == (batch.labels == 1))[known].mean() > 0.97


def test_what_is_outside_the_frame_is_ignored() -> None:
    batch = PairSampler([moving_square()], Augmentation(96, 128, (1, 1)), seed=0).labelled(0, 1)
    assert (batch.labels[0, :16] == IGNORE).all()
    assert (batch.labels[0, 17:79, 17:111] != IGNORE).all()


def test_equal_seeds_draw_equal_batches() -> None:
    first, second = (
        PairSampler([moving_square()], Augmentation(32, 48), seed=7).flows(0, 3, 0.5, MadeMotion()) for _ in "ab"
    )
    np.testing.assert_array_equal(first.flow, second.flow)
    np.testing.assert_array_equal(first.key, second.key)
