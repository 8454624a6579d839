"""What counts as good enough: percentiles of the latency, and the share of frames that may be lost."""

import re
from dataclasses import dataclass, replace

from keywarp.commands.load_bench.tally import Tally

_TERM = re.compile(
    r"\s*(?:p(?P<share>\d+(?:\.\d+)?)\s*[=<]\s*(?P<time>\d+(?:\.\d+)?)\s*(?P<unit>ms|s)"
    r"|lost\s*[=<]\s*(?P<lost>\d+(?:\.\d+)?)\s*%)\s*"
)


@dataclass(frozen=True)
class Objective:
    """The most that latency and losses may be."""

    latencies: tuple[tuple[float, float], ...] = ((99.0, 0.2),)  # percentile, 0 to 100, and seconds
    lost: float = 0.01  # share of frames without a result

    def __str__(self) -> str:
        terms = [f"p{share:g} of the latency < {1000 * seconds:g} ms" for share, seconds in self.latencies]
        return ", ".join([*terms, f"lost < {100 * self.lost:g} %"])

    @property
    def tightest(self) -> float:
        """The shortest of the latencies, in seconds."""
        return min(seconds for _, seconds in self.latencies)

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Parse an objective such as `p99=200ms` or `p50=50ms,p99=0.2s,lost=1%`.

        Raises:
            ValueError: It isn't like that.
        """
        latencies: list[tuple[float, float]] = []
        found = cls()
        for part in text.split(","):
            term = _TERM.fullmatch(part)
            if term is None or float(term["share"] or 0) > 100:
                raise ValueError(f"{part!r} is not like p99=200ms or lost=1%")
            if term["lost"]:
                found = replace(found, lost=float(term["lost"]) / 100)
            else:
                latencies.append((float(term["share"]), float(term["time"]) / (1000 if term["unit"] == "ms" else 1)))
        return replace(found, latencies=tuple(latencies)) if latencies else found

    def misses(self, tally: Tally) -> list[str]:
        """Say what of the objective the frames of a step missed; nothing if it is met."""
        if not tally.due:
            return ["no frame was due"]
        merged = tally.all_latencies
        missed = []
        for share, seconds in self.latencies:
            if not len(merged) or (reached := merged.percentile(share)) >= seconds:
                found = f"{1000 * reached:.0f} ms" if len(merged) else "unknown"
                missed.append(f"p{share:g} is {found}")
        lost = 1 - tally.results / tally.due
        if lost >= self.lost:
            missed.append(f"{100 * lost:.1f} % lost")
        return missed
