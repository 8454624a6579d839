"""When a stream whose connection broke connects again: how long it tries, and which errors pass by themselves."""

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
    UnavailableError,
)

ATTEMPT_TIMEOUT: Final = 10.0  # seconds that connecting again may take, until it is tried anew
PASSING: Final = frozenset(  # the statuses of a server, or a proxy before it, that is there again soon
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Reconnect:
    """What a stream does when its connection breaks.

    ==================================  =============================================================
    `reconnect=Reconnect()`             the default: tries for 60 s, from when the connection broke
    `reconnect=300`                     the same as `Reconnect(seconds=300)`
    `reconnect=0` or `None`             a break ends the stream with its error
    `Reconnect(at_start=True)`          waits for a server that isn't there yet, too
    ==================================  =============================================================

    Between two tries it waits for `first`, twice that, and so on up to `longest` seconds, less up to half by chance, so
    that not all clients of a server come back at once; and for as long as the server asks, by `Retry-After` or, before
    it closes the stream, by the problem's `retry_after`.

    Raises:
        ValueError: A time isn't a number of seconds, or `memory` is negative.
    """

    seconds: float = 60.0  # to keep trying until frames are answered again; 0: off
    first: float = 0.25  # seconds
    longest: float = 5.0  # seconds
    at_start: bool = False  # whether the first connection is tried again, too
    memory: int = 64 * 2**20  # bytes of packets to keep, with the codecs that need those since a key frame

    def __post_init__(self) -> None:
        """Check the values."""
        if not (self.seconds >= 0 and 0 < self.first <= self.longest and self.memory >= 0):
            raise ValueError(f"seconds and memory are at least 0, and 0 < first <= longest, not {self}")

    @classmethod
    def of(cls, option: "Reconnect | float | None") -> "Reconnect":
        """Read the option `reconnect`."""
        return option if isinstance(option, Reconnect) else cls(seconds=option or 0.0)


DEFAULT: Final = Reconnect()
OFF: Final = Reconnect(seconds=0)


class Patience:
    """How much longer it is tried, since the last answer that was new.

    A server that breaks on one and the same frame each time is therefore not tried forever.
    """

    def __init__(self, reconnect: Reconnect) -> None:
        self._reconnect = reconnect
        self._since: float | None = None  # the first break; monotonic seconds
        self._tries = 0

    def renew(self) -> None:
        """Note that it went on."""
        self._since = None
        self._tries = 0

    def wait(self, error: KeywarpError, now: float) -> float:
        """Say how many seconds to wait before the next try; `now` is in monotonic seconds.

        Raises:
            KeywarpError: `error` itself, where time is up.
        """
        self._since = now if self._since is None else self._since
        left = self._since + self._reconnect.seconds - now
        asked = error.retry_after or 0.0 if isinstance(error, ApiError | StreamError) else 0.0
        if left <= 0 or asked > left:
            raise error
        longest = min(self._reconnect.first * 2 ** min(self._tries, 32), self._reconnect.longest)
        self._tries += 1
        return max(asked, min(longest * random.uniform(0.5, 1), left))


def passes(error: KeywarpError) -> bool:
    """Tell whether connecting again may help: what is wrong with the request stays wrong."""
    if isinstance(error, ApiError):
        return error.status in PASSING
    return isinstance(error, ConnectError | UnavailableError | StreamBusyError) and not isinstance(error, ResumeError)
