"""What cameras saw: latencies by kind of frame, losses by reason, and how late they themselves were."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, Final

from keywarp.cli.errors import CommandError

try:
    from hdrh.histogram import HdrHistogram
except ModuleNotFoundError as error:
    raise CommandError("load tests need hdrhistogram: install the extra `load` (README, Install)") from error

KINDS: Final = ("key", "propagated")
PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_LONGEST: Final = 600_000_000  # microseconds that a histogram can hold
_DIGITS: Final = 3  # significant ones of a histogram's figures


class Latencies:
    """A high dynamic range histogram of seconds."""

    def __init__(self) -> None:
        """Begin without values."""
        self._histogram = HdrHistogram(1, _LONGEST, _DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def add(self, seconds: float) -> None:
        """Count one value."""
        self._histogram.record_value(min(_LONGEST, max(1, round(1e6 * seconds))))

    def merge(self, other: "Latencies") -> None:
        """Count the values of another histogram."""
        self._histogram.add(other._histogram)

    def percentile(self, share: float) -> float:
        """Return the seconds below which a share of the values is, 0 to 100; 0 without values."""
        return float(self._histogram.get_value_at_percentile(share)) / 1e6

    def as_dict(self) -> dict[str, Any]:
        """Return count and percentiles in seconds, and all of it as HdrHistogram's tools read it (in microseconds)."""
        encoded = self._histogram.encode().decode("ascii")
        shares = {f"p{share:g}": self.percentile(share) for share in PERCENTILES}
        return {"count": len(self), **shares, "hdr": encoded}


class Tally:
    """The frames of all cameras in the counted part of a step.

    Attributes:
        due: Frames that were due.
        latencies: From when a frame was due to its result, by kind.
        lateness: How long after they were due frames were sent. It is the generator's, not the server's.
        lost: Frames without a result, by reason.
        ages: Sum of the seconds since their key frame, of all results.
        stages: Sums of the seconds in the server's stages, by kind and stage.
    """

    def __init__(self, begin: float, end: float) -> None:
        """Count frames that are due from `begin` on and before `end`, in the loop's seconds."""
        self._begin, self._end = begin, end
        self.due = 0
        self.latencies = {kind: Latencies() for kind in KINDS}
        self.lateness = Latencies()
        self.lost: Counter[str] = Counter()
        self.ages = 0.0
        self.stages: dict[str, defaultdict[str, float]] = {kind: defaultdict(float) for kind in KINDS}

    def shift(self, begin: float) -> None:
        """Let the counted part begin at another time. Nothing may have been counted yet."""
        self._begin, self._end = begin, begin + self._end - self._begin

    def counts(self, due: float) -> bool:
        """Return whether a frame is in the counted part."""
        return self._begin <= due < self._end

    def frame(self, due: float, now: float) -> None:
        """Note that a frame is sent, or would be if there were room."""
        if self.counts(due):
            self.due += 1
            self.lateness.add(now - due)

    def lose(self, due: float, reason: str) -> None:
        """Note that a frame has no result."""
        if self.counts(due):
            self.lost[reason] += 1

    def respond(self, due: float, now: float, response: Mapping[str, Any]) -> None:
        """Note a frame's response: a message of the protocol."""
        if not self.counts(due):
            return
        if response["type"] != "result":
            self.lost[response.get("reason") or _reason(response)] += 1
            return
        kind = response["kind"]
        self.latencies[kind].add(now - due)
        self.ages += response.get("key_age_seconds") or 0.0
        for stage, seconds in response["timings"].items():
            self.stages[kind][stage] += seconds

    @property
    def results(self) -> int:
        """The number of results."""
        return sum(map(len, self.latencies.values()))

    @property
    def all_latencies(self) -> Latencies:
        """The latencies of both kinds."""
        merged = Latencies()
        for latencies in self.latencies.values():
            merged.merge(latencies)
        return merged


def _reason(response: Mapping[str, Any]) -> str:
    return f"error {response['problem']['status']}" if "problem" in response else str(response["type"])
