"""Cityscapes as it is distributed: street scenes in snippets of 30 frames, the 20th of which is labelled (section 5.1).

    leftImg8bit_sequence/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png     (the labelled frames only)
    gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

The videos of some cities are one long sequence, where labelled frames have other numbers than 19. The frames of a
snippet are therefore found from the labelled frame's number.
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

FRAMES_BEFORE = 19  # frames of a snippet before its labelled frame

# the label ids of the 19 evaluated classes, in the order of their train ids (cityscapesScripts, helpers/labels.py)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_CLASS_OF = np.full(256, IGNORE, np.uint8)  # by label id: the index in classes.CITYSCAPES, where 0 is the background
_CLASS_OF[list(LABEL_IDS)] = range(1, len(LABEL_IDS) + 1)

_LABELS = "_gtFine_labelIds.png"
_IMAGE = "_leftImg8bit.png"


class Cityscapes:
    """A split of Cityscapes, with the classes of `keywarp.datasets.classes.CITYSCAPES`.

    Where `leftImg8bit_sequence` has the split, pairs and snippets are video. Otherwise they are single frames from
    `leftImg8bit`, for training per frame. Pairs are drawn uniformly over the snippets.
    """

    def __init__(self, root: Path, split: str = "train", short_side: int = 1024, long_side: int = 2048) -> None:
        """Find the files.

        Args:
            root: The folder that holds `gtFine` and the images.
            split: `train` or `val`. The labels of `test` aren't public.
            short_side: The pixels of the shorter side that frames are resized to, unless the longer side would exceed
                `long_side`.
            long_side: The maximum pixels of the longer side.

        Raises:
            DataError: If folders or frames are missing.
        """
        self._resize = Resize(short_side, long_side)
        labels = sorted((root / "gtFine" / split).glob(f"*/*{_LABELS}"))
        if not labels:
            raise DataError(
                f"there is no *{_LABELS} in {root / 'gtFine' / split / '<city>'}; "
                f"unpack gtFine_trainvaltest.zip into {root}"
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
            raise DataError(f"neither {video} nor {stills} exists; unpack an archive of images into {root}")

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a labelled frame and a key frame before it.

        Raises:
            DataError: If a file is missing or broken.
        """
        snippet = self._snippets[int(random.integers(len(self._snippets)))]
        return draw_pair(snippet, snippet.last, self._resize, random, max_gap)

    def __len__(self) -> int:
        """Return the number of labelled frames."""
        return len(self._snippets)

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every labelled frame with up to `length` - 1 frames before it, ordered by city and number.

        Raises:
            DataError: If a file is missing or broken.
        """
        for snippet in self._snippets:
            yield from snippets_of(snippet, [snippet.last], length, self._resize)


@dataclass(frozen=True)
class _CityscapesSnippet:
    """A labelled frame and the frames before it."""

    labels: Path
    folder: Path  # of the frames
    before: int  # number of frames before the labelled one

    @property
    def name(self) -> str:
        return self.labels.name.removesuffix(_LABELS)

    @property
    def last(self) -> int:
        return int(self.name.rpartition("_")[2])

    @property
    def first(self) -> int:
        return self.last - self.before

    def file(self, number: int) -> str:
        return f"{self.name.rpartition('_')[0]}_{number:06d}{_IMAGE}"

    def frame(self, number: int) -> Image:
        return read_image(self.folder / self.file(number))

    def annotation(self, number: int) -> Annotation:  # noqa: ARG002 - only one frame is labelled
        labels = _CLASS_OF[read_labels(self.labels)]
        return Annotation(self.name, self.labels, (labels.shape[0], labels.shape[1]), Truth(labels=labels))


def _find_snippet(labels: Path, video: Path, names: set[str]) -> _CityscapesSnippet:
    """Find a labelled frame's snippet, which has fewer frames before it where not all files are there."""
    full = _CityscapesSnippet(labels, video / labels.parent.name, FRAMES_BEFORE)
    present = [full.file(number) in names for number in range(full.last, full.first - 1, -1)]  # backwards
    count = present.index(False) if False in present else len(present)
    if count == 0 or any(present[count:]):
        missing = full.folder / full.file(full.last - count)
        raise DataError(f"{missing} is missing; unpack leftImg8bit_sequence_trainvaltest.zip again")
    return _CityscapesSnippet(full.labels, full.folder, count - 1)
