"""Cityscapes, as it is unpacked: street scenes in snippets of 30 frames, the 20th of which is labelled (section 5.1).

    leftImg8bit_sequence/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png     (the labelled frames only)
    gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

Some cities are one long sequence, so a labelled frame needn't be number 19: what belongs to a snippet is counted from
the labelled frame's number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keywarp.datasets.annotated_video import Annotation, draw_pair, snippets_of
from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Resize, read_image, read_labels
from keywarp.datasets.samples import MAX_GAP, FramePair, Snippet, Truth
from keywarp.datasets.types import IGNORE, Image

FRAMES_BEFORE = 19  # in a snippet, before its labelled frame

# the label ids of the 19 evaluated classes, in the order of their train ids (cityscapesScripts, helpers/labels.py)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_CLASS_OF = np.full(256, IGNORE, np.uint8)  # by label id; of classes.CITYSCAPES, where 0 is the background
_CLASS_OF[list(LABEL_IDS)] = range(1, len(LABEL_IDS) + 1)

_LABELS = "_gtFine_labelIds.png"
_IMAGE = "_leftImg8bit.png"


class Cityscapes:
    """A split of Cityscapes, with the classes of `keywarp.datasets.classes.CITYSCAPES`.

    Where `leftImg8bit_sequence` has the split, pairs and snippets are video. Otherwise they are single frames out of
    `leftImg8bit`, for training per frame. Pairs are drawn uniformly over the snippets.
    """

    def __init__(self, root: Path, split: str = "train", short_side: int = 1024, long_side: int = 2048) -> None:
        """Find the files.

        Args:
            root: The folder that holds `gtFine` and the images.
            split: `train` or `val`; the labels of `test` are not public.
            short_side: Frames are resized so that their shorter side is this, in pixels, ...
            long_side: ... unless the longer one would then be above this.

        Raises:
            DataError: Folders or frames are missing.
        """
        self._resize = Resize(short_side, long_side)
        labels = sorted((root / "gtFine" / split).glob(f"*/*{_LABELS}"))
        if not labels:
            raise DataError(
                f"no *{_LABELS} in {root / 'gtFine' / split / '<city>'}; unpack gtFine_trainvaltest.zip into {root}"
            )
        video = root / "leftImg8bit_sequence" / split
        stills = root / "leftImg8bit" / split
        if video.is_dir():
            names = {
                folder.name: {path.name for path in folder.iterdir()} for folder in video.iterdir() if folder.is_dir()
            }
            self._snippets = [_find_snippet(path, video, names.get(path.parent.name, set())) for path in labels]
        elif stills.is_dir():
            self._snippets = [_CityscapesSnippet(path, stills / path.parent.name, 0) for path in labels]
        else:
            raise DataError(f"neither {video} nor {stills} is there; unpack the images' archive into {root}")

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a labelled frame and a key frame before it.

        Raises:
            DataError: A file is missing or broken.
        """
        snippet = self._snippets[int(random.integers(len(self._snippets)))]
        return draw_pair(snippet, snippet.last, self._resize, random, max_gap)

    def __len__(self) -> int:
        """How many labelled frames there are."""
        return len(self._snippets)

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Every labelled frame with up to `length` - 1 frames before it, by city and number.

        Raises:
            DataError: A file is missing or broken.
        """
        for snippet in self._snippets:
            yield from snippets_of(snippet, [snippet.last], length, self._resize)


@dataclass(frozen=True)
class _CityscapesSnippet:
    """A labelled frame and how many frames are there before it."""

    labels: Path
    folder: Path  # of its frames
    reach: int

    @property
    def name(self) -> str:
        return self.labels.name.removesuffix(_LABELS)

    @property
    def last(self) -> int:
        return int(self.name.rpartition("_")[2])

    @property
    def first(self) -> int:
        return self.last - self.reach

    def file(self, number: int) -> str:
        return f"{self.name.rpartition('_')[0]}_{number:06d}{_IMAGE}"

    def frame(self, number: int) -> Image:
        return read_image(self.folder / self.file(number))

    def annotation(self, number: int) -> Annotation:  # noqa: ARG002 - only one frame is labelled
        labels = _CLASS_OF[read_labels(self.labels)]
        return Annotation(self.name, self.labels, (labels.shape[0], labels.shape[1]), Truth(labels=labels))


def _find_snippet(labels: Path, video: Path, names: set[str]) -> _CityscapesSnippet:
    """A snippet that reaches back as far as there are frames."""
    full = _CityscapesSnippet(labels, video / labels.parent.name, FRAMES_BEFORE)
    there = [full.file(number) in names for number in range(full.last, full.first - 1, -1)]  # backwards
    reach = there.index(False) if False in there else len(there)
    if reach == 0 or any(there[reach:]):
        missing = full.folder / full.file(full.last - reach)
        raise DataError(f"{missing} is missing; unpack leftImg8bit_sequence_trainvaltest.zip again")
    return _CityscapesSnippet(full.labels, full.folder, reach - 1)
