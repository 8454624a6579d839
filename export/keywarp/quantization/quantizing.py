"""Quantise a bundle to int8, judge it, and measure it."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from keywarp.engines import AVAILABLE, Backend, BackendError, Bundle, Engine, open_backend
from keywarp.engines.backends import BackendName, Precision
from keywarp.engines.bundle import add_precision, draft_precision
from keywarp.engines.comparison import Clip, ClipFrame
from keywarp.engines.preparation import input_size
from keywarp.engines.processor import int8_instructions
from keywarp.engines.quantization import Measurement
from keywarp.quantization.capture import CapturingBackend, Feed
from keywarp.quantization.errors import QuantizationError, RefusedError
from keywarp.quantization.footage import Passage, read_passages
from keywarp.quantization.graph import GraphQuantizer
from keywarp.quantization.judging import Judge, Judgement
from keywarp.quantization.search import Found, Layers, search
from keywarp.quantization.timing import FrameTimes, time_frames, time_graphs

TOLERANCE = 0.99
MAX_SECONDS = 1800.0
# A graph is quantised if it takes less than this share of its time by itself. Joined with others it may gain less, and
# another runtime may lose.
PAYS = 0.85
# One that gains less by itself is tried within frames, and quantised if these take less than this share of their time.
# Joined with others it may gain more, since what goes in and out of it needn't be converted.
PAYS_JOINED = 0.97
MAX_COSTS = 12  # layers in fp32 whose cost is measured one by one

Progress = Callable[[str, int, int | None], None]  # what is being done, how much of it is done, and of how much


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to quantise."""

    tolerance: float = TOLERANCE  # least agreement with fp32, 0..1
    backends: tuple[BackendName, ...] = AVAILABLE  # type: ignore[assignment]  # the first one decides
    threads: int = 0
    max_seconds: float = MAX_SECONDS  # for the search of sensitive layers

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= 1:
            raise ValueError(f"the tolerance must be above 0 and at most 1, got {self.tolerance:g}")
        if not self.backends:
            raise ValueError("no runtime is installed: install the extra `cpu`")


@dataclass(frozen=True, slots=True)
class GraphTimes:
    """What a graph takes by itself, milliseconds, and what a frame takes with it."""

    before: float
    quantized: float
    frame_before: float | None = None  # a frame with this graph as it is; None if that wasn't tried
    frame_quantized: float | None = None  # a frame with this graph quantised

    @property
    def pays_alone(self) -> bool:
        """Whether it is worth quantising by what it takes by itself."""
        return self.quantized < PAYS * self.before

    @property
    def pays(self) -> bool:
        """Whether it is worth quantising."""
        if self.frame_before is None or self.frame_quantized is None:
            return self.pays_alone
        return self.frame_quantized < PAYS_JOINED * self.frame_before


@dataclass(frozen=True, slots=True)
class Trial:
    """What came out on one backend."""

    backend: str
    device: str
    judgement: Judgement
    times: Mapping[str, FrameTimes]  # by precision
    interval: int  # key interval at which precisions are compared

    @property
    def instead(self) -> str:
        """The fastest other precision."""
        return min((name for name in self.times if name != "int8"), key=lambda name: self.times[name].at(self.interval))

    @property
    def is_faster(self) -> bool:
        """Whether int8 is faster than any other precision."""
        return self.times["int8"].at(self.interval) < self.times[self.instead].at(self.interval)

    def is_kept(self, tolerance: float) -> bool:
        """Whether the precision `auto` will take int8 on this backend."""
        return self.is_faster and self.judgement.agreement >= tolerance


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantised bundle in memory, and how it came about."""

    bundle: Bundle
    measure: str  # what agreement means
    tolerance: float
    graphs: Mapping[str, GraphTimes]  # by name
    unquantized: Mapping[
        str, float | None
    ]  # cost of sensitive layers that stayed in fp32, milliseconds; None if unmeasured
    complete: bool  # whether the search for these was finished in time
    trials: tuple[Trial, ...]  # by backend; the first one decided


def quantize(
    bundle: Bundle,
    clips: Sequence[Clip],
    options: Options | None = None,
    *,
    folder: Path | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantise a bundle to int8.

    Args:
        bundle: The bundle. Graphs in int8 that it may have are replaced.
        clips: Videos of what it will see, to calibrate and to judge on.
        options: How to quantise.
        folder: The folder of the new bundle, or None for the bundle's own.
        name: The new bundle's name, or None for the same one.
        progress: Is told how far it is.

    Returns:
        The bundle, for `keywarp.engines.bundle.save_bundle`.

    Raises:
        RefusedError: If no choice of layers is within the tolerance, or int8 isn't faster on this device.
        QuantizationError: If a clip is too short, or a graph can't be quantised.
        EngineError: If the bundle can't be run.
    """
    options = options or Options()
    report = progress or _silent
    with TemporaryDirectory(prefix="keywarp-quantize-") as cache:
        return _Work(bundle.without_precisions(), options, Path(cache), report).run(clips, folder, name)


def quantize_unjudged(
    bundle: Bundle,
    frames: Sequence[NDArray[np.uint8]],
    *,
    backend: BackendName = AVAILABLE[0],  # type: ignore[assignment]
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, onnx.ModelProto]:
    """Quantise all layers of the graphs that int8 makes faster, without asking what that costs in accuracy.

    It says what a bundle would cost in int8, also one whose weights are random. Its results are worth nothing.

    Args:
        bundle: The bundle.
        frames: Two or more consecutive frames, uint8 (H, W, 3) in RGB. The ranges are those seen on them.
        backend: The backend to decide on which graphs are faster.
        threads: See `keywarp.engines.open_backend`.
        progress: Is told how far it is.

    Returns:
        The quantised graphs, by the names of those that they replace, for `keywarp.engines.bundle.draft_precision`.

    Raises:
        QuantizationError: If a graph can't be quantised.
        EngineError: If the bundle can't be run.
    """
    report = progress or _silent
    bundle = bundle.without_precisions()
    with TemporaryDirectory(prefix="keywarp-quantize-") as cache:
        engine = Engine(bundle, backend, "fp32", threads, Path(cache))
        capturing = engine.backend = CapturingBackend(engine.backend, bundle.manifest)
        capturing.recording = True
        try:
            report("running frames", 0, None)
            _, state = engine.key(frames[0])
            for frame in frames[1:]:
                engine.propagate(frame, state)
        finally:
            engine.close()
        graphs: dict[str, GraphQuantizer] = {}
        for number, (name, feeds) in enumerate(capturing.feeds.items()):
            report("quantising graphs", number, len(capturing.feeds))
            if feeds:
                graphs[name] = GraphQuantizer(name, bundle.graph(name), feeds)
        graphs = {name: graph for name, graph in graphs.items() if graph.layers}
        runtime = open_backend(backend, "int8", threads, Path(cache))
        times = _time_graphs(runtime, graphs, capturing.feeds, report)
        passage = Passage(tuple(ClipFrame(frame, n, 0.0) for n, frame in enumerate(frames)), held_out=True)

        def open_engine(draft: Bundle) -> Engine:
            return Engine(draft, backend, "int8", threads, Path(cache))

        times = _time_joined(bundle, graphs, times, [passage], open_engine, report)
    return {name: graph.quantize(graph.layers) for name, graph in graphs.items() if times[name].pays}


class _Work:
    """One quantisation."""

    def __init__(self, bundle: Bundle, options: Options, cache: Path, report: Progress) -> None:
        self._bundle = bundle
        self._options = options
        self._cache = cache
        self._report = report
        self._interval = max(bundle.manifest.key_interval, 2)
        self._held_out: list[Passage] = []

    def run(self, clips: Sequence[Clip], folder: Path | None, name: str | None) -> Quantized:
        feeds = self._capture(clips)
        graphs = {
            graph: GraphQuantizer(graph, self._bundle.graph(graph), some) for graph, some in feeds.items() if some
        }
        graphs = {graph: quantizer for graph, quantizer in graphs.items() if quantizer.layers}
        if not graphs:
            raise QuantizationError(f"{self._bundle.path} has no layers with constant weights: int8 can't help it")
        runtime = open_backend(self._options.backends[0], "int8", self._options.threads, self._cache)
        times = _time_graphs(runtime, graphs, feeds, self._report)
        if not any(time.pays for time in times.values()):
            taken = ", ".join(f"{graph} {t.before:.1f} ms, in int8 {t.quantized:.1f} ms" for graph, t in times.items())
            raise RefusedError(f"no graph of {self._bundle.path} is faster in int8 here: {taken}")
        judge = self._judge(self._options.backends[0])
        passages = self._passages_to_time()
        times = _time_joined(
            self._bundle, graphs, times, passages, lambda draft: judge.open(draft, "int8"), self._report
        )
        graphs = {graph: quantizer for graph, quantizer in graphs.items() if times[graph].pays}

        def try_layers(layers: Layers) -> Judgement:
            return judge.judge(self._draft(graphs, layers), step=self._step("judging"))

        deadline = time.monotonic() + self._options.max_seconds
        found = search(graphs, feeds, try_layers, self._options.tolerance, deadline, self._report)
        if found.judgement.agreement < self._options.tolerance:
            raise RefusedError(self._too_far(found, judge.measure))
        models = _quantize(graphs, found.quantized)
        draft = draft_precision(self._bundle, "int8", models)
        trials = [self._trial(judge, draft, found.judgement)]
        if not trials[0].is_faster:
            raise RefusedError(self._too_slow(trials[0], found, judge.measure))
        for backend in self._options.backends[1:]:
            other = self._judge(backend)
            trials.append(self._trial(other, draft, other.judge(draft, step=self._step(f"judging on {backend}"))))
        kept = [trial for trial in trials if trial.is_kept(self._options.tolerance)]
        quantized = add_precision(
            self._bundle,
            "int8",
            models,
            folder,
            name=name,
            tolerance=self._options.tolerance,
            measure=judge.measure,
            measurements=[self._measurement(trial) for trial in kept],
            data=", ".join(clip.name for clip in clips),
            unquantized=[f"{graph}/{layer}" for graph, layer in found.unquantized],
        )
        return Quantized(
            bundle=quantized,
            measure=judge.measure,
            tolerance=self._options.tolerance,
            graphs=times,
            unquantized=self._costs(graphs, found, feeds),
            complete=found.complete,
            trials=tuple(trials),
        )

    def _capture(self, clips: Sequence[Clip]) -> dict[str, list[Feed]]:
        """Read the clips, and return the inputs of all graphs on the frames to calibrate on."""
        bundle = self._bundle
        engine = Engine(bundle, self._options.backends[-1], "fp32", self._options.threads, self._cache)
        capturing = engine.backend = CapturingBackend(engine.backend, bundle.manifest)
        try:
            for number, passage in enumerate(read_passages(clips, self._interval)):
                self._report("reading videos", number, None)
                if passage.held_out:
                    self._held_out.append(passage)
                    continue
                first, *others = passage.frames
                last = 1 + number // 2 % len(others)  # so that all key ages occur
                capturing.recording = True
                _, state = engine.key(first.image)
                for age, frame in enumerate(others[:last], 1):
                    capturing.recording = age == last
                    engine.propagate(frame.image, state, [frame.vectors])
        finally:
            engine.close()
        if not self._held_out:
            raise QuantizationError("the videos change their size too often: use longer ones")
        return capturing.feeds

    def _judge(self, backend: BackendName) -> Judge:
        return Judge(
            self._bundle,
            self._held_out,
            backend,
            threads=self._options.threads,
            cache=self._cache,
            step=self._step(f"fp32 on {backend}"),
        )

    def _draft(self, graphs: Mapping[str, GraphQuantizer], layers: Layers) -> Bundle:
        return draft_precision(self._bundle, "int8", _quantize(graphs, layers))

    def _trial(self, judge: Judge, draft: Bundle, judgement: Judgement) -> Trial:
        """Time a backend in all its precisions."""
        self._report(f"timing on {judge.backend}", 0, None)
        with ExitStack() as opened:
            engines: dict[str, Engine] = {}
            precisions: tuple[Precision, ...] = ("fp32", "bf16", "int8")
            for precision in precisions:
                try:
                    engines[precision] = judge.open(draft, precision)
                except BackendError:
                    if precision != "bf16":  # which not every device has
                        raise
                    continue
                opened.callback(engines[precision].close)
            times = time_frames(engines, self._passages_to_time())
            backend = engines["int8"].backend
        return Trial(backend.name, backend.device, judgement, times, self._interval)

    def _passages_to_time(self) -> list[Passage]:
        """Return held-out passages of one size."""
        first = self._held_out[0].frames[0].image.shape
        return [passage for passage in self._held_out if passage.frames[0].image.shape == first]

    def _measurement(self, trial: Trial) -> Measurement:
        int8, instead = trial.times["int8"], trial.times[trial.instead]
        height, width = self._held_out[0].frames[0].image.shape[:2]
        return Measurement(
            backend=trial.backend,
            device=trial.device,
            instructions=int8_instructions(),
            size=input_size(height, width, self._bundle.manifest.image),
            key_agreement=round(trial.judgement.key, 5),
            propagated_agreement=round(trial.judgement.propagated, 5),
            key_ms=round(int8.key, 2),
            propagated_ms=round(int8.propagated, 2),
            instead=trial.instead,
            instead_key_ms=round(instead.key, 2),
            instead_propagated_ms=round(instead.propagated, 2),
        )

    def _costs(
        self, graphs: Mapping[str, GraphQuantizer], found: Found, feeds: Mapping[str, list[Feed]]
    ) -> dict[str, float | None]:
        """Measure what each layer in fp32 costs: how much its graph would gain if it alone were quantised as well."""
        backend = open_backend(self._options.backends[0], "int8", self._options.threads, self._cache)
        costs: dict[str, float | None] = {}
        for number, layer in enumerate(found.unquantized):
            graph, name = layer
            costs[f"{graph}/{name}"] = None
            if number < MAX_COSTS:
                self._report("timing layers", number, min(len(found.unquantized), MAX_COSTS))
                models = {
                    "without": _quantize(graphs, found.quantized)[graph],
                    "with": _quantize(graphs, found.quantized | {layer})[graph],
                }
                times = time_graphs(backend, models, feeds[graph][0])
                costs[f"{graph}/{name}"] = times["without"] - times["with"]
        return costs

    def _step(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self._report(stage, done, total)

    def _too_far(self, found: Found, measure: str) -> str:
        judgement = found.judgement
        return (
            f"{self._bundle.path} in int8 agrees with fp32 to {100 * judgement.key:.2f} % on key frames and "
            f"{100 * judgement.propagated:.2f} % on propagated frames ({measure}), even with {len(found.unquantized)} "
            f"sensitive layers in fp32, and the tolerance is {100 * self._options.tolerance:.2f} %"
            + (": time ran out, so allow more (--max-seconds)" if not found.complete else "")
            + ". Nothing was written"
        )

    def _too_slow(self, trial: Trial, found: Found, measure: str) -> str:
        int8, instead = trial.times["int8"], trial.times[trial.instead]
        return (
            f"{self._bundle.path} isn't faster in int8 than in {trial.instead} with {trial.backend} on {trial.device}: "
            f"a key frame takes {int8.key:.1f} instead of {instead.key:.1f} ms, a propagated frame "
            f"{int8.propagated:.1f} instead of {instead.propagated:.1f} ms ({100 * found.judgement.agreement:.2f} % "
            f"agreement, {measure}, with {len(found.unquantized)} sensitive layers in fp32; "
            f"{100 * found.everything.agreement:.2f} % with none: see --tolerance). Nothing was written"
        )


def _time_graphs(
    backend: Backend, graphs: Mapping[str, GraphQuantizer], feeds: Mapping[str, list[Feed]], report: Progress
) -> dict[str, GraphTimes]:
    """Time graphs as they are and with all of their layers quantised."""
    times: dict[str, GraphTimes] = {}
    for number, (name, graph) in enumerate(graphs.items()):
        report("timing graphs", number, len(graphs))
        models = {"before": graph.model, "quantized": graph.quantize(graph.layers)}
        times[name] = GraphTimes(**time_graphs(backend, models, feeds[name][0]))
    return times


def _time_joined(
    bundle: Bundle,
    graphs: Mapping[str, GraphQuantizer],
    times: Mapping[str, GraphTimes],
    passages: Sequence[Passage],
    open_engine: Callable[[Bundle], Engine],
    report: Progress,
) -> dict[str, GraphTimes]:
    """Time frames with and without each graph that gains little by itself, together with those that gain enough.

    Args:
        bundle: The bundle.
        graphs: Its graphs.
        times: What they take by themselves.
        passages: The frames, all of one size.
        open_engine: Opens an engine in int8.
        report: Is told how far it is.

    Returns:
        The times, with those of frames where they were measured.
    """
    joined = dict(times)
    chosen = [name for name, time in times.items() if time.pays_alone]
    doubtful = [name for name, time in times.items() if not time.pays_alone and time.quantized < time.before]
    for number, name in enumerate(doubtful if chosen else ()):
        report("timing frames", number, len(doubtful))
        with ExitStack() as opened:
            engines: dict[str, Engine] = {}
            for what, quantized in (("before", chosen), ("quantized", [*chosen, name])):
                models = {graph: graphs[graph].quantize(graphs[graph].layers) for graph in quantized}
                engines[what] = open_engine(draft_precision(bundle, "int8", models))
                opened.callback(engines[what].close)
            frames = time_frames(engines, passages)
        # Only key frames run the feature network, and only the others the flow network. Both run the head.
        kind = "key" if name == "features.onnx" else "propagated"
        before, after = (getattr(frames[what], kind) for what in ("before", "quantized"))
        joined[name] = replace(times[name], frame_before=before, frame_quantized=after)
        if joined[name].pays:
            chosen.append(name)
    return joined


def _quantize(graphs: Mapping[str, GraphQuantizer], layers: Layers) -> dict[str, onnx.ModelProto]:
    """Return the graphs of which at least one layer is quantised."""
    chosen = {name: [layer for graph, layer in layers if graph == name] for name in graphs}
    return {name: graphs[name].quantize(some) for name, some in chosen.items() if some}


def _silent(stage: str, done: int, total: int | None) -> None:
    """Show no progress."""
