"""What one API key may use of the server, and uses."""

import asyncio
import math
import time
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

from keywarp.server.errors import TooManyFramesError


class Limits(BaseModel):
    """Limits of one key; None: there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: int | None = Field(default=None, ge=1)  # open at once
    rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # frames a second, of all its streams

    def over(self, default: Self) -> Self:
        """These, and the default where there is none."""
        return default.model_copy(update=self.model_dump(exclude_none=True))

    def __str__(self) -> str:
        return " ".join(f"{name}={limit:.12g}" for name, limit in self.model_dump(exclude_none=True).items())


class Quota:
    """One key's share: streams remember whose they are by it, and each frame is charged to it."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self._bucket = Bucket(limits.rate) if limits.rate else None

    def take(self) -> float:
        """Take what a frame costs, if it is there; otherwise say in how many seconds it will be."""
        if self._bucket is None:
            return 0.0
        now = time.monotonic()
        wait = self._bucket.wait(now)
        if not wait:
            self._bucket.take(now)
        return wait

    def charge(self) -> None:
        """Take what a frame costs.

        Raises:
            TooManyFramesError: It isn't there now.
        """
        if wait := self.take():
            detail = f"the API key {self.name} has its {self.limits.rate:g} frames a second: send fewer"
            raise TooManyFramesError(detail, math.ceil(wait))

    async def wait(self) -> float:
        """Take what a frame costs when its turn comes, after those who wait already.

        Returns:
            The seconds that it took.
        """
        if self._bucket is None:
            return 0.0
        now = time.monotonic()
        wait = self._bucket.wait(now)
        self._bucket.take(now)
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            self._bucket.give_back()
            raise
        return wait


class Bucket:
    """A token bucket that is filled evenly and has room for the tokens of one second, but at least for one.

    It is kept as the time when it will be full again, the generic cell rate algorithm: so nothing has to fill it.
    """

    def __init__(self, rate: float) -> None:
        """Make a full one; `rate`: tokens a second."""
        self._each = 1 / rate  # seconds
        self._room = max(1.0, self._each)  # seconds
        self._full = -math.inf  # when it will be full; monotonic seconds

    def wait(self, now: float) -> float:
        """Seconds until there is a token; `now` is in monotonic seconds."""
        return max(0.0, self._full + self._each - self._room - now)

    def take(self, now: float) -> None:
        """Take a token, even one that isn't there yet."""
        self._full = max(self._full, now) + self._each

    def give_back(self) -> None:
        """Put a token back that wasn't used."""
        self._full -= self._each


NO_LIMITS: Final = Limits()
UNLIMITED: Final = Quota("", NO_LIMITS)  # of whoever uses a server without keys
