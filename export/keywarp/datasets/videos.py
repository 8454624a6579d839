"""A user's own videos, with labels for some of their frames.

    gate.mp4                  a video, ...
    yard/000000.jpg           ... or a folder of frames, named by consecutive numbers
    gate.labels/000120.png    segmentation: class ids of frame 120, an 8-bit greyscale PNG, where 255 is unknown
    gate.boxes.json           detection: {"120": [{"class": "person", "box": [x1, y1, x2, y2]}], "300": []}

A video's frames are counted from 0 in the order in which they are shown. A folder's frames have the numbers in their
names. Boxes are in the frame's own pixels, as it is shown, from its top left corner. An empty list means that a frame
has no objects.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from keywarp.datasets.annotated_video import Annotation, draw_pair, snippets_of
from keywarp.datasets.classes import Classes
from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Resize, Size, read_bytes, read_image, read_labels
from keywarp.datasets.samples import MAX_GAP, Boxes, FramePair, Snippet, Truth
from keywarp.datasets.types import IGNORE, Image, Labels
from keywarp.datasets.video_file import VideoFile, VideoReader
from keywarp.images import SUFFIXES

_LABELS, _BOXES = ".labels", ".boxes.json"
TruthKind = Literal["labels", "boxes"]


class LabelledVideos:
    """A folder of videos of which some frames are labelled. Pairs are drawn uniformly over all labelled frames."""

    def __init__(
        self,
        root: Path,
        classes: Classes,
        short_side: int,
        long_side: int,
        truth: TruthKind | None = None,
        *,
        upright: bool = True,
        video: int | None = None,
    ) -> None:
        """Find the videos that have labels, and read their boxes.

        Args:
            root: The folder.
            classes: The classes that class ids and names refer to. The first one is the background.
            short_side: The pixels of the shorter side that frames are resized to, unless the longer side would exceed
                `long_side`.
            long_side: The maximum pixels of the longer side.
            truth: The kind of labels that frames must have, or None to take frames with either kind.
            upright: Whether frames are turned as the video's display matrix or the image's EXIF orientation says, as
                programs for labelling show them, or left as they are stored.
            video: Which of the videos of a video file, from 0, or None for the best.

        Raises:
            DataError: If there are no labels, labels don't belong to exactly one video, or boxes are malformed.
        """
        self._resize = Resize(short_side, long_side)
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give the folder that holds the videos")
        entries = sorted(root.iterdir())
        endings = [end for kind, end in (("labels", _LABELS), ("boxes", _BOXES)) if truth in (None, kind)]
        names = {e.name.removesuffix(end) for e in entries for end in endings if e.name.endswith(end)}
        self._videos = [
            _video(root / name, entries, classes, endings, upright=upright, number=video) for name in sorted(names)
        ]
        self._labelled = [(video, number) for video in self._videos for number in video.labelled]
        if not self._labelled:
            raise DataError(
                f"there are no labelled frames in {root}; put "
                + " or ".join({_LABELS: f"NAME{_LABELS}/NUMBER.png", _BOXES: f"NAME{_BOXES}"}[end] for end in endings)
                + " next to a video"
            )

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a labelled frame and a key frame before it.

        Raises:
            DataError: If a file is missing or broken, or a label's frame doesn't exist.
        """
        video, number = self._labelled[int(random.integers(len(self._labelled)))]
        return draw_pair(video.open(), number, self._resize, random, max_gap)

    def __len__(self) -> int:
        """Return the number of labelled frames."""
        return len(self._labelled)

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every labelled frame with up to `length` - 1 frames before it, ordered by video and number.

        Raises:
            DataError: If a file is missing or broken, or a label's frame doesn't exist.
        """
        for video in self._videos:
            yield from snippets_of(video.open(), video.labelled, length, self._resize)


@dataclass(frozen=True)
class _FrameFolder:
    """A folder of frames."""

    frames: dict[int, Path]  # by number
    upright: bool

    @property
    def first(self) -> int:
        return min(self.frames)

    @property
    def last(self) -> int:
        return max(self.frames)

    def frame(self, number: int) -> Image:
        return read_image(self.frames[number], upright=self.upright)

    def size(self, number: int) -> Size:
        height, width = self.frame(number).shape[:2]
        return height, width

    def open(self) -> "_FrameFolder":
        return self


@dataclass(frozen=True)
class _LabelledVideo:
    """A video and the locations of its labels."""

    path: Path  # without its suffix
    source: VideoFile | _FrameFolder
    labels: dict[int, Path]  # by frame number
    boxes: dict[int, Boxes]
    classes: int  # number of classes

    @property
    def labelled(self) -> list[int]:
        return sorted({*self.labels, *self.boxes})

    def open(self) -> "_OpenVideo":
        return _OpenVideo(self, self.source.open())


@dataclass(frozen=True)
class _OpenVideo:
    """A labelled video whose frames can be read."""

    video: _LabelledVideo
    frames: VideoReader | _FrameFolder

    @property
    def first(self) -> int:
        return self.frames.first

    def frame(self, number: int) -> Image:
        return self.frames.frame(number)

    def annotation(self, number: int) -> Annotation:
        video = self.video
        file = video.labels.get(number, video.path.with_name(f"{video.path.name}{_BOXES}"))
        if not self.frames.first <= number <= self.frames.last:
            raise DataError(
                f"{file} labels frame {number}, but {video.path.name} has frames {self.frames.first} to "
                f"{self.frames.last}; number labels like the frames"
            )
        labels = _read_labels(file, video.classes) if number in video.labels else None
        size = self.frames.size(number) if labels is None else (labels.shape[0], labels.shape[1])
        boxes = _clip(video.boxes[number], size, f"frame {number} of {file}") if number in video.boxes else None
        return Annotation(f"{video.path.name}/{number:06d}", file, size, Truth(labels, boxes))


def _video(
    path: Path, entries: list[Path], classes: Classes, endings: list[str], *, upright: bool, number: int | None
) -> _LabelledVideo:
    """Find the video of a name among the entries of its folder."""
    sources = [e for e in entries if e == path or (e.stem == path.name and e.is_file() and e.suffix != ".json")]
    if len(sources) != 1:
        names = " and ".join(source.name for source in sources)
        raise DataError(
            f"there are labels for {path}, but "
            + (
                f"{names} match them; keep one"
                if sources
                else "no video; put a video or folder of frames of that name there"
            )
        )
    source: VideoFile | _FrameFolder = VideoFile(sources[0], upright=upright, video=number)
    if sources[0].is_dir():
        frames = _numbered(sources[0], SUFFIXES)
        gap = next((number for number in frames if number - 1 not in frames and number != min(frames)), None)
        if not frames or gap is not None:
            missing = "no frames" if gap is None else f"no frame {gap - 1}"
            raise DataError(f"{sources[0]} has {missing}; number its frames consecutively")
        source = _FrameFolder(frames, upright)
    labels, boxes = (path.with_name(path.name + end) for end in (_LABELS, _BOXES))
    return _LabelledVideo(
        path,
        source,
        _numbered(labels, {".png"}) if _LABELS in endings and labels.is_dir() else {},
        _read_boxes(boxes, classes) if _BOXES in endings and boxes.is_file() else {},
        len(classes),
    )


def _numbered(folder: Path, suffixes: Set[str]) -> dict[int, Path]:
    """Return a folder's images, keyed by the numbers at the end of their names."""
    images: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):  # files of the system
            continue
        digits = re.search(r"[0-9]+$", path.stem)
        if digits is None:
            raise DataError(f"{path} has no number; end its name with its frame's number")
        number = int(digits[0])
        if number in images:
            raise DataError(f"{path} and {images[number].name} have the same number; keep one")
        images[number] = path
    return images


def _read_labels(path: Path, classes: int) -> Labels:
    labels = read_labels(path)
    unknown = labels[(labels >= classes) & (labels != IGNORE)]
    if unknown.size:
        raise DataError(f"{path} holds class id {unknown[0]}; use 0 to {classes - 1}, and {IGNORE} for unknown")
    return labels


class _LabelledObject(BaseModel):
    """An object in a .boxes.json file."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(alias="class")]
    box: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]


_OBJECTS = TypeAdapter(dict[NonNegativeInt, list[_LabelledObject]])


def _read_boxes(path: Path, classes: Classes) -> dict[int, Boxes]:
    try:
        frames = _OBJECTS.validate_json(read_bytes(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = " / ".join(str(step) for step in first["loc"])
        raise DataError(f"{path} is malformed{f' at {where}' if where else ''}: {first['msg']}") from error
    ids = {name: number for number, (name, _) in enumerate(classes) if number}
    for number, objects in frames.items():
        for object_ in objects:
            if object_.name not in ids:
                raise DataError(
                    f"{path} has an unknown class `{object_.name}` on frame {number}; use one of {', '.join(ids)}"
                )
            x1, y1, x2, y2 = object_.box
            if not (x1 < x2 and y1 < y2):
                raise DataError(
                    f"{path} has an empty box {list(object_.box)} on frame {number}; write it as [x1, y1, x2, y2]"
                )
    return {
        number: Boxes(
            np.array([object_.box for object_ in objects], np.float32).reshape(-1, 4),
            np.array([ids[object_.name] for object_ in objects], np.int64),
        )
        for number, objects in frames.items()
    }


def _clip(boxes: Boxes, size: Size, where: str) -> Boxes:
    """Clip boxes to the frame."""
    corners = boxes.corners.clip(0, np.array([size[1], size[0]] * 2, np.float32))
    outside = (corners[:, :2] >= corners[:, 2:]).any(axis=1)
    if outside.any():
        box = boxes.corners[outside][0].tolist()
        raise DataError(
            f"{where} has a box {box} outside its {size[1]}x{size[0]} pixels; give boxes in the frame's own pixels"
        )
    return Boxes(corners, boxes.classes)
