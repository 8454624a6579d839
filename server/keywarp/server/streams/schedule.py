"""Resolve the key schedule that a stream asks for against the defaults of the server and the model."""

from dataclasses import dataclass

from keywarp.engines import AdaptiveInterval, FixedInterval, KeySchedule
from keywarp.protocol import MAX_INTERVAL, Schedule, StreamOptions
from keywarp.server.errors import BadMessageError

MAX_INTERVAL_FACTOR = 3  # an adaptive schedule's default longest interval, in mean intervals


@dataclass(frozen=True, slots=True)
class ScheduleOptions:
    """A stream's key schedule in the terms of the protocol."""

    schedule: Schedule
    interval: int  # frames; the mean if the schedule is `adaptive`
    max_interval: int | None = None  # frames, or None if the schedule is `fixed`
    max_age: float | None = None  # seconds after which a key frame is too old to propagate from, or None for no limit
    overlap: int = 0  # frames by which key frames overlap with others

    def open(self, number: int = 0) -> KeySchedule:
        """Make the engine's key schedule.

        Args:
            number: The number of streams that the device has already. Their key frames come in other turns.
        """
        if self.max_interval is None:
            return FixedInterval(self.interval, number % self.interval)
        return AdaptiveInterval(target=self.interval, maximum=self.max_interval)

    def __str__(self) -> str:
        return f"interval {self.interval}" if self.schedule == "fixed" else f"adaptive interval {self.interval}"


def resolve_schedule(
    options: StreamOptions,
    schedule: Schedule,
    interval: int,
    max_age: float | None = None,
    overlap: int = 0,
) -> ScheduleOptions:
    """Fill in the parts of a key schedule that a stream's options don't set.

    Args:
        options: The stream's options.
        schedule: The server's default schedule.
        interval: The model's default key interval in frames.
        max_age: The server's default for the greatest key age of streams in the mode `latest`, in seconds. In the mode
            `lossless` the interval alone bounds the age, so results don't depend on how fast the server is.
        overlap: The server's default for the frames by which key frames overlap with others. Streams with a short
            interval overlap by fewer.

    Raises:
        BadMessageError: The options contradict each other.
    """
    schedule, interval = options.schedule or schedule, options.interval or interval
    longest = options.max_interval
    if schedule == "fixed":
        if longest is not None:
            raise BadMessageError("`max_interval` needs the schedule `adaptive`; `max_age` limits any schedule")
    else:
        longest = longest or max(interval, min(MAX_INTERVAL_FACTOR * interval, MAX_INTERVAL))
    if longest is not None and longest < interval:
        raise BadMessageError(f"`max_interval` {longest} is less than the interval, {interval}")
    default = max_age if options.mode == "latest" else None
    most = interval - 1  # with more, the next key frame would be due before this one is in use
    if options.overlap and options.overlap > most:
        raise BadMessageError(f"`overlap` {options.overlap} must be less than the interval, {interval}")
    overlap = min(overlap, most) if options.overlap is None else options.overlap
    return ScheduleOptions(schedule, interval, longest, options.max_age or default, overlap)
