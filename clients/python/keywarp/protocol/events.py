"""Zones, lines and rules of a camera, and the events that its rules report."""

import re
from collections.abc import Mapping
from datetime import UTC, tzinfo
from itertools import pairwise
from typing import Annotated, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, Field, WithJsonSchema, field_validator, model_validator

from keywarp.protocol.messages import Message, Request

Share = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Share, Share]  # x and y as shares of the frame's width and height, from its top left corner


def _check_zone(corners: tuple[Point, ...]) -> tuple[Point, ...]:
    (x0, y0), *others = corners
    if not any((x1 - x0) * (y2 - y0) != (y1 - y0) * (x2 - x0) for (x1, y1), (x2, y2) in pairwise(others)):
        raise ValueError("nothing can be in this zone: its corners lie on one line")
    return corners


def _check_line(points: tuple[Point, Point]) -> tuple[Point, Point]:
    if points[0] == points[1]:
        raise ValueError("nothing can cross this line: its two points are the same")
    return points


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"a name has 1 to 64 letters, digits, - and _, not {name[:64]!r}")
    return name


def _check_span(span: str) -> str:
    if not TIME_SPAN.fullmatch(span):
        raise ValueError(f"write a time such as `22:00-06:00`, or until midnight `18:00-00:00`, not {span[:64]!r}")
    return span


NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
TIME_SPAN: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)
# Corners; the last is joined to the first
Zone = Annotated[tuple[Point, ...], Field(min_length=3, max_length=64), AfterValidator(_check_zone)]
Line = Annotated[tuple[Point, Point], AfterValidator(_check_line)]
Name = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
Direction = Literal["both", "left", "right"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeSpan = Annotated[  # 22:00-06:00
    str, AfterValidator(_check_span), WithJsonSchema({"type": "string", "pattern": f"^{TIME_SPAN.pattern}$"})
]
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
