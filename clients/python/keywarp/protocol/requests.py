"""The bodies of the requests that create and change streams."""

from typing import Annotated, Self

from pydantic import Field

from keywarp.protocol.events import Rules
from keywarp.protocol.messages import (
    MAX_FPS,
    MAX_INTERVAL,
    MAX_KEY_AGE,
    CameraOptions,
    HiddenRegion,
    Masks,
    Mode,
    Reliability,
    Request,
    Resolution,
    Schedule,
    StreamId,
)


class CreateStream(CameraOptions, Rules):
    """The body of `POST /v1/streams` and of `PUT /v1/streams/{id}`."""

    id: StreamId | None = None  # None for a random one
    source: Annotated[str, Field(max_length=2048)] | None = None  # a URL for the server to pull; None: clients feed it

    @property
    def watched_by(self) -> Rules:
        """Its zones, lines and rules by themselves."""
        return Rules.model_validate(self.model_dump(include={*Rules.model_fields}, exclude_unset=True))

    def unwatched(self) -> Self:
        """Return it without zones, lines and rules."""
        return self.model_validate(self.model_dump(exclude={*Rules.model_fields}, exclude_unset=True))


class ChangeStream(Request):
    """The body of `PATCH /v1/streams/{id}`. What it leaves out stays as it is, and null is the server's default."""

    interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)
    schedule: Schedule | None = None
    max_interval: int | None = Field(default=None, ge=1, le=MAX_INTERVAL)
    max_age: float | None = Field(default=None, gt=0, le=MAX_KEY_AGE, allow_inf_nan=False)
    max_fps: float | None = Field(default=None, gt=0, le=MAX_FPS, allow_inf_nan=False)
    masks: Masks | None = None
    resolution: Resolution | None = None
    reliability: Reliability | None = None
    overlap: int | None = Field(default=None, ge=0, le=MAX_INTERVAL)
    track: bool | None = None
    hidden: Annotated[tuple[HiddenRegion, ...], Field(max_length=32)] | None = None
    mode: Mode | None = None  # of a stream that clients feed, from the next connection on
    source: Annotated[str, Field(max_length=2048)] | None = None  # another URL for a stream that the server pulls
