"""Zones, lines and rules of a camera, and the events that its rules report."""

from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, Field, field_validator, model_validator

from keywarp.protocol.messages import Message, Request

Share = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Share, Share]  # x and y as shares of the frame's width and height, from its top left corner
Zone = Annotated[tuple[Point, ...], Field(min_length=3, max_length=64)]  # corners; the last is joined to the first
Line = tuple[Point, Point]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Direction = Literal["both", "left", "right"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeSpan = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]  # 22:00-06:00
EventState = Literal["started", "ended"]
MAX_RULES = 64  # of a stream; also the most zones and the most lines


def time_zone(name: str) -> tzinfo:
    """Return a time zone. `UTC` is known everywhere; the others need the system's database.

    Raises:
        KeyError, OSError, ValueError: There is no such zone.
    """
    return UTC if name == "UTC" else ZoneInfo(name)


class Rule(Request):
    """What to report: objects or classes in a zone, or objects that cross a line."""

    classes: tuple[str, ...] = ()  # names; empty: all of the model's
    zone: str | None = None  # where; None: anywhere on the frame
    line: str | None = None  # a line to cross, instead of a zone
    # To which side of the line, seen from its first point to its second; each crossing is an event
    direction: Direction = "both"
    min_confidence: Share = 0.5  # of an object
    # Of an object's box, as a share of the frame; or of a segmentation's classes together, as a share of the zone
    min_area: Share = 0.0
    min_seconds: float = Field(default=0.0, ge=0, le=86400)  # for how long each object, or the classes, must be there
    min_count: int = Field(default=1, ge=1, le=1000)  # how many objects must be there at the same time
    cooldown: float = Field(default=0.0, ge=0, le=86400)  # seconds after an event in which no other begins
    times: Annotated[tuple[TimeSpan, ...], Field(max_length=16)] = ()  # of the day; empty: always
    days: tuple[Day, ...] = ()  # on which a time begins; empty: all

    @model_validator(mode="after")
    def _check_line(self) -> Self:
        if self.line is None and self.direction != "both":
            raise ValueError("`direction` needs a `line`")
        if self.line is not None and (self.zone is not None or self.min_seconds or self.min_count > 1):
            raise ValueError("a rule with a `line` can't have `zone`, `min_seconds` or `min_count`")
        return self


class Rules(Request):
    """The zones, lines and rules of one camera."""

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None  # its name for people; None: its id
    timezone: str = "UTC"  # of the rules' times, such as `Europe/Berlin`
    zones: Annotated[Mapping[Name, Zone], Field(max_length=MAX_RULES)] = {}
    lines: Annotated[Mapping[Name, Line], Field(max_length=MAX_RULES)] = {}
    rules: Annotated[Mapping[Name, Rule], Field(max_length=MAX_RULES)] = {}
    # Seconds of the clip before and after the start of each event, for pulled streams; 0 after it: no clips
    clip_before: float = Field(default=5.0, ge=0, le=60)
    clip_after: float = Field(default=0.0, ge=0, le=60)
    events: Annotated[tuple[str, ...], Field(max_length=16)] = ()  # the server's sinks that get the events

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
        try:
            time_zone(name)
        except (KeyError, OSError, ValueError) as error:  # `KeyError`: not found
            raise ValueError(f"there is no time zone {name[:64]!r}: write one such as `Europe/Berlin`") from error
        return name

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        for name, rule in self.rules.items():
            for kind, place, places in (("zone", rule.zone, self.zones), ("line", rule.line, self.lines)):
                if place is not None and place not in places:
                    known = ", ".join(places) or "none"
                    raise ValueError(f"rules.{name}: there is no {kind} {place[:64]!r}; there are: {known}")
        return self


class Event(Message):
    """Something that a rule reports. It is sent when it starts and, with the same id, when it ends."""

    type: Literal["event"] = "event"
    id: str  # unlike that of any other event
    state: EventState
    stream: str
    camera: str  # its name for people
    rule: str
    start: AwareDatetime  # UTC, like the next
    end: AwareDatetime | None = None  # None until it has ended
    frame: int  # on which it started
    classes: tuple[str, ...]  # that were seen, in the order of their names
    zone: str | None = None
    line: str | None = None
    direction: Direction | None = None  # of a crossing: `left` or `right`
    objects: tuple[int, ...] = ()  # their track ids so far
    count: int = 0  # the most objects at the same time
    confidence: float | None = None  # the highest of an object
    area: float | None = None  # the largest, as `Rule.min_area` measures it
    snapshot: str | None = None  # path on the server of a JPEG of the frame on which it started
    clip: str | None = None  # path on the server of a video of the seconds around its start, soon after them
    snapshot_jpeg: str | None = None  # the snapshot in base64, in messages to webhooks
