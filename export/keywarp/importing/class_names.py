"""The names of classes: from a file, from the model's metadata, or from a well-known data set with as many classes."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keywarp.importing.errors import ImportingError

MAX_BYTES = 1 << 20  # of a file of names

COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
# COCO's category ids, of which some below 91 were never used
COCO_IDS = tuple(n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog"),
    *("horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
ADE20K = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet"),
    *("sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water"),
    *("painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk"),
    *("rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard"),
    *("chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand"),
    *("path", "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge"),
    *("bookcase", "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove"),
    *("palm", "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus"),
    *("towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver"),
    *("airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet"),
    *("poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything"),
    *("swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven"),
    *("ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher"),
    *("screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier"),
    *("crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag"),
)


@dataclass(frozen=True)
class ClassNames:
    """Names, and where they are from, to be read after "the classes are": "those of the file's metadata"."""

    names: tuple[str, ...]
    origin: str


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read the names of classes from a file.

    Args:
        path: A text file with a name per line, or a JSON file with a list of names or with names by index, as Hugging
            Face's `config.json` has in `id2label`.

    Returns:
        The names in the order of the classes.

    Raises:
        ImportingError: If the file can't be read or has another form.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImportingError(f"{path} has {path.stat().st_size} bytes, too many for names of classes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportingError(f"{path} can't be read as the names of classes: {error}") from error
    if path.suffix.lower() != ".json":
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
        if not names:
            raise ImportingError(f"{path} has no names of classes; write one per line")
        return names
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ImportingError(f"{path} isn't JSON: {error}") from error
    listed = _listed(content.get("id2label", content) if isinstance(content, dict) else content)
    if not listed:
        raise ImportingError(f'{path} should have a list of names, or {{"0": "first", "1": "second", ...}}')
    return listed


def names_in_metadata(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the names in a model's metadata, where Ultralytics writes `names`, and others lists of JSON."""
    for key in ("names", "class_names", "classes", "labels", "id2label"):
        text = metadata.get(key, "")
        if not 0 < len(text) <= MAX_BYTES:
            continue
        try:
            content = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            try:
                content = json.loads(text)
            except (ValueError, RecursionError):
                content = text.split(",") if "," in text else None
        listed = _listed(content)
        if listed:
            return listed
    return None


def well_known_names(count: int, background: bool, segmentation: bool) -> ClassNames:
    """Return names for a number of classes.

    Args:
        count: The number of classes besides the background.
        background: Whether there is a background as well.
        segmentation: Whether the classes are a segmentation's; its data sets are others than a detector's.
    """
    known = {
        (80, False): ("COCO's 80", COCO),
        (20, True): ("Pascal VOC's 20", VOC),
        (20, False): ("Pascal VOC's 20", VOC),
    }
    if segmentation:
        known = {
            (20, True): ("Pascal VOC's 20", VOC),
            (19, False): ("Cityscapes' 19", CITYSCAPES),
            (150, False): ("ADE20K's 150", ADE20K),
            (150, True): ("ADE20K's 150", ADE20K),
        }
    found = known.get((count, background)) or known.get((count, False))
    if found:
        return ClassNames(found[1], f"taken for {found[0]} because of their number")
    return ClassNames(tuple(f"class_{n + 1}" for n in range(count)), "unknown, and numbered")


def _listed(content: object) -> tuple[str, ...] | None:
    """Return a list of names, or names by index, as a tuple; None if it is neither."""
    if isinstance(content, Mapping):
        try:
            indices = {int(key): value for key, value in content.items()}
        except (TypeError, ValueError):
            return None
        if sorted(indices) != list(range(len(indices))):
            return None
        content = [indices[n] for n in range(len(indices))]
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        return None
    names = tuple(str(name).strip() for name in content)
    return names if all(names) else None
