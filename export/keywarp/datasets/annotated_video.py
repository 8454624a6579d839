"""Annotated video: on disk, some frames of which are labelled. Pairs and snippets are cut from it."""

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
    """What a file says of a frame."""

    frame: str  # the frame's name, unique in its data set
    file: Path
    size: Size  # of the frame, according to the file
    truth: Truth  # in pixels of that size


class AnnotatedVideo(Protocol):
    """One video, or one photograph as a video of one frame, at its own size. Nothing is read before it is asked for."""

    @property
    def first(self) -> int:
        """The first frame's number; the next ones count up from it."""
        ...

    def frame(self, number: int) -> Image:
        """Read a frame."""
        ...

    def annotation(self, number: int) -> Annotation:
        """Read what is known of a frame."""
        ...


def draw_pair(
    video: AnnotatedVideo, number: int, resize: Resize, random: np.random.Generator, max_gap: int
) -> FramePair:
    """Pair a labelled frame with a key frame at most `max_gap` before it.

    Args:
        video: What to cut from.
        number: The labelled frame's.
        resize: The size to bring both to.
        random: The source of chance.
        max_gap: The gap is uniform in 0..max_gap, as far as the video reaches back.

    Raises:
        DataError: A file is missing or broken, or the sizes of frames and annotation differ.
    """
    annotation = video.annotation(number)
    gap = int(random.integers(min(max_gap, number - video.first) + 1))
    numbers = [number - gap, number] if gap else [number]  # the key frame first: videos are best read forwards
    images = []
    for image in map(video.frame, numbers):
        _check((image.shape[0], image.shape[1]), annotation)
        images.append(resize.image(image))
    return FramePair(images[-1], images[0], gap, resize.truth(annotation.truth, annotation.size))


def snippets_of(video: AnnotatedVideo, labelled: Iterable[int], length: int, resize: Resize) -> Iterator[Snippet]:
    """The labelled frames, each with the frames before it.

    Frames are read when they are indexed; going through the snippets in order reads each frame once.

    Args:
        video: What to cut from.
        labelled: The numbers of its labelled frames.
        length: Frames in a snippet, unless the video doesn't reach back so far.
        resize: The size to bring them to.

    Raises:
        DataError: As `draw_pair`, of a frame when it is indexed.
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
        self._read = read  # frame number -> the frame, and its size before it was brought to another
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
