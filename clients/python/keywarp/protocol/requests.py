"""The bodies of the requests that create and change streams."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field

from keywarp.protocol.events import MAX_RULES, Line, Name, Rule, Rules, Zone
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
    # The fields of `Rules`. If one is given, events that are open end
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    timezone: str | None = None
    zones: Annotated[Mapping[Name, Zone], Field(max_length=MAX_RULES)] | None = None
    lines: Annotated[Mapping[Name, Line], Field(max_length=MAX_RULES)] | None = None
    rules: Annotated[Mapping[Name, Rule], Field(max_length=MAX_RULES)] | None = None
    clip_before: float | None = Field(default=None, ge=0, le=60)
    clip_after: float | None = Field(default=None, ge=0, le=60)
    events: Annotated[tuple[str, ...], Field(max_length=16)] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What is given, without the source, zones, lines and rules."""
        return self.model_dump(exclude={"source", *Rules.model_fields}, exclude_unset=True)

    def watched_by(self, rules: Rules) -> Rules:
        """Return what a stream with these zones, lines and rules is watched by after the change.

        Raises:
            ValueError: They contradict each other.
        """
        given = self.model_dump(include={*Rules.model_fields}, exclude_unset=True)
        kept = rules.model_dump(include={*Rules.model_fields} - {*given}, exclude_unset=True)
        return Rules.model_validate(kept | {name: value for name, value in given.items() if value is not None})
