"""Synthetic clips with known content."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from keywarp.datasets import MAX_GAP, Boxes, Clip, FlowPair, FramePair, Image, LabelledClip, Snippet, Truth


def textured(height: int, width: int, seed: int = 0) -> Image:
    """Return a smooth random image, in which motion can be estimated."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8).reshape(
        height, width, 3
    )


def moving_square(
    frames: int = 12, height: int = 64, width: int = 96, step: int = 2, cut: int | None = None
) -> LabelledClip:
    """Return a clip of a white square that moves right over a textured background, labelled 1."""
    pictures = np.stack([textured(height, width)] * frames)
    labels = np.zeros((frames, height, width), np.uint8)
    for index in range(frames):
        left = 8 + step * index
        pictures[index, 20:44, left : left + 24] = 255
        labels[index, 20:44, left : left + 24] = 1
    shots = (range(frames),) if cut is None else (range(cut), range(cut, frames))
    return LabelledClip(Clip("square", pictures, shots), labels)


def write_frames(folder: Path, source: LabelledClip, labelled: range) -> None:
    """Write a clip for `LabelledVideos`: a folder of frames, and a folder with the labels of some of them."""
    frames, labels = folder / "square", folder / "square.labels"
    for path in (frames, labels):
        path.mkdir(parents=True)
    for number, image in enumerate(source.clip.frames):
        cv2.imwrite(str(frames / f"{number:06d}.png"), image[..., ::-1])
    for number in labelled:
        cv2.imwrite(str(labels / f"{number:06d}.png"), source.labels[number])


class Squares:
    """The moving square as a source of pairs, snippets and flow, with labels and boxes."""

    def __init__(self, source: LabelledClip | None = None) -> None:
        self.clip = source or moving_square()

    def truth(self, index: int) -> Truth:
        labels = self.clip.labels[index]
        rows, columns = np.nonzero(labels)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return Truth(labels, Boxes(np.array([box], np.float32), np.array([1], np.int64)))

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        current = self.clip.frame(random)
        gap = int(random.integers(min(max_gap, current) + 1))
        frames = self.clip.clip.frames
        return FramePair(frames[current], frames[current - gap], gap, self.truth(current))

    def flow_pair(self, random: np.random.Generator) -> FlowPair:
        current, key = self.clip.frame(random), self.clip.frame(random)
        left = [int(np.nonzero(self.clip.labels[index])[1].min()) for index in (current, key)]
        flow = np.zeros((*self.clip.labels.shape[1:], 2), np.float32)
        flow[self.clip.labels[current] == 1, 0] = left[1] - left[0]
        return FlowPair(self.clip.clip.frames[current], self.clip.clip.frames[key], flow)

    def __len__(self) -> int:
        return len(self.clip)

    def snippets(self, length: int) -> Iterator[Snippet]:
        for index in range(len(self)):
            frames = list(self.clip.clip.frames[max(0, index - length + 1) : index + 1])
            yield Snippet(str(index), frames, self.truth(index))
