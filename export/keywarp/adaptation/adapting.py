"""Adapt a bundle to videos: its flow network and scale field, and perhaps its head, from the videos' frames alone."""

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch

from keywarp.adaptation.errors import AdaptationError, FootageError, OperatorError, ProgressError
from keywarp.adaptation.fit import Fit, FitOptions, FitResult
from keywarp.adaptation.footage import Budget, Footage, Range, collect, held_out, split
from keywarp.adaptation.loss import LossWeights, PropagationLoss, freeze, measure_deviations
from keywarp.adaptation.pairs import PairSampler
from keywarp.adaptation.starts import given_start, is_untrained, pretrained_start
from keywarp.adaptation.torch_graph import TorchGraph
from keywarp.adaptation.writing import check_graph, write_adapted
from keywarp.engines import Bundle, EngineError
from keywarp.engines.backends import BackendName
from keywarp.engines.comparison import Clip, Comparison, Options, compare
from keywarp.engines.motion import MotionSource
from keywarp.training.process import TrainingProcess
from keywarp.training.reporting import Reporter

Start = Literal["auto", "own", "pretrained"]
# The bundle's own flow network, the one that is shipped, or the latter if the former is untrained or missing.
AUTO: Start = "auto"
OWN: Start = "own"
PRETRAINED: Start = "pretrained"
START_NAMES: tuple[Start, ...] = (AUTO, OWN, PRETRAINED)
BEFORE: tuple[str, ...] = ("none", "none+scale", "flow", "network")  # judged before the training
AFTER: tuple[str, ...] = (
    *BEFORE,
    "network-repaired",
    "network-chained",
    "dis",
    "dis+scale",
    "dis-repaired",
    "dis-chained",
    "dis-chained+scale",
    "dis-chained-repaired",
)
WITH_VECTORS: tuple[str, ...] = ("codec", "codec+scale", "codec-repaired")  # if the videos have motion vectors
NEGLIGIBLE = 0.005  # difference of agreement below which the cheaper of two sources is preferred
VECTOR_FRAMES = 10  # frames among which motion vectors are looked for
TEACHER_SHARE = 0.25  # of the minutes, at most, for the teacher's features
SECONDS = "collecting.seconds"  # file of the seconds that the teacher's features took
DEVIATION_FRAMES = 64  # frames over which the channels' deviations are measured


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions:
    """How to adapt."""

    minutes: float | None = 15.0  # for the teacher's features and the training, or None to go by `steps`
    steps: int | None = None  # of training
    hold_out: float = 0.2  # share of each video that is held out: its end
    max_age: int | None = None  # largest key age to learn, in frames, or None for the bundle's key interval less 1
    head: bool = False  # whether to train the head, too
    distil: bool = True  # whether to learn from the head's output
    start: Start | Path = "auto"  # which flow network to start from, or a bundle or `flow.onnx` with another one
    cache_size: int = 4 << 30  # bytes for the teacher's features
    batch: int = 4  # pairs per step
    crop: int | None = 256  # side of the crops that are learned from, in pixels, or None for whole frames
    rate: float = 5e-4  # highest learning rate
    seed: int = 0
    judge_frames: int = 400  # frames of each held-out range on which the network runs to judge, about
    motions: tuple[str, ...] = ()  # motion sources to judge, or none of them for all; `network` must be among them
    keep: float = 0.95  # agreement that the recommended interval must keep
    backend: BackendName = "auto"
    weights: LossWeights = field(default_factory=LossWeights)
    save_seconds: float = 30.0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("an adaptation needs either `minutes` or `steps`, and not both")
        if not 0.02 <= self.hold_out <= 0.9:
            raise ValueError(f"the share that is held out must be between 0.02 and 0.9, got {self.hold_out:g}")
        for motion in self.motions:
            MotionSource.parse(motion)
        if self.motions and "network" not in self.motions:
            raise ValueError(
                f"the adapted flow network must be judged, too: add `network` to {', '.join(self.motions)}"
            )


@dataclass(frozen=True)
class HeldOut:
    """What was held out of one video."""

    video: str
    first: int  # frame
    end: int  # frame
    learned: int  # frames before it that were learned from
    skipped: int  # frames before it that there was no room or time for


@dataclass(frozen=True)
class Adaptation:
    """What came out of an adaptation."""

    bundle: Bundle  # the written one
    before: Comparison  # on the held-out ranges
    after: Comparison
    motion: str  # the new bundle's default motion source, the best one on the held-out ranges
    start: str  # the flow network that the training started from
    held_out: tuple[HeldOut, ...]
    cache_size: int  # bytes of features on disk
    fit: FitResult
    notes: tuple[str, ...]  # what else a user should know


def adapt(
    bundle: Bundle,
    clips: Sequence[Clip],
    folder: Path,
    work: Path,
    options: AdaptationOptions,
    process: TrainingProcess,
    reporter: Reporter,
) -> Adaptation:
    """Adapt a bundle to videos, and write the result as a new bundle.

    If it is interrupted, the same call goes on where it was.

    Args:
        bundle: The bundle.
        clips: The whole videos.
        folder: The new bundle's folder.
        work: The folder for the teacher's features and the progress.
        options: How to adapt.
        process: The device and precision of the training.
        reporter: Shows the progress.

    Raises:
        AdaptationError: If the flow network can't be trained, or the videos are too short.
        keywarp.engines.EngineError: If an engine fails.
        OSError: If a folder can't be used.
    """
    if process.precision == "fp16":
        raise AdaptationError("fp16 is too coarse to adapt in: use --precision bf16 or fp32")
    if folder.resolve() == bundle.path.resolve():
        raise AdaptationError(f"{folder} is the bundle that is adapted: write the new one to another folder")
    notes: list[str] = []
    if bundle.manifest.precisions:
        notes.append(
            f"The new bundle has no graphs in {', '.join(bundle.manifest.precisions)}, since the old ones were made of "
            f"the old networks: run keywarp quantize {folder} --calibrate VIDEO."
        )
        bundle = bundle.without_precisions()
    manifest = bundle.manifest
    max_age = options.max_age or max(manifest.key_interval - 1, 1)
    ranges = _split_all(clips, options.hold_out, max_age)
    settings = _digest(bundle, clips, options, max_age, process)
    teacher, student = _heads(bundle, options, process, notes)
    start, flow = _start(bundle, options, process)
    trained = {"flow": flow} | ({"head": student} if student else {})
    with _claimed(work, settings):
        started = time.monotonic()
        seconds = math.inf if options.minutes is None else 60 * options.minutes
        footage = collect(
            bundle,
            clips,
            [learned for learned, _ in ranges],
            work,
            3 * max_age,
            Budget(options.cache_size, seconds * TEACHER_SHARE),
            reporter,
            options.backend,
        )
        collecting = _spent(work, time.monotonic() - started)
        whole = teacher is not None and manifest.image.fit != "resize"  # the head may be for an input of exact size
        sampler = PairSampler(footage, manifest, max_age, options.seed, None if whole else options.crop)
        deviations = [d.to(process.device) for d in _deviations(footage, [f.stride for f in manifest.features])]
        loss = PropagationLoss(manifest, flow, teacher, student, deviations, process.autocast)
        fit = Fit(
            dict(trained),
            loss,
            sampler,
            FitOptions(
                seconds=None if options.minutes is None else max(seconds - collecting, 0.5 * seconds),
                steps=options.steps,
                batch=options.batch,
                rate=options.rate,
                seed=options.seed,
                save_seconds=options.save_seconds,
                weights=options.weights,
            ),
            process,
            settings,
        ).run(work / "progress.pt", reporter)

    graphs = _write_back(trained)
    ends = [held_out(clip, part) for clip, (_, part) in zip(clips, ranges, strict=True)]
    own_parts = [source for source in BEFORE if source in manifest.motions and source in (options.motions or BEFORE)]
    before = _judge(bundle, ends, tuple(own_parts) or BEFORE[:1], max_age, options, work, reporter, "before")
    draft = write_adapted(bundle, work / "draft", graphs, "network", [], {})
    after = _judge(draft, ends, _sources(clips, options), max_age, options, work, reporter, "after")
    motion = best_source(after)
    written = write_adapted(
        bundle,
        folder,
        graphs,
        motion,
        [clip.name for clip in clips],
        {
            "minutes": round((collecting + fit.seconds) / 60, 1),
            "steps": fit.steps,
            "held_out": {
                clip.name: f"frames {part.first} to {part.end - 1}"
                for clip, (_, part) in zip(clips, ranges, strict=True)
            },
            "measure": after.measure,
            "before": _means(before),
            "after": _means(after),
        },
    )
    return Adaptation(
        bundle=written,
        before=before,
        after=after,
        motion=motion,
        start=start,
        held_out=tuple(
            HeldOut(clip.name, part.first, part.end, len(f), f.skipped)
            for clip, (_, part), f in zip(clips, ranges, footage, strict=True)
        ),
        cache_size=sum(file.stat().st_size for file in work.glob("video-*/*.npy")),
        fit=fit,
        notes=tuple(notes),
    )


def best_source(comparison: Comparison) -> str:
    """Return the motion source that agrees best, or the cheapest of those that agree practically as well."""
    best = max(figures.mean for figures in comparison.sources.values())
    good = [name for name, figures in comparison.sources.items() if figures.mean >= best - NEGLIGIBLE]
    return str(MotionSource.parse(min(good, key=lambda name: comparison.sources[name].ms)))


def _split_all(clips: Sequence[Clip], share: float, max_age: int) -> list[tuple[Range, Range]]:
    """Return the range to learn from and the held-out one of each video.

    Raises:
        FootageError: If one of them is too short.
    """
    ranges = [split(clip, share) for clip in clips]
    for clip, (learned, judged) in zip(clips, ranges, strict=True):
        if len(learned) <= max_age or len(judged) <= max_age:
            raise FootageError(
                f"{clip.name} has {judged.end} frames: with {share:.0%} held out, both parts must be longer than the "
                f"largest key age of {max_age} frames; give a longer video, or change --hold-out or --max-age"
            )
    return ranges


def _means(comparison: Comparison) -> dict[str, float]:
    return {name: round(figures.mean, 4) for name, figures in comparison.sources.items()}


def _heads(
    bundle: Bundle, options: AdaptationOptions, process: TrainingProcess, notes: list[str]
) -> tuple[TorchGraph | None, TorchGraph | None]:
    """Return the head as it is, and the one to train; None each if there is none."""
    if not (options.distil or options.head):
        return None, None
    try:
        teacher = TorchGraph(bundle.graph("head.onnx"), f"{bundle.path}/head.onnx").to(process.device)
    except OperatorError as error:
        if options.head:
            raise
        notes.append(f"{error}, so only the features were learned from.")
        return None, None
    freeze(teacher)
    if not options.head:
        return teacher, None
    student = TorchGraph(bundle.graph("head.onnx"), f"{bundle.path}/head.onnx").to(process.device)
    if not list(student.parameters()):
        raise AdaptationError(f"{bundle.path}/head.onnx has no weights to train: leave out --head")
    return teacher, student


def _start(bundle: Bundle, options: AdaptationOptions, process: TrainingProcess) -> tuple[str, TorchGraph]:
    """Return the flow network to train, and what it is."""
    if isinstance(options.start, Path):
        name, graph = str(options.start), TorchGraph(given_start(options.start, bundle.manifest), str(options.start))
    elif not bundle.manifest.has_flow_network:
        if options.start == OWN:
            raise AdaptationError(f"{bundle.path} has no flow network: start from {PRETRAINED} or another bundle's")
        name, graph = PRETRAINED, TorchGraph(pretrained_start(bundle.manifest), PRETRAINED)
    else:
        name, graph = OWN, TorchGraph(bundle.graph("flow.onnx"), f"{bundle.path}/flow.onnx")
        no_weights = not list(graph.parameters())
        if options.start == PRETRAINED or (
            options.start == AUTO and (no_weights or is_untrained(graph, bundle.manifest))
        ):
            name, graph = PRETRAINED, TorchGraph(pretrained_start(bundle.manifest), PRETRAINED)
        elif no_weights:
            raise AdaptationError(f"{bundle.path}/flow.onnx has no weights to train: start from another flow network")
    graph.to(process.device)
    graph.to(memory_format=torch.channels_last)
    return name, graph


def _deviations(footage: Sequence[Footage], strides: Sequence[int]) -> list[torch.Tensor]:
    """Return each map's standard deviation by channel, over frames of all videos, without padding."""
    longest = max(footage, key=len)
    step = max(1, len(longest) // DEVIATION_FRAMES)
    pictures = [
        x[::step, :, *longest.placement.cells(stride)].astype(np.float32)
        for x, stride in zip(longest.features, strides, strict=True)
    ]
    return measure_deviations([torch.from_numpy(x) for x in pictures])


def _write_back(trained: Mapping[str, TorchGraph]) -> dict[str, onnx.ModelProto]:
    graphs = {}
    for name, module in trained.items():
        graph = module.to("cpu").eval()
        graphs[f"{name}.onnx"] = graph.model()
        if name == "flow":
            check_graph(graph, graphs["flow.onnx"], "flow.onnx")
    return graphs


def _judge(
    bundle: Bundle,
    clips: Sequence[Clip],
    motions: tuple[str, ...],
    max_age: int,
    options: AdaptationOptions,
    work: Path,
    reporter: Reporter,
    when: str,
) -> Comparison:
    """Compare motion sources on the held-out ranges."""
    interval = max_age + 1
    settings = Options(
        motions=motions,
        intervals=tuple(sorted({n for n in (2, 3, 5, interval) if 2 <= n <= interval})),
        stride=max(3, interval // 2),
        max_frames=max(options.judge_frames, interval),
        keep=options.keep,
        backend=options.backend,
    )
    stages: set[str] = set()

    def show(stage: str, done: int, total: int | None) -> None:
        if stage not in stages:
            stages.add(stage)
            reporter.stage(f"judging {when}: {stage}", total or 0)
        reporter.step(done + 1)

    return compare(bundle, clips, settings, progress=show, work=work / "judging")


def _sources(clips: Sequence[Clip], options: AdaptationOptions) -> tuple[str, ...]:
    """Return the motion sources to judge."""
    return options.motions or AFTER + (WITH_VECTORS if all(map(_has_vectors, clips)) else ())


def _has_vectors(clip: Clip) -> bool:
    """Return whether one of the first frames after a video's first one has motion vectors."""
    return any(frame.vectors is not None for frame in islice(clip.frames(), 1, VECTOR_FRAMES))


def _digest(
    bundle: Bundle, clips: Sequence[Clip], options: AdaptationOptions, max_age: int, process: TrainingProcess
) -> str:
    """Return a hash of all that the training depends on."""
    relevant: dict[str, Any] = {
        name: asdict(options)[name]
        for name in ("steps", "hold_out", "head", "distil", "batch", "crop", "rate", "seed", "weights")
    }
    start = _content(options.start) if isinstance(options.start, Path) else options.start
    parts = [bundle.digest, [c.identity for c in clips], relevant, max_age, start, process.precision]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _content(path: Path) -> str:
    file = path / "flow.onnx" if path.is_dir() else path
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else str(path)


@contextmanager
def _claimed(work: Path, settings: str) -> Iterator[None]:
    """Note in the work folder what it is for.

    An adaptation that fails in the block takes the note back: it can't go on, so it mustn't stand in the way of one
    with other videos or options.

    Raises:
        ProgressError: If the folder is for something else.
    """
    note = work / "settings"
    if note.exists() and note.read_text() != settings:
        raise ProgressError(
            f"{work} holds the progress of an adaptation with another bundle, other videos or other options: repeat "
            "that command, delete the folder, or choose another one with --work"
        )
    work.mkdir(parents=True, exist_ok=True)
    _write(note, settings)
    try:
        yield
    except ProgressError:
        raise
    except (AdaptationError, EngineError):
        note.unlink(missing_ok=True)
        (work / SECONDS).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it isn't empty
            work.rmdir()
        raise


def _spent(work: Path, seconds: float) -> float:
    """Add to the seconds that collecting took, in this run and those before that were interrupted."""
    file = work / SECONDS
    total = seconds + (float(file.read_text()) if file.exists() else 0.0)
    _write(file, f"{total:.1f}")
    return total


def _write(file: Path, text: str) -> None:
    """Write a file. An interrupted write leaves the older file as it was."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    partial.replace(file)
