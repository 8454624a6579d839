"""The videos that a bundle is adapted to: what is held out, and the teacher's features of the rest, on disk.

The teacher is the bundle's own feature network, run on every frame. Its features of a frame are what propagation should
arrive at, so that no labels are needed. They are kept as 16-bit floats in NumPy files, with the frames and the DIS flow
between successive frames::

    video-0/index.json      what the files are made of, and how many frames are in them
            frames.npy      (n, H, W, 3) uint8, RGB, at the size of the networks' input
            features.npy    (n, C, h, w) float16; with several maps features_0.npy, features_1.npy, ...
            held.npy        held tensors, likewise, if the bundle has any
            back.npy        (n, H/2, W/2, 2) float16, the flow to the frame before, in pixels of the half-size images
            ahead.npy       the same to the frame after
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from keywarp.adaptation.errors import FootageError
from keywarp.engines import Bundle
from keywarp.engines.adaptive import AdaptiveInterval
from keywarp.engines.backends import BackendName, Program, open_backend
from keywarp.engines.change import Thumbnail, change_after_motion, change_without_motion
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.engines.fusion import FRAME, fuse_key
from keywarp.engines.motion import DIS
from keywarp.engines.placement import Placement
from keywarp.engines.preparation import place, resize
from keywarp.training.reporting import Reporter

Image = NDArray[np.uint8]

SAVE_EVERY = 50  # frames between two saves of the index
TIMED_FRAMES = 3  # frames on which the teacher's speed is measured
LARGEST_HALF = float(np.finfo(np.float16).max)
CUT = AdaptiveInterval(threshold=1.0).cut  # the change from one frame to the next that starts a new scene


@dataclass(frozen=True)
class Range:
    """Some frames of a video: first <= number < end."""

    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


def split(clip: Clip, share: float) -> tuple[Range, Range]:
    """Divide a video into the range to learn from and the one that is held out, its end.

    Args:
        clip: The video.
        share: The share that is held out, between 0 and 1.
    """
    count = sum(1 for _ in clip.frames()) if clip.count is None else clip.count
    border = math.floor(count * (1 - share))
    return Range(0, border), Range(border, count)


def held_out(clip: Clip, part: Range) -> Clip:
    """Return a range of a video as a clip of its own."""

    def frames() -> Iterator[ClipFrame]:
        return islice(clip.frames(), part.first, None)

    return Clip(clip.name, frames, len(part), f"{clip.identity} from frame {part.first}")


@dataclass(frozen=True)
class Budget:
    """How much the teacher's features may cost."""

    size: int  # bytes on disk, for all videos together
    seconds: float = math.inf  # of computation, for all videos together


@dataclass(frozen=True, eq=False)
class Footage:
    """The frames of one video to learn from."""

    name: str
    frames: Image  # (n, H, W, 3)
    features: tuple[NDArray[np.float16], ...]  # (n, C, h, w) each
    back: NDArray[np.float16]  # (n, H / downscale, W / downscale, 2), see above
    ahead: NDArray[np.float16]
    scenes: NDArray[np.intp]  # (n,); frames with the same number follow each other without a cut or gap
    skipped: int  # frames of the range to learn from that there was no room or time for
    placement: Placement  # where the picture lies in the frames
    held: tuple[NDArray[np.float16], ...] = ()  # (n, ...) each

    def __len__(self) -> int:
        return len(self.scenes)


def collect(
    bundle: Bundle,
    clips: Sequence[Clip],
    ranges: Sequence[Range],
    folder: Path,
    window: int,
    budget: Budget,
    reporter: Reporter,
    backend: BackendName = "auto",
) -> list[Footage]:
    """Run the teacher on the frames to learn from, or the rest of them if an earlier run was interrupted.

    Args:
        bundle: The bundle whose feature network is the teacher.
        clips: The videos.
        ranges: For each video, the frames to learn from. No other frame is looked at.
        folder: The folder to write to.
        window: If not all frames fit into the budget, runs of so many successive frames are kept, evenly spread.
        budget: How much it may cost. Every video gets a share by its length.
        reporter: Shows the progress.
        backend: The backend that runs the teacher, in fp32.

    Raises:
        FootageError: If a video ends before its range begins.
        keywarp.engines.BackendError: If the backend refuses the graph.
        OSError: If the folder can't be written to.
    """
    total = sum(map(len, ranges))
    return [
        _Recorder(bundle, clip, part, folder / f"video-{number}", window, reporter, backend).record(
            Budget(budget.size * len(part) // total, budget.seconds * len(part) / total)
        )
        for number, (clip, part) in enumerate(zip(clips, ranges, strict=True))
    ]


@dataclass(frozen=True)
class _Index:
    """The content of `index.json`."""

    source: str  # of what the frames and features are
    runs: list[tuple[int, int]]  # first frame and end of each run of frames
    done: int  # frames that are in the files
    breaks: list[int]  # places in the files where a new scene begins

    @property
    def planned(self) -> int:
        return sum(end - first for first, end in self.runs)


class _Recorder:
    """Records one video."""

    def __init__(
        self,
        bundle: Bundle,
        clip: Clip,
        part: Range,
        folder: Path,
        window: int,
        reporter: Reporter,
        backend: BackendName,
    ) -> None:
        self._bundle, self._clip, self._part, self._folder = bundle, clip, part, folder
        self._window, self._reporter, self._backend = window, reporter, backend
        manifest = bundle.manifest
        self._maps, self._held = [f.name for f in manifest.features], [h.name for h in manifest.held]
        self._names = [*self._maps, *self._held]
        parts = [manifest.files["features.onnx"].sha256, clip.name, clip.identity, f"{part.first}:{part.end}"]
        if manifest.image.fit != "resize":
            parts.append(manifest.image.model_dump_json())
        self._source = "|".join(parts)
        self._first: Image | None = None

    def record(self, budget: Budget) -> Footage:
        """Record what isn't recorded yet, and return it all."""
        index = self._read_index()
        if index is None or index.done < index.planned:
            index = self._fill(index, budget)
        return self._footage(index)

    def _read_first(self) -> Image:
        """Return the video's first frame."""
        if self._first is None:
            first = next(self._clip.frames(), None)
            if first is None:
                raise FootageError(f"{self._clip.name} has no frames")
            self._first = first.image
        return self._first

    def _placement(self) -> Placement:
        height, width = self._read_first().shape[:2]
        return place(height, width, self._bundle.manifest.image)

    def _fill(self, index: _Index | None, budget: Budget) -> _Index:
        first, placement = self._read_first(), self._placement()
        height, width = placement.size
        teacher = self._teacher(height, width)
        shapes = self._shapes(height, width)
        if index is None:
            runs = self._plan(budget, shapes, _seconds_per_frame(teacher, self._fit(first, placement)[1]))
            index = _Index(self._source, runs, 0, [])
            self._folder.mkdir(parents=True, exist_ok=True)
            for name, (shape, dtype) in shapes.items():
                np.lib.format.open_memmap(self._file(name), "w+", dtype, (index.planned, *shape)).flush()
            self._write_index(index)
        files = {name: np.load(self._file(name), mmap_mode="r+") for name in shapes}
        wanted = [number for begin, end in index.runs for number in range(begin, end)][index.done :]
        starts = {begin for begin, _ in index.runs}
        done, breaks = index.done, list(index.breaks)
        self._reporter.stage(f"features of {self._clip.name}", index.planned)
        last: Image | None = None  # the picture of the frame before, if it is in the files
        if done and wanted and wanted[0] not in starts:
            last = np.ascontiguousarray(placement.crop(files["frames"][done - 1]))
        pending = iter(wanted)
        number = next(pending, None)
        for position, frame in enumerate(islice(self._clip.frames(), index.runs[-1][1])):
            if position != number:
                continue
            picture, image = self._fit(frame.image, placement)
            if number in starts or last is None or _is_cut(picture, last):
                breaks.append(done)
            else:
                factor = self._bundle.manifest.flow.downscale
                small, small_last = (downscale(placement.cover(x), factor) for x in (picture, last))
                files["back"][done] = DIS().estimate(small, small_last)
                files["ahead"][done - 1] = DIS().estimate(small_last, small)
            outputs = teacher.run({FRAME: image[np.newaxis]})
            files["frames"][done] = image
            for name in self._names:
                files[name][done] = np.clip(np.asarray(outputs[name])[0], -LARGEST_HALF, LARGEST_HALF)
            done, last, number = done + 1, picture, next(pending, None)
            self._reporter.step(done)
            if done % SAVE_EVERY == 0:
                for file in files.values():
                    file.flush()
                index = _Index(index.source, index.runs, done, breaks)
                self._write_index(index)
        for file in files.values():
            file.flush()
        if not done:
            raise FootageError(f"{self._clip.name} ends before frame {index.runs[0][0]}")
        index = _Index(index.source, _shortened(index.runs, done), done, breaks)  # it may be shorter than it says
        self._write_index(index)
        return index

    def _fit(self, image: Image, placement: Placement) -> tuple[Image, Image]:
        """Return the picture of a frame, and the networks' input."""
        picture = resize(image, placement.rows, placement.columns)
        return picture, placement.pad(picture, self._bundle.manifest.image.pad)

    def _teacher(self, height: int, width: int) -> Program:
        return open_backend(self._backend, "fp32").compile(fuse_key(self._bundle, height, width).model)

    def _shapes(self, height: int, width: int) -> dict[str, tuple[tuple[int, ...], type]]:
        """Return the shape and type of one frame's part of each file."""
        manifest = self._bundle.manifest
        small = tuple(-(-side // manifest.flow.downscale) for side in (height, width))
        maps: dict[str, tuple[tuple[int, ...], type]] = {
            f.name: ((f.channels, -(-height // f.stride), -(-width // f.stride)), np.float16) for f in manifest.features
        }
        maps |= {h.name: (tuple(h.shape[1:]), np.float16) for h in manifest.held}
        flows = dict.fromkeys(("back", "ahead"), ((*small, 2), np.float16))
        return {"frames": ((height, width, 3), np.uint8), **maps, **flows}

    def _plan(
        self, budget: Budget, shapes: dict[str, tuple[tuple[int, ...], type]], seconds: float
    ) -> list[tuple[int, int]]:
        """Choose the frames: all, or runs of `window` that are evenly spread over the range."""
        size = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())  # bytes per frame
        affordable = int(min(budget.size / size, budget.seconds / seconds, len(self._part)))
        if affordable >= len(self._part):
            return [(self._part.first, self._part.end)]
        if affordable < self._window:
            raise FootageError(
                f"{self._clip.name}: there is room or time for the features of {affordable} frames only "
                f"({size / 1e6:.1f} MB and {seconds:.2f} s each), but {self._window} are the least to learn from: "
                "allow more with --cache-size or --minutes"
            )
        runs = affordable // self._window
        first_starts = np.linspace(self._part.first, self._part.end - self._window, runs).astype(int)
        return [(int(start), int(start) + self._window) for start in first_starts]

    def _footage(self, index: _Index) -> Footage:
        files = {name: np.load(self._file(name), mmap_mode="r") for name in ("frames", *self._names, "back", "ahead")}
        breaks = np.zeros(index.done, np.intp)
        breaks[[place for place in index.breaks if place < index.done]] = 1
        return Footage(
            name=self._clip.name,
            frames=files["frames"][: index.done],
            features=tuple(files[name][: index.done] for name in self._maps),
            back=files["back"][: index.done],
            ahead=files["ahead"][: index.done],
            scenes=np.cumsum(breaks),
            skipped=len(self._part) - index.done,
            placement=self._placement(),
            held=tuple(files[name][: index.done] for name in self._held),
        )

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.npy"

    def _read_index(self) -> _Index | None:
        """Return the index of an earlier run, or None if there is none or it is of something else."""
        try:
            content = json.loads((self._folder / "index.json").read_text())
            index = _Index(content["source"], [(a, b) for a, b in content["runs"]], content["done"], content["breaks"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return index if index.source == self._source else None

    def _write_index(self, index: _Index) -> None:
        partial = self._folder / "index.partial"
        partial.write_text(json.dumps(asdict(index)))
        partial.replace(self._folder / "index.json")


def downscale(image: Image, factor: int) -> Image:
    """Average an image over blocks of `factor` pixels, as the engine does for optical flow."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _is_cut(image: Image, last: Image) -> bool:
    current, before = Thumbnail.of(image), Thumbnail.of(last)
    return change_without_motion(current, before) > CUT and change_after_motion(current, before) > CUT


def _seconds_per_frame(teacher: Program, image: Image) -> float:
    teacher.run({FRAME: image[np.newaxis]})
    started = time.perf_counter()
    for _ in range(TIMED_FRAMES):
        teacher.run({FRAME: image[np.newaxis]})
    return (time.perf_counter() - started) / TIMED_FRAMES


def _shortened(runs: list[tuple[int, int]], frames: int) -> list[tuple[int, int]]:
    """Return the runs up to a number of frames."""
    kept = []
    for begin, end in runs:
        taken = min(end - begin, frames)
        if taken:
            kept.append((begin, begin + taken))
        frames -= taken
    return kept
