"""From what a stream asks for to the schedule of its key frames."""

from dataclasses import dataclass

from keywarp.engines import AdaptiveInterval, FixedInterval, KeySchedule
from keywarp.protocol import MAX_INTERVAL, Schedule, StreamOptions
from keywarp.server.errors import BadMessageError

STRETCH = 3  # the longest interval of an adaptive schedule, where none is asked for, in mean intervals


@dataclass(frozen=True, slots=True)
class Pacing:
    """How a stream's key frames are placed, in the protocol's words."""

    schedule: Schedule
    interval: int  # frames; with `adaptive` the mean
    max_interval: int | None  # frames; None: the schedule is `fixed`, and not elastic

    def open(self) -> KeySchedule:
        """Make the engine's schedule."""
        if self.schedule == "fixed" or self.max_interval is None:
            return FixedInterval(self.interval, self.max_interval)
        return AdaptiveInterval(target=self.interval, maximum=self.max_interval)

    def __str__(self) -> str:
        return f"interval {self.interval}" if self.schedule == "fixed" else f"adaptive interval {self.interval}"


def settle(options: StreamOptions, schedule: Schedule, interval: int) -> Pacing:
    """Fill in what a stream didn't ask for.

    Args:
        options: What it asked for.
        schedule: The server's default.
        interval: The model's default.

    Raises:
        BadMessageError: The options don't go together.
    """
    schedule, interval = options.schedule or schedule, options.interval or interval
    longest = options.max_interval
    if schedule == "fixed":
        if longest is not None and options.mode != "latest":
            raise BadMessageError("`max_interval` goes with the schedule `adaptive` or the mode `latest`")
    else:
        longest = longest or max(interval, min(STRETCH * interval, MAX_INTERVAL))
    if longest is not None and longest < interval:
        raise BadMessageError(f"`max_interval` {longest} is below the interval, {interval}")
    return Pacing(schedule, interval, longest)
