"""ImageNet's data sets for object detection in video (VID) and images (DET) as they are distributed (section 5.1).

    Data/VID/train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000/000000.JPEG
    Data/VID/val/ILSVRC2015_val_00000000/000000.JPEG
    Data/DET/train/ILSVRC2013_train/n02691156/n02691156_10153.JPEG
    Data/DET/train/ILSVRC2014_train_0000/ILSVRC2014_train_00000663.JPEG
    Annotations/...                                  (the same paths, .xml)
    ImageSets/VID/train_1.txt ... train_30.txt, val.txt   (optional)
    ImageSets/DET/train_1.txt ... train_200.txt           (optional)

Both sets name objects by WordNet id. VID's 30 classes are 30 of DET's 200, with the same ids (development kit, 4.1).

Boxes are read as in the paper's own code: pixels are counted from 0, and xmax and ymax are the last ones inside. The
corresponding continuous box ends at xmax + 1, ymax + 1. Boxes are clipped to the image. Occluded objects are included,
and so are boxes that were interpolated between two annotated ones. They belong to the pixels as they are stored, so the
EXIF orientation of images is ignored.
"""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keywarp.datasets.annotated_video import Annotation, draw_pair, snippets_of
from keywarp.datasets.errors import DataError
from keywarp.datasets.images import Resize, read_bytes, read_image
from keywarp.datasets.samples import MAX_GAP, Boxes, FramePair, Snippet, Truth
from keywarp.datasets.types import Image

# the 30 classes, in the order of `keywarp.datasets.classes.IMAGENET_VID` without its background
WORDNET_IDS = (
    *("n02691156", "n02419796", "n02131653", "n02834778", "n01503061", "n02924116", "n02958343", "n02402425"),
    *("n02084071", "n02121808", "n02503517", "n02118333", "n02510455", "n02342885", "n02374451", "n02129165"),
    *("n01674464", "n02484322", "n03790512", "n02324045", "n02509815", "n02411705", "n01726692", "n02355227"),
    *("n02129604", "n04468005", "n01662784", "n04530566", "n02062744", "n02391049"),
)
# the numbers of the 30 classes among DET's 200, which are in alphabetical order
DET_NUMBERS = (
    *(2, 4, 20, 24, 26, 33, 37, 39, 58, 59, 64, 70, 74, 84, 92),
    *(103, 105, 113, 114, 141, 144, 155, 159, 166, 182, 185, 188, 197, 198, 200),
)

_CLASS_OF = {wordnet_id: number for number, wordnet_id in enumerate(WORDNET_IDS, 1)}
_DRAWS = 100  # after this many images in a row without an object of the 30 classes, the lists must be wrong

Progress = Callable[[int, int], None]  # (files read so far, number of files)


class ImageNetVid:
    """A split of ImageNet VID, with the classes of `keywarp.datasets.classes.IMAGENET_VID`.

    Every frame is labelled, and a frame may have no objects. Pairs are drawn uniformly over the snippets and then over
    the snippet's frames. The paper's own list, 15 frames of each snippet, weights snippets equally, too. Long
    snippets, which show almost the same picture thousands of times, don't count for more than short ones.
    """

    def __init__(self, root: Path, split: str = "train", short_side: int = 600, long_side: int = 1000) -> None:
        """Find the snippets that the lists in `ImageSets/VID` name, or all snippets if there are no lists.

        Args:
            root: The folder that holds `Data` and `Annotations`.
            split: `train` or `val`.
            short_side: The pixels of the shorter side that frames are resized to, unless the longer side would exceed
                `long_side`.
            long_side: The maximum pixels of the longer side.

        Raises:
            DataError: If there are no snippets, or a listed one is missing.
        """
        self._resize = Resize(short_side, long_side)
        data = root / "Data" / "VID" / split
        names = _listed_snippets(root / "ImageSets" / "VID", split) or _all_snippets(data, split)
        if not names:
            raise DataError(f"there are no snippets in {data}; unpack the VID archive and give the folder above `Data`")
        for name in names:
            if not (data / name).is_dir():
                raise DataError(f"{data / name} is missing; unpack it, or remove it from the lists in ImageSets/VID")
        annotations = root / "Annotations" / "VID" / split
        self._snippets = [_VidSnippet(data / name, annotations / name) for name in names]

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw a frame and a key frame before it.

        Raises:
            DataError: If a file is missing or broken.
        """
        snippet = self._snippets[int(random.integers(len(self._snippets)))]
        return draw_pair(snippet, int(random.integers(len(snippet))), self._resize, random, max_gap)

    def __len__(self) -> int:
        """Return the number of frames, by listing every snippet's folder."""
        return sum(len(snippet) for snippet in self._snippets)

    def snippets(self, length: int) -> Iterator[Snippet]:
        """Yield every frame with up to `length` - 1 frames before it, in the order of names.

        Raises:
            DataError: If a file is missing or broken.
        """
        for snippet in self._snippets:
            yield from snippets_of(snippet, range(len(snippet)), length, self._resize)


class ImageNetDet:
    """ImageNet DET's training images of VID's 30 classes, with the objects of these classes.

    Pairs have gap 0. They are drawn uniformly over the classes and then over a class's images. DET's classes have
    between 461 and 67,513 images, and the largest class would dominate if images were drawn uniformly. Images in which
    a list marks a class as only partly annotated aren't used for that class.
    """

    def __init__(
        self,
        root: Path,
        short_side: int = 600,
        long_side: int = 1000,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Find the images by the lists in `ImageSets/DET`, or by reading all annotations once if there are no lists.

        Args:
            root: The folder that holds `Data` and `Annotations`.
            short_side: The pixels of the shorter side that images are resized to, unless the longer side would exceed
                `long_side`.
            long_side: The maximum pixels of the longer side.
            cache: The file that keeps the names of images found without lists, since reading all annotations takes
                minutes.
            progress: A function that is called after each annotation that is read.

        Raises:
            DataError: If lists are missing and no cache file is given, or there are no images.
        """
        self._resize = Resize(short_side, long_side)
        self._data = root / "Data" / "DET" / "train"
        self._annotations = root / "Annotations" / "DET" / "train"
        lists = [root / "ImageSets" / "DET" / f"train_{number}.txt" for number in DET_NUMBERS]
        if all(list_.is_file() for list_ in lists):
            images = [[name for name, mark in _lines(list_) if mark == "1"] for list_ in lists]
        elif cache is None:
            missing = next(list_ for list_ in lists if not list_.is_file())
            raise DataError(f"{missing} is missing; unpack ImageSets, or name a cache file to search without lists")
        elif cache.is_file():
            images = _read_cache(cache)
        else:
            images = _search(self._annotations, progress)
            _write_cache(cache, images)
        self._images = [names for names in images if names]
        if not self._images:
            raise DataError(f"there are no images of the 30 classes in {root}; unpack the DET archive there")

    def pair(self, random: np.random.Generator, max_gap: int = MAX_GAP) -> FramePair:
        """Draw an image, which is both the current and the key frame.

        Raises:
            DataError: If a file is missing or broken, or no image shows one of the classes.
        """
        for _ in range(_DRAWS):
            names = self._images[int(random.integers(len(self._images)))]
            name = names[int(random.integers(len(names)))]
            image = _StillImage(self._data / f"{name}.JPEG", _annotation(self._annotations / f"{name}.xml", name))
            boxes = image.only.truth.boxes
            if boxes is not None and len(boxes.classes):
                return draw_pair(image, image.first, self._resize, random, max_gap)
        raise DataError(
            f"{_DRAWS} images drawn from {self._data} have no objects of the 30 classes; unpack ImageSets again"
        )


@dataclass(frozen=True)
class _VidSnippet:
    """A snippet: a folder of images and a folder of annotations."""

    images: Path
    annotations: Path
    first = 0

    def __len__(self) -> int:
        names = sorted(path.name for path in self.images.glob("*.JPEG"))
        for number, name in enumerate(names):
            if name != f"{number:06d}.JPEG":
                raise DataError(
                    f"{self.images} has {name} where {number:06d}.JPEG is expected; unpack the snippet again"
                )
        if not names:
            raise DataError(f"{self.images} has no frames; unpack the snippet again")
        return len(names)

    def frame(self, number: int) -> Image:
        return read_image(self.images / f"{number:06d}.JPEG", upright=False)

    def annotation(self, number: int) -> Annotation:
        return _annotation(self.annotations / f"{number:06d}.xml", f"{self.images.name}/{number:06d}")


@dataclass(frozen=True)
class _StillImage:
    """A still image as a video of one frame."""

    image: Path
    only: Annotation
    first = 0

    def frame(self, number: int) -> Image:  # noqa: ARG002 - there is only one
        return read_image(self.image, upright=False)

    def annotation(self, number: int) -> Annotation:  # noqa: ARG002
        return self.only


def _annotation(path: Path, name: str) -> Annotation:
    """Read an annotation, leaving out objects of other classes and boxes without an area."""
    try:
        root = ET.fromstring(read_bytes(path))
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        objects = [item for item in root.iter("object") if item.findtext("name") in _CLASS_OF]
        numbers = [_CLASS_OF[item.findtext("name", "")] for item in objects]
        edges = [
            [float(item.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            for item in objects
        ]
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path} is not an annotation: {error}; unpack it again") from error
    corners = np.array(edges, np.float32).reshape(-1, 4) + np.array([0, 0, 1, 1], np.float32)
    corners = corners.clip(0, np.array([width, height] * 2, np.float32))
    has_area = (corners[:, :2] < corners[:, 2:]).all(axis=1)
    boxes = Boxes(corners[has_area], np.array(numbers, np.int64)[has_area])
    return Annotation(name, path, (height, width), Truth(boxes=boxes))


def _listed_snippets(folder: Path, split: str) -> list[str]:
    """Return the snippets that the lists name, each once, or an empty list if there are no lists."""
    if split == "train":
        lists = [folder / f"train_{number}.txt" for number in range(1, len(WORDNET_IDS) + 1)]
        return sorted({name for list_ in lists if list_.is_file() for name, mark in _lines(list_) if mark != "-1"})
    list_ = folder / f"{split}.txt"  # a list of frames, not of snippets
    return sorted({name.rpartition("/")[0] for name, _ in _lines(list_)}) if list_.is_file() else []


def _all_snippets(data: Path, split: str) -> list[str]:
    pattern = "ILSVRC*/ILSVRC*" if split == "train" else "ILSVRC*"
    return sorted(path.relative_to(data).as_posix() for path in data.glob(pattern))


def _lines(list_: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the mark on each line of a list."""
    for number, line in enumerate(list_.read_text().splitlines(), 1):
        name, _, mark = line.strip().partition(" ")
        if not name or not mark:
            raise DataError(f"line {number} of {list_} is `{line}`, not a name and a number; unpack it again")
        yield name, mark.strip()


def _search(annotations: Path, progress: Progress | None) -> list[list[str]]:
    """Find, for each class, the images that show it."""
    files = sorted(annotations.rglob("*.xml"))
    images: list[list[str]] = [[] for _ in WORDNET_IDS]
    for done, path in enumerate(files):
        name = path.relative_to(annotations).with_suffix("").as_posix()
        boxes = _annotation(path, name).truth.boxes
        for number in np.unique(boxes.classes) if boxes is not None else ():
            images[number - 1].append(name)
        if progress is not None:
            progress(done + 1, len(files))
    return images


def _read_cache(cache: Path) -> list[list[str]]:
    try:
        images = json.loads(cache.read_bytes())
        return [[str(name) for name in images[wordnet_id]] for wordnet_id in WORDNET_IDS]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{cache} is not a list of images; delete it to search again") from error


def _write_cache(cache: Path, images: list[list[str]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_name(f"{cache.name}.partial")
    partial.write_text(json.dumps(dict(zip(WORDNET_IDS, images, strict=True))))
    partial.replace(cache)  # atomic
