"""What is found out about a model file on the way to a bundle."""

from dataclasses import dataclass

from keywarp.importing.candidates import Candidate
from keywarp.importing.costs import MeasuredCosts
from keywarp.importing.preparation import Preparation
from keywarp.importing.result_format import ResultFormat
from keywarp.saving import FrameCosts, doubt


@dataclass(frozen=True)
class Findings:
    """What was found out about a model file."""

    producer: str  # the exporter's name and version
    height: int  # of the image in pixels
    width: int
    candidates: tuple[Candidate, ...]
    chosen: int  # index of the candidate that the bundle is made with
    result: ResultFormat
    preparation: Preparation
    measured: MeasuredCosts

    @property
    def cut(self) -> Candidate:
        """The cut that the bundle is made with."""
        return self.candidates[self.chosen]

    def costs(self, candidate: Candidate) -> FrameCosts:
        """Return the costs of frames with a cut: measured for the chosen one, predicted for others."""
        return self.measured.frames if candidate is self.cut else self.measured.predict(candidate)

    @property
    def doubt(self) -> str | None:
        """A sentence that says why propagation isn't worth it, or None if it is."""
        return doubt(self.measured.frames)
