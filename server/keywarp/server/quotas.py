"""What one API key may use of the server."""

from dataclasses import dataclass
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Limits of one key; None: there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streams: int | None = Field(default=None, ge=1)  # open at once

    def over(self, default: Self) -> Self:
        """These, and the default where there is none."""
        return default.model_copy(update=self.model_dump(exclude_none=True))

    def __str__(self) -> str:
        return " ".join(f"{name}={limit:.12g}" for name, limit in self.model_dump(exclude_none=True).items())


@dataclass(frozen=True, slots=True, eq=False)
class Quota:
    """One key's share: streams remember whose they are by it."""

    name: str
    limits: Limits


NO_LIMITS: Final = Limits()
UNLIMITED: Final = Quota("", NO_LIMITS)  # of whoever uses a server without keys
