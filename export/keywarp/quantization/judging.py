"""How far results in another precision agree with those in fp32."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from keywarp.engines import Bundle, Engine
from keywarp.engines.backends import BackendName, Precision
from keywarp.engines.comparison import open_measure
from keywarp.engines.result import Output
from keywarp.quantization.footage import Passage

Step = Callable[[int, int], None]  # is told how many frames are done, and of how many


@dataclass(frozen=True, slots=True)
class Judgement:
    """The agreement of results, 0..1."""

    key: float  # of key frames
    propagated: float  # of propagated frames

    @property
    def agreement(self) -> float:
        """The lesser of the two."""
        return min(self.key, self.propagated)


class Judge:
    """Compares the results of a bundle in other precisions with those in fp32 on the same frames.

    Propagated frames are compared with propagated frames, so that what propagation itself loses doesn't count.
    """

    def __init__(
        self,
        bundle: Bundle,
        passages: Sequence[Passage],
        backend: BackendName,
        *,
        threads: int = 0,
        cache: Path | None = None,
        step: Step | None = None,
    ) -> None:
        """Compute the results in fp32.

        Args:
            bundle: The bundle.
            passages: The frames to judge on.
            backend: The backend to run on.
            threads: See `keywarp.engines.open_backend`.
            cache: The folder for compiled graphs.
            step: Is told how far it is.

        Raises:
            EngineError: If the bundle can't be run.
        """
        self.passages = passages
        self.backend: BackendName = backend
        self._threads = threads
        self._cache = cache
        self._measure = open_measure(bundle.manifest)
        self.measure = self._measure.sameness_name
        self._expected = self._run(bundle, "fp32", step)

    def judge(self, bundle: Bundle, precision: Precision = "int8", step: Step | None = None) -> Judgement:
        """Return the agreement of a bundle's results in a precision.

        Raises:
            EngineError: If the bundle can't be run.
        """
        sums = []
        found = self._run(bundle, precision, step)
        for part in (slice(0, 1), slice(1, None)):
            pairs = (
                (output, wanted)
                for outputs, expected in zip(found, self._expected, strict=True)
                for output, wanted in zip(outputs[part], expected[part], strict=True)
            )
            counts = [self._measure.count(output, wanted) for output, wanted in pairs]
            sums.append(sum(counts[1:], start=counts[0]) if counts else None)
        key, propagated = (1.0 if counts is None else self._measure.sameness(counts) for counts in sums)
        return Judgement(key, propagated)

    def open(self, bundle: Bundle, precision: Precision) -> Engine:
        """Open an engine as the judge does."""
        return Engine(bundle, self.backend, precision, self._threads, self._cache)

    def _run(self, bundle: Bundle, precision: Precision, step: Step | None) -> list[list[Output]]:
        """Return the results of each passage."""
        engine = self.open(bundle, precision)
        results: list[list[Output]] = []
        total = sum(len(passage.frames) for passage in self.passages)
        done = 0
        try:
            for passage in self.passages:
                first, *others = passage.frames
                result, state = engine.key(first.image)
                propagated = (engine.propagate(frame.image, state, [frame.vectors]) for frame in others)
                results.append([copy.deepcopy(found.output) for found in (result, *propagated)])
                done += len(passage.frames)
                if step:
                    step(done, total)
        finally:
            engine.close()
        return results
