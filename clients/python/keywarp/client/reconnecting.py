"""Reconnecting: the waits between attempts, and which errors are temporary."""

import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from keywarp.client.errors import (
    ApiError,
    ConnectError,
    KeywarpError,
    ResumeError,
    StreamBusyError,
    StreamError,
    StreamGoneError,
    UnavailableError,
)

ATTEMPT_TIMEOUT: Final = 10.0  # seconds that one attempt to connect again may take
TEMPORARY: Final = frozenset(  # statuses of a server, or of a proxy in front of it, that will be available again soon
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """The options for reconnecting when a stream's connection breaks.

    ==================================  =============================================================
    `reconnect=Reconnect()`             the default: tries for 60 s from when the connection broke
    `reconnect=300`                     the same as `Reconnect(seconds=300)`
    `reconnect=0` or `None`             a break ends the stream with its error
    `Reconnect(at_start=True)`          also waits for a server that isn't there yet
    ==================================  =============================================================

    The waits between attempts grow from `first` seconds, doubling each time, up to `longest`. Each is shortened by a
    random part of up to one half, so that the clients of a server don't all reconnect at once. If the server asks for
    a longer wait (by the header `Retry-After`, or by `retry_after` of the problem that it sends before it closes the
    stream), the client waits that long.

    Raises:
        ValueError: If a time isn't a number of seconds, or `memory` is negative.
    """

    seconds: float = 60.0  # how long to try, until new responses arrive; 0 doesn't try
    first: float = 0.25  # seconds, the first wait
    longest: float = 1.0  # seconds, the longest wait
    at_start: bool = False  # whether the first connection is tried again, too
    memory: int = 64 * 2**20  # bytes of packets to keep for sending again, with the codecs that need them

    def __post_init__(self) -> None:
        """Check the values."""
        if not (self.seconds >= 0 and 0 < self.first <= self.longest and self.memory >= 0):
            raise ValueError(f"seconds and memory are at least 0, and 0 < first <= longest, not {self}")

    @classmethod
    def of(cls, option: "Reconnect | float | None") -> "Reconnect":
        """Read the option `reconnect` of `Client.stream`."""
        return option if isinstance(option, Reconnect) else cls(seconds=option or 0.0)


DEFAULT: Final = Reconnect()
OFF: Final = Reconnect(seconds=0)


class Backoff:
    """The waits between attempts to connect again.

    The time that `Reconnect.seconds` allows runs from the first break after the last new response. So a server that
    breaks on the same frame each time isn't tried forever.
    """

    def __init__(self, reconnect: Reconnect) -> None:
        self._reconnect = reconnect
        self._since: float | None = None  # the first break; monotonic seconds
        self._attempts = 0

    def reset(self) -> None:
        """Reset the waits, since the stream has made progress."""
        self._since = None
        self._attempts = 0

    def next_wait(self, error: KeywarpError, now: float) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            error: The error that broke the connection, or that the last attempt failed with.
            now: Monotonic seconds.

        Raises:
            KeywarpError: `error` itself, if there is no time left.
        """
        self._since = now if self._since is None else self._since
        left = self._since + self._reconnect.seconds - now
        asked = error.retry_after or 0.0 if isinstance(error, ApiError | StreamError) else 0.0
        if left <= 0 or asked > left:
            raise error
        longest = min(self._reconnect.first * 2.0 ** min(self._attempts, 32), self._reconnect.longest)
        self._attempts += 1
        return max(asked, min(longest * random.uniform(0.5, 1), left))


def is_temporary(error: KeywarpError) -> bool:
    """Return whether reconnecting may help. It doesn't if the request itself is at fault."""
    if isinstance(error, ApiError):
        return error.status in TEMPORARY
    if isinstance(error, StreamGoneError):  # it was deleted, or it has expired, which it need not have
        return error.retry_after is not None
    return isinstance(error, ConnectError | UnavailableError | StreamBusyError) and not isinstance(error, ResumeError)
