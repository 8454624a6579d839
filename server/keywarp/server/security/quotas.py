"""Limits of streams and frame rates for API keys."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from keywarp.server.errors import TooManyFramesError


class Limits(BaseModel):
    """The limits of one key. None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: int | None = Field(default=None, ge=1)  # streams that are open at once
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # frames per second of all the key's streams

    def with_defaults(self, default: Self) -> Self:
        """Return these limits, completed by defaults."""
        return default.model_copy(update=self.model_dump(exclude_none=True))

    def __str__(self) -> str:
        return " ".join(f"{name}={limit:.12g}" for name, limit in self.model_dump(exclude_none=True).items())


class Quota:
    """The quota of one key, or of one address of clients without keys.

    A stream belongs to a quota, and each frame is charged to one.

    Attributes:
        name: The key's name; empty for an address.
        holder: Whose quota it is, in words.
        limits: The limits.
    """

    def __init__(
        self, name: str, limits: Limits, clock: Callable[[], float] = time.monotonic, *, address: str | None = None
    ) -> None:
        """Start with the whole quota unused.

        Args:
            name: The key's name.
            limits: The limits.
            clock: Returns the monotonic seconds by which the rate is counted.
            address: The address, if it isn't the quota of a key.
        """
        self.name = name
        self.holder = f"the API key {name}" if address is None else f"the address {address}"
        self.limit_of_streams: Literal["key_streams", "address_streams"] = (
            "key_streams" if address is None else "address_streams"
        )
        self.limits = limits
        self._clock = clock
        self._bucket = TokenBucket(limits.rate) if limits.rate else None

    def set_limits(self, limits: Limits) -> None:
        """Set other limits, for all streams and frames of the key from now on."""
        if limits.rate != self.limits.rate:
            self._bucket = TokenBucket(limits.rate) if limits.rate else None
        self.limits = limits

    def try_charge(self) -> float:
        """Charge one frame if the rate allows it now.

        Returns:
            0 if the frame was charged, else the seconds until the rate allows one.
        """
        if self._bucket is None:
            return 0.0
        now = self._clock()
        wait = self._bucket.wait(now)
        if not wait:
            self._bucket.take(now)
        return wait

    def charge(self) -> None:
        """Charge one frame.

        Raises:
            TooManyFramesError: If the rate doesn't allow one now.
        """
        if wait := self.try_charge():
            detail = f"{self.holder} has used its {self.limits.rate:g} frames a second: send fewer"
            raise TooManyFramesError(detail, math.ceil(wait))

    async def wait(self) -> float:
        """Charge one frame, and wait until the rate allows it, after the frames that are already waiting.

        Returns:
            The seconds of the wait.
        """
        if self._bucket is None:
            return 0.0
        now = self._clock()
        wait = self._bucket.wait(now)
        self._bucket.take(now)
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._bucket.give_back()
            raise
        return wait


class TokenBucket:
    """A token bucket that holds the tokens of one second, but at least one.

    It follows the generic cell rate algorithm: the only state is the time at which the bucket will be full again, so no
    task has to fill it.
    """

    def __init__(self, rate: float) -> None:
        """Start with a full bucket.

        Args:
            rate: Tokens per second.
        """
        self._interval = 1 / rate  # seconds per token
        self._capacity = max(1.0, self._interval)  # seconds
        self._full_at = -math.inf  # monotonic seconds

    def wait(self, now: float) -> float:
        """Return the seconds from `now`, in monotonic seconds, until there is a token."""
        return max(0.0, self._full_at + self._interval - self._capacity - now)

    def take(self, now: float) -> None:
        """Take a token, even if the bucket is empty: later callers then wait longer."""
        self._full_at = max(self._full_at, now) + self._interval

    def give_back(self) -> None:
        """Return an unused token."""
        self._full_at -= self._interval


NO_LIMITS: Final = Limits()
UNLIMITED: Final = Quota("", NO_LIMITS)  # the quota of requests to a server without keys
