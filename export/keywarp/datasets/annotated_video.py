"""Videos on disk with annotations for some of their frames. Pairs and snippets are taken from them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Resize, Size
from keywarp.datasets.samples import FramePair, Snippet, Truth
from keywarp.datasets.types import Image


@dataclass(frozen=True)
class Annotation:
    """A frame's annotation, as read from a file."""

    frame: str  # the frame's name, unique in its data set
    file: Path  # the file that holds the annotation
    size: Size  # the frame's size according to the file
    truth: Truth  # the ground truth, in pixels of that size


class AnnotatedVideo(Protocol):
    """A video at its own size, or a photograph as a video of one frame. Frames and annotations are read on demand."""

    @property
    def first(self) -> int:
        """Return the number of the first frame. The following frames have consecutive numbers."""
        ...

    def frame(self, number: int) -> Image:
        """Read a frame."""
        ...

    def annotation(self, number: int) -> Annotation:
        """Read a frame's annotation."""
        ...


def draw_pair(
    video: AnnotatedVideo, number: int, resize: Resize, random: np.random.Generator, max_gap: int
) -> FramePair:
    """Draw a key frame for a labelled frame, at most `max_gap` frames before it.

    Args:
        video: The video.
        number: The number of the labelled frame.
        resize: The size that both frames are resized to.
        random: The random generator.
        max_gap: The maximum gap in frames. The gap is uniform in 0..max_gap, but doesn't reach back before the first
            frame.

    Raises:
        DataError: If a file is missing or broken, or the frames and the annotation differ in size.
    """
    annotation = video.annotation(number)
    gap = int(random.integers(min(max_gap, number - video.first) + 1))
    numbers = [number - gap, number] if gap else [number]  # the key frame first, since videos are read fastest forwards
    images = []
    for image in map(video.frame, numbers):
        _check((image.shape[0], image.shape[1]), annotation)
        images.append(resize.image(image))
    return FramePair(images[-1], images[0], gap, resize.truth(annotation.truth, annotation.size))


def snippets_of(video: AnnotatedVideo, labelled: Iterable[int], length: int, resize: Resize) -> Iterator[Snippet]:
    """Yield the labelled frames, each with the frames before it.

    Frames are read when they are indexed. Iterating over the snippets in order reads each frame once.

    Args:
        video: The video.
        labelled: The numbers of the labelled frames.
        length: The number of frames in a snippet. Snippets near the first frame are shorter.
        resize: The size that frames are resized to.

    Raises:
        DataError: If a file is missing or broken, or a frame and its annotation differ in size. Frames are checked when
            they are indexed.
    """

    @lru_cache(maxsize=length)
    def read(number: int) -> tuple[Image, Size]:
        image = video.frame(number)
        return resize.image(image), (image.shape[0], image.shape[1])

    for number in labelled:
        annotation = video.annotation(number)
        numbers = range(max(video.first, number - length + 1), number + 1)
        yield Snippet(
            annotation.frame, _LazyFrames(numbers, read, annotation), resize.truth(annotation.truth, annotation.size)
        )


class _LazyFrames(Sequence[Image]):
    """A snippet's frames, read when they are indexed."""

    def __init__(self, numbers: range, read: Callable[[int], tuple[Image, Size]], annotation: Annotation) -> None:
        self._numbers = numbers
        self._read = read  # frame number -> the resized frame, and its original size
        self._annotation = annotation

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Image: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Image]: ...

    def __getitem__(self, place: int | slice) -> Image | Sequence[Image]:
        if isinstance(place, slice):
            return _LazyFrames(self._numbers[place], self._read, self._annotation)
        image, size = self._read(self._numbers[place])
        _check(size, self._annotation)
        return image


def _check(size: Size, annotation: Annotation) -> None:
    if size != annotation.size:
        height, width = annotation.size
        raise DataError(
            f"{annotation.file} is for a frame of {width}x{height} pixels, but {annotation.frame}, or a frame before "
            f"it, has {size[1]}x{size[0]}; annotate frames at their own size"
        )
