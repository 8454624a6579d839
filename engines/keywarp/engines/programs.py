"""The compiled graphs of an engine for one input size."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType
from typing import Final

from keywarp.engines.backends.interface import Backend, Program, Tensor
from keywarp.engines.fusion import FusedGraph
from keywarp.engines.gathering import Batch, Gatherer, Place
from keywarp.engines.postprocessing import Postprocessor
from keywarp.engines.slicing import slice_graph

PLACES: Final = 2  # runs of propagated frames that are under way together if they come in batches


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """A program for a part of a key frame's graph, see `slice_graph`."""

    program: Program
    inputs: tuple[str, ...]
    kept: frozenset[str]  # the outputs of the whole graph, and what later slices take

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the slice on what earlier ones gave, and return what later ones need, and all outputs so far."""
        found = {**tensors, **self.program.run({name: tensors[name] for name in self.inputs})}
        return {name: tensor for name, tensor in found.items() if name in self.kept}


@dataclass(frozen=True, slots=True, eq=False)
class Programs:
    """The programs on the whole device, on a share of it, or of a frame in flight on it."""

    key: tuple[Slice, ...]
    steps: int  # the number of slices that give the features, or the result if features are copied
    propagate: Program | None  # None if features are copied
    motion: Program | None  # the flow network between frame and key frame, if its flow is repaired
    flow: Program | None  # the flow network between any two images, if its flow is chained
    postprocessor: Postprocessor
    lock: Lock  # held while a program runs, since only one run is allowed at a time
    gatherer: Gatherer | None = None  # of all lanes; None unless propagated frames come in batches

    def run_key(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run all slices of a key frame."""
        tensors = dict(inputs)
        for part in self.key:
            tensors = part.run(tensors)
        return tensors

    def run_propagate(self, inputs: Mapping[str, Tensor]) -> AbstractContextManager[Mapping[str, Tensor]]:
        """Run a propagated frame, perhaps together with others. Its results are overwritten after the `with` block."""
        if self.gatherer:
            return self.gatherer.run(inputs)
        assert self.propagate is not None
        return nullcontext(self.propagate.run(inputs))


@dataclass(frozen=True, slots=True)
class Compiled:
    """All programs for one size."""

    whole: Programs
    lanes: tuple[Programs, ...]  # none if frames run one after another

    def on(self, lane: int | None) -> Programs:
        """Return the programs of a lane, or those of the whole device."""
        return self.whole if lane is None or not self.lanes else self.lanes[lane % len(self.lanes)]


def compile_graphs(
    backend: Backend,
    graphs: Mapping[str, FusedGraph],
    open_postprocessor: Callable[[], Postprocessor],
    lanes: int = 1,
    slices: int = 1,
    batches: Mapping[int, FusedGraph] = MappingProxyType({}),
) -> Compiled:
    """Compile the graphs for one size.

    Args:
        backend: What compiles them.
        graphs: The graphs, see `fuse_all`.
        open_postprocessor: Gives a postprocessor, of which each lane has its own.
        lanes: The number of frames that run at the same time. With more than one, all graphs are compiled for each
            lane, and for the whole device if lanes are shares of it.
        slices: The number of slices of a key frame's features. Weights are in one slice each, so slices hold no more
            than a whole graph does.
        batches: The graphs for batches of propagated frames, by the number of frames, see `fuse_frames`.

    Raises:
        BackendError: If the runtime refuses a graph.
    """
    whole_key = graphs["key"]
    parts = (whole_key,) if slices == 1 else slice_graph(whole_key, slices, backend.style)
    steps = max(
        place for place, part in enumerate(parts, 1) if "propagate" not in graphs or part.resident & whole_key.resident
    )
    outputs = frozenset(value.name for value in whole_key.model.graph.output)
    rest = {name: graph for name, graph in graphs.items() if name != "key"}

    def programs(
        key: Collection[Program], by_name: Mapping[str, Program], gatherer: Gatherer | None = None
    ) -> Programs:
        return Programs(
            key=tuple(_join(parts, key, outputs)),
            steps=steps,
            propagate=by_name.get("propagate"),
            motion=by_name.get("motion"),
            flow=by_name.get("flow"),
            postprocessor=open_postprocessor(),
            lock=Lock(),
            gatherer=gatherer,
        )

    def compile_whole() -> Programs:
        return programs(
            [backend.compile(part.model, part.resident) for part in parts],
            {name: backend.compile(graph.model, graph.resident) for name, graph in rest.items()},
        )

    def compile_each() -> Iterator[Programs]:
        keys = zip(*(backend.compile_lanes(part.model, part.resident, lanes) for part in parts), strict=True)
        others = {name: backend.compile_lanes(graph.model, graph.resident, lanes) for name, graph in rest.items()}
        gatherer = _gather(backend, others["propagate"][:PLACES], batches) if batches else None
        for lane, key in enumerate(keys):
            yield programs(key, {name: of[lane] for name, of in others.items()}, gatherer)

    if lanes == 1:
        return Compiled(compile_whole(), ())
    if backend.in_flight:
        each = tuple(compile_each())
        return Compiled(each[0], each)
    return Compiled(compile_whole(), tuple(compile_each()))


def _gather(backend: Backend, singles: Sequence[Program], batches: Mapping[int, FusedGraph]) -> Gatherer:
    """Compile batches of propagated frames, for as many places as there are programs for one frame."""
    compiled = {
        frames: backend.compile_lanes(graph.model, graph.resident, len(singles))
        for frames, graph in sorted(batches.items())
    }
    return Gatherer(
        [
            Place(single, tuple(Batch(programs[place], frames) for frames, programs in compiled.items()))
            for place, single in enumerate(singles)
        ]
    )


def _join(parts: Sequence[FusedGraph], programs: Collection[Program], outputs: frozenset[str]) -> Iterator[Slice]:
    """Yield the slices of a graph with some outputs."""
    inputs = [tuple(value.name for value in part.model.graph.input) for part in parts]
    for number, program in enumerate(programs):
        yield Slice(program, inputs[number], outputs.union(*inputs[number + 1 :]))
