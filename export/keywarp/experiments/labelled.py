"""A detector's results on frames that were labelled by hand, at every key age.

Labels are a COCO file (`bench/labels/`) with two additions: `videos` says where each video comes from, and each image
has the `video_id` and the `frame` that it is. Annotations with `iscrowd` are regions to ignore.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from keywarp.datasets import DataError
from keywarp.datasets.packages import Ecosystem, PackageFile
from keywarp.engines.bundle import Bundle
from keywarp.engines.comparison import Clip
from keywarp.engines.engine import Engine, KeyState
from keywarp.engines.motion.tracking import DirectTracker
from keywarp.engines.result import Detections
from keywarp.experiments.accuracy import Accuracy, Boxes, Judged, Truth, judge, measure, no_boxes

FLOOR = 0.05  # least confidence of the detections that average precision looks at
DRAWS = 1000  # of frames, for the spread of a difference


@dataclass(frozen=True, eq=False)
class LabelledVideo:
    """A video of which some frames are labelled."""

    name: str
    source: PackageFile
    frames: Mapping[int, Mapping[str, Truth]]  # the labels by frame and class

    def truth(self, frame: int, name: str) -> Truth:
        """Return the labels of one class in one of the labelled frames."""
        return self.frames[frame].get(name, Truth(no_boxes()))


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found in a labelled frame."""

    frame: int
    age: int  # key age, frames
    image: npt.NDArray[np.uint8]  # RGB (H, W, 3)
    detections: Detections


@dataclass(frozen=True)
class Difference:
    """How far F1 is from that of other results on the same frames."""

    f1: float
    low: float  # the ends of the interval that holds 95 % of the differences if frames are drawn anew
    high: float


def read_labels(path: Path) -> tuple[LabelledVideo, ...]:
    """Read a file of labels.

    Raises:
        DataError: If it can't be read, or isn't such a file.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"can't read the labels {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise DataError(f"{path} isn't a COCO file with videos: {place}: {first['msg']}") from error
    names = {category.id: category.name for category in file.categories}
    boxes: dict[int, dict[str, tuple[list[Boxes], list[Boxes]]]] = {image.id: {} for image in file.images}
    for label in file.annotations:
        if label.image_id not in boxes or label.category_id not in names:
            raise DataError(f"{path}: annotation {label.id} is of an image or a category that isn't listed")
        x, y, width, height = label.bbox
        of_class = boxes[label.image_id].setdefault(names[label.category_id], ([], []))
        of_class[label.iscrowd].append(np.array([[x, y, x + width, y + height]], np.float32))
    return tuple(
        LabelledVideo(
            video.name,
            PackageFile(video.ecosystem, video.package, video.member, video.sha256),
            {
                image.frame: {
                    name: Truth(*(np.concatenate([no_boxes(), *some]) for some in both))
                    for name, both in boxes[image.id].items()
                }
                for image in file.images
                if image.video_id == video.id
            },
        )
        for video in file.videos
    )


def prepared(bundle: Bundle, short_side: int | None = None) -> Bundle:
    """Return a bundle that reports uncertain detections too, down to `FLOOR`.

    More confident detections are the same as before, because they suppress others, and not the other way round.

    Args:
        bundle: The bundle of a detector.
        short_side: The shorter side of the networks' input in pixels, or None for the bundle's own.

    Raises:
        ValueError: If the bundle doesn't detect, or its networks have one input size only.
    """
    manifest = bundle.manifest
    if manifest.detection is None:
        raise ValueError(f"{bundle.path} is no detector, and the labels are boxes: give a bundle of a detector")
    detection = manifest.detection.model_copy(update={"threshold": FLOOR})
    uncertain = Bundle(bundle.path, manifest.model_copy(update={"detection": detection}), bundle.contents)
    return with_short_side(uncertain, short_side)


def with_short_side(bundle: Bundle, short_side: int | None) -> Bundle:
    """Return a bundle with another input size.

    Args:
        bundle: The bundle.
        short_side: See `prepared`.

    Raises:
        ValueError: If its networks have one input size only.
    """
    image = bundle.manifest.image
    if short_side is None:
        return bundle
    if image.short_side is None or image.long_side is None:
        raise ValueError(f"{bundle.path} takes frames of one size only: give no other short side")
    long_side = round(image.long_side * short_side / image.short_side)
    image = image.model_copy(update={"short_side": short_side, "long_side": long_side})
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"image": image}), bundle.contents)


def detect(
    engine: Engine, clip: Clip, video: LabelledVideo, ages: int, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Found]:
    """Detect objects in each labelled frame, as a stream does that has a key frame any number of frames before.

    Args:
        engine: The detector's engine.
        clip: The video.
        video: Its labels.
        ages: The greatest key age. Ages that would need frames before the video's first are left out.
        progress: Is told the number of frames that are done.

    Yields:
        The results by frame, with falling age.

    Raises:
        EngineError: If the engine fails.
    """
    wanted = {key for frame in video.frames for key in range(frame - ages, frame + 1)}
    active: list[tuple[int, KeyState]] = []
    for frame in clip.frames():
        if frame.index > max(video.frames):
            break
        progress(frame.index)
        if frame.index not in wanted:
            continue
        active = [(key, state) for key, state in active if frame.index - key <= ages]
        for key, state in active:
            if frame.index not in video.frames and isinstance(state.tracker, DirectTracker | None):
                continue  # only motion that is followed from frame to frame needs the frames between
            result = engine.propagate(frame.image, state, [frame.vectors])
            if frame.index in video.frames:
                yield Found(frame.index, frame.index - key, frame.image, result.detections)
        result, state = engine.key(frame.image)
        active.append((frame.index, state))
        if frame.index in video.frames:
            yield Found(frame.index, 0, frame.image, result.detections)


def judge_found(found: Found, video: LabelledVideo, name: str, class_id: int) -> Judged:
    """Compare what was found in a frame with the labels of one class.

    Args:
        found: What was found.
        video: The labels.
        name: The class's name in the labels.
        class_id: Its id in the bundle.
    """
    chosen = found.detections.class_id == class_id
    return judge(found.detections.xyxy[chosen], found.detections.confidence[chosen], video.truth(found.frame, name))


def at_interval(judged: Mapping[tuple[int, int], Judged], interval: int, threshold: float) -> Accuracy:
    """Measure the accuracy at a key interval, where every key age below it is equally frequent.

    Args:
        judged: What was found, by frame and key age.
        interval: The key interval, frames.
        threshold: See `measure`.
    """
    return measure([frame for (_, age), frame in judged.items() if age < interval], threshold)


def difference(
    judged: Mapping[tuple[int, int], Judged],
    interval: int,
    threshold: float,
    reference: Mapping[tuple[int, int], Judged] | None = None,
) -> Difference:
    """Measure how far F1 at a key interval is from a reference, and how chance in the choice of frames changes it.

    Args:
        judged: What was found, by frame and key age.
        interval: The key interval, frames.
        threshold: See `measure`.
        reference: What else was found, perhaps in another precision, at the same key interval; or None for per frame.
    """
    frames = sorted({frame for frame, _ in judged})
    counts = np.zeros((len(frames), 2, 3))  # by frame, of the reference and at the interval: found, reported, labels
    first = (judged, 1) if reference is None else (reference, interval)
    for column, (found, ages) in enumerate((first, (judged, interval))):
        for (frame, age), one in found.items():
            if age < ages:
                sure = one.right[one.confidence >= threshold]
                counts[frames.index(frame), column] += sure.sum(), len(sure), one.labels
    draws = np.random.default_rng(0).integers(0, len(frames), (DRAWS, len(frames)))
    low, high = np.quantile(_gain(counts[draws].sum(axis=1)), (0.025, 0.975)).tolist()
    return Difference(float(_gain(counts.sum(axis=0)[None])[0]), low, high)


def _gain(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return F1 at the interval minus that of the reference, of counts (n, 2, 3)."""
    f1 = 2 * counts[..., 0] / np.maximum(counts[..., 1] + counts[..., 2], 1)
    return np.asarray(f1[:, 1] - f1[:, 0])


def by_age(judged: Mapping[tuple[int, int], Judged], threshold: float) -> Sequence[Accuracy]:
    """Return the accuracy at each key age, from 0 on."""
    ages = sorted({age for _, age in judged})
    return [measure([one for (_, age), one in judged.items() if age == wanted], threshold) for wanted in ages]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Video(_Part):
    id: int
    name: str
    ecosystem: Ecosystem
    package: str
    member: str
    sha256: str


class _Category(_Part):
    id: int
    name: str


class _Image(_Part):
    id: int
    video_id: int
    frame: int


class _Annotation(_Part):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels
    iscrowd: bool


class _File(_Part):
    videos: tuple[_Video, ...]
    categories: tuple[_Category, ...]
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]
