"""The comparison: open the networks, let everything take turns, and sum up."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keywarp.cli.errors import CommandError
from keywarp.commands.engine_bench.contestants import (
    PARTS,
    PYTORCH,
    has_pytorch,
    keywarp,
    part,
    per_frame,
    pytorch,
)
from keywarp.commands.engine_bench.figures import (
    REFERENCE,
    FrameRow,
    KeywarpRow,
    Spread,
    summarise_frames,
    summarise_keywarp,
)
from keywarp.commands.engine_bench.footage import Window
from keywarp.commands.engine_bench.machine import Machine, describe_machine
from keywarp.commands.engine_bench.nano import NANO, RUNTIME, nano
from keywarp.commands.engine_bench.networks import Candidate, Networks, cache_folder, nano_network, with_int8
from keywarp.commands.engine_bench.operations import Operations, count_operations
from keywarp.commands.engine_bench.peak import PEAK, PEAK_SHAPES, peak, peak_operations
from keywarp.commands.engine_bench.turns import Contestant, Record, Records, open_runtime, take_turns
from keywarp.commands.progress import Progress
from keywarp.engines import AVAILABLE, BackendError, Bundle, EngineError, Precision
from keywarp.engines.backends import BackendName, choose_backend
from keywarp.engines.preparation import input_size
from keywarp.importing.errors import ImportingError
from keywarp.quantization import QuantizationError

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16", "int8")
REFUSALS = (EngineError, ImportingError, QuantizationError, ImportError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to compare, and how."""

    rounds: int
    threads: int = 0
    backend: BackendName = "auto"  # of Keywarp
    precision: Precision = "auto"  # of Keywarp and OpenVINO; auto is each in turn
    nano: Path | None = None  # the file of a light network, or None for torchvision's
    only: Collection[str] = ()  # groups; all if empty
    without: Collection[str] = ()  # groups

    def includes(self, group: str) -> bool:
        """Whether a group takes part."""
        return (not self.only or group in self.only) and group not in self.without


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was measured."""

    config: str
    size: tuple[int, int]  # height and width of the frames, pixels
    rounds: int  # complete ones
    interrupted: bool
    other_work: float | None  # cores that other programs took meanwhile, on average; None if that isn't known
    threads: int
    machine: Machine
    peaks: dict[str, float]  # measured operations a second, by precision
    frames: list[FrameRow]
    keywarp: list[KeywarpRow]
    operations: dict[str, Operations]  # by motion
    left_out: dict[str, str]  # why
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A contestant, and how its times are summed up."""

    contestant: Contestant
    kind: str  # per frame, nano, keywarp, part or peak
    precision: str
    candidate: Candidate | None = None  # of Keywarp, or whose part it is
    backend: str = ""
    operations: int | None = None
    part: str = ""  # features, flow, warp or head


def groups(networks: Networks) -> tuple[str, ...]:
    """Return the names of all groups of a comparison."""
    return (*reversed(AVAILABLE), PYTORCH, NANO, *(c.label for c in networks.candidates), PARTS, PEAK)


def compare(networks: Networks, windows: Sequence[Window], options: Options, progress: Progress) -> Result:
    """Let everything take turns on the same frames.

    Args:
        networks: The networks.
        windows: The frames.
        options: What to compare, and how.
        progress: Is told how far it is.

    Raises:
        CommandError: If nothing can be compared.
        EngineError: If the bundle can't be run, and others of `REFUSALS`.
    """
    known = groups(networks)
    if unknown := [name for name in (*options.only, *options.without) if name not in known]:
        raise CommandError(f"there is nothing called {unknown[0]!r} to compare; there are: {', '.join(known)}")
    size = windows[0][0].image.shape[:2]
    work = _Work(networks, (size[0], size[1]), windows, options, progress)
    entries = work.entries()
    if not entries:
        raise CommandError("nothing is left to compare: leave fewer out")
    contestants = [entry.contestant for entry in entries]
    records = take_turns(contestants, windows, options.rounds, REFUSALS, progress)
    return work.sum_up(entries, records)


class _Work:
    """One comparison."""

    def __init__(
        self,
        networks: Networks,
        size: tuple[int, int],
        windows: Sequence[Window],
        options: Options,
        progress: Progress,
    ) -> None:
        self._options = options
        self._size = size
        self._frames = [frame.image for frame in windows[0][:2]]
        self._say: Callable[[str], None] = lambda what: progress(what, 0, None)
        self._notes: list[str] = []
        self._backend: BackendName = choose_backend(options.backend).backend  # type: ignore[assignment]
        self._precisions: list[Precision] = [options.precision]
        if options.precision == "auto":
            self._precisions = [precision for precision in PRECISIONS if self._has(self._backend, precision)]
        open_runtime(self._backend, self._precisions[0], options.threads)  # an error if it hasn't what is asked for
        self._networks = self._quantised(networks)
        self._input = input_size(*size, networks.bundle.manifest.image)
        self._say("counting operations")
        self._operations = {
            c.label: count_operations(c.bundle, c.motion, *self._input) for c in self._networks.candidates
        }

    def entries(self) -> list[_Entry]:
        """Return all that take part."""
        found = [*self._peaks(), *self._per_frame(), *self._nano(), *self._keywarp(), *self._parts()]
        return [entry for entry in found if self._options.includes(entry.contestant.group)]

    def sum_up(self, entries: Sequence[_Entry], records: Records) -> Result:
        """Return what the times say."""
        measured = [(entry, records.by_name.get(entry.contestant.name)) for entry in entries]
        peaks: dict[str, float] = {}
        for entry, record in measured:
            if entry.kind == PEAK and record and entry.operations and record.times["frame"]:
                reached = entry.operations / min(record.times["frame"])
                peaks[entry.precision] = max(reached, peaks.get(entry.precision, 0.0))
        base = records.by_name.get(REFERENCE)
        spread = Spread.of(base.times["frame"]) if base else None
        reference = spread.median if spread else None
        frames: list[FrameRow] = []
        ours: list[KeywarpRow] = []
        for entry, record in measured:
            name = entry.contestant.name
            if record is None or entry.kind == PEAK:
                continue
            if entry.candidate is None or entry.part:
                operations = entry.operations
                row = summarise_frames(name, entry.kind, entry.precision, record, reference, operations, peaks)
                frames += [row] if row else []
            else:
                counted = self._operations[entry.candidate.label]
                motion = entry.candidate.label
                parts = self._part_times(measured, entry.candidate, entry.precision)
                found = summarise_keywarp(
                    name, motion, entry.precision, entry.backend, record, reference, counted, peaks, parts
                )
                ours += [found] if found else []
        return Result(
            config=self._networks.config,
            size=self._size,
            rounds=records.rounds,
            interrupted=records.interrupted,
            other_work=records.other_work,
            threads=self._options.threads,
            machine=describe_machine(),
            peaks=peaks,
            frames=frames,
            keywarp=ours,
            operations=self._operations,
            left_out=records.left_out,
            notes=self._notes,
        )

    def _part_times(
        self, measured: Sequence[tuple[_Entry, Record | None]], candidate: Candidate, precision: str
    ) -> dict[str, float]:
        """Return the milliseconds of the graphs that run on a candidate's propagated frames, by themselves."""
        found: dict[str, float] = {}
        for entry, record in measured:
            if not entry.part or entry.candidate is None or entry.precision != precision or record is None:
                continue
            own = entry.part != "flow" or entry.candidate.bundle.path == candidate.bundle.path
            if own and (spread := Spread.of(record.times["frame"])):
                found[entry.part] = spread.median
        return found

    def _has(self, backend: BackendName, precision: Precision) -> bool:
        """Whether a runtime has a precision here."""
        try:
            open_runtime(backend, precision, self._options.threads)
        except BackendError:
            return False
        return True

    def _quantised(self, networks: Networks) -> Networks:
        """Return the networks with graphs in int8, if they are needed."""
        if not networks.trained:
            self._notes.append(
                f"The networks are in {cache_folder()}. Their weights are random: results mean nothing, times do."
            )
        if "int8" not in self._precisions:
            return networks
        bundles: dict[Path, Bundle] = {}
        made = False
        for candidate in networks.candidates:
            if candidate.bundle.path not in bundles:
                backend, threads = self._backend, self._options.threads
                bundle, had = with_int8(candidate.bundle, self._frames, backend, threads, self._say)
                bundles[candidate.bundle.path] = bundle
                made |= not had
        for bundle in bundles.values():
            names = ", ".join(sorted(name.partition(".")[0] for name in bundle.manifest.precisions["int8"].files))
            self._notes.append(f"In int8 of {bundle.name}: {names or 'nothing, which is fastest here'}.")
        if made:
            self._notes.append(
                "The graphs in int8 were made for these times only: what int8 costs in accuracy was not measured "
                f"(keywarp quantize does that). They are in {cache_folder()}."
            )
        candidates = tuple(replace(c, bundle=bundles[c.bundle.path]) for c in networks.candidates)
        return replace(networks, candidates=candidates)

    def _peaks(self) -> list[_Entry]:
        pairs: list[tuple[BackendName, Precision]] = [(self._backend, precision) for precision in self._precisions]
        if "onnxruntime" in AVAILABLE and ("onnxruntime", "fp32") not in pairs:
            pairs.append(("onnxruntime", "fp32"))
        return [
            _Entry(
                peak(shape, backend, precision, self._options.threads),
                PEAK,
                precision,
                operations=peak_operations(shape),
            )
            for backend, precision in pairs
            for shape in PEAK_SHAPES
        ]

    def _per_frame(self) -> list[_Entry]:
        bundle, threads = self._networks.bundle, self._options.threads
        operations = self._operations[self._networks.candidates[0].label].whole
        backends: tuple[BackendName, ...] = tuple(reversed(AVAILABLE))  # type: ignore[arg-type]
        found: list[_Entry] = []
        for backend in backends:
            for precision in PRECISIONS:
                reference = f"{backend} {precision}" == REFERENCE
                if reference or (precision in self._precisions and self._has(backend, precision)):
                    contestant = per_frame(bundle, backend, precision, threads)
                    found.append(_Entry(contestant, "per frame", precision, operations=operations))
        if has_pytorch():
            found.append(_Entry(pytorch(bundle, threads), "per frame", "fp32", operations=operations))
        return found

    def _nano(self) -> list[_Entry]:
        if not self._options.includes(NANO):
            return []
        task = self._networks.bundle.manifest.task
        path = self._options.nano or nano_network(task, *self._size, self._say)
        if path is None:
            self._notes.append("No light network on every frame: install torchvision, or name a file with --nano.")
            return []
        precisions: list[Precision] = ["int8"]
        precisions += ["bf16" if self._has(RUNTIME, "bf16") else "fp32"]
        threads = self._options.threads
        return [_Entry(nano(path, p, threads, self._frames), NANO, p) for p in precisions]

    def _keywarp(self) -> list[_Entry]:
        return [
            _Entry(
                keywarp(candidate, self._backend, precision, self._options.threads),
                "keywarp",
                precision,
                candidate=candidate,
                backend=self._backend,
            )
            for candidate in self._networks.candidates
            for precision in self._precisions
        ]

    def _parts(self) -> list[_Entry]:
        """Return the graphs by themselves: those of the first bundle, and the flow networks of the others."""
        first = self._networks.candidates[0]
        parts = [(first, name, name) for name in ("features", "warp", "head")]
        flows = {c.bundle.path: c for c in reversed(self._networks.candidates) if c.motion.needs_network}
        parts += [(c, "flow", c.label if len(flows) > 1 else "flow") for c in reversed(flows.values())]
        found: list[_Entry] = []
        for candidate, name, label in parts:
            counted = self._operations[candidate.label]
            operations = {"features": counted.features, "flow": counted.flow, "head": counted.head}.get(name)
            for precision in self._precisions:
                contestant = part(
                    candidate.bundle, name, label, self._backend, precision, self._options.threads, self._size
                )
                found.append(_Entry(contestant, "part", precision, candidate, operations=operations, part=name))
        return found
