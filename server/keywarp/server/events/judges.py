"""Judge rules frame by frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from keywarp.engines import Detections, LabelMap
from keywarp.protocol.events import Direction, Rule, Rules, time_zone
from keywarp.server.events.geometry import crossing, inside, side, zone_mask

LINGER: Final = 2.0  # seconds for which something may be missing without being gone
LONGEST_STEP: Final = 60.0  # seconds from one frame to the next in which nothing is gone that both show
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What a frame shows."""

    seconds: float  # of the stream's clock
    time: datetime  # when the frame reached the server, UTC
    output: Detections | LabelMap
    height: int  # of the frame, pixels
    width: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """What meets a rule on one frame, or has met it so far."""

    class_ids: frozenset[int] = frozenset()
    objects: tuple[int, ...] = ()  # track ids
    count: int = 0
    confidence: float | None = None
    area: float | None = None
    direction: Direction | None = None

    def joined(self, other: "Sighting") -> "Sighting":
        """Return both together."""
        return replace(
            self,
            class_ids=self.class_ids | other.class_ids,
            objects=tuple(dict.fromkeys((*self.objects, *other.objects))),
            count=max(self.count, other.count),
            confidence=_largest(self.confidence, other.confidence),
            area=_largest(self.area, other.area),
        )


@dataclass(slots=True, eq=False)
class Spell:
    """The time in which a rule is met. It becomes an event."""

    start: datetime
    seen: Sighting
    last: float  # when it was last met, seconds of the stream's clock
    end: datetime  # the same, UTC
    over: bool = False


class Judge(Protocol):
    """Judges one rule of one stream."""

    def see(self, scene: Scene) -> Iterator[Spell]:
        """Judge the next frame. Yield each spell that starts or ends on it, as long as it isn't over or just now."""
        ...

    def close(self) -> Iterator[Spell]:
        """Yield the spell that hasn't ended, which ends now."""
        ...


def open_judge(rule: Rule, rules: Rules, class_ids: frozenset[int]) -> Judge:
    """Make the judge of a rule.

    Args:
        rule: The rule.
        rules: The rules that it is one of, with their zones and lines.
        class_ids: The classes that it names.
    """
    hours = _Hours(rule, time_zone(rules.timezone))
    return _Crossings(rule, rules, class_ids, hours) if rule.line else _Presence(rule, rules, class_ids, hours)


class _Hours:
    """The times in which a rule applies."""

    def __init__(self, rule: Rule, zone: tzinfo) -> None:
        self._spans = [tuple(map(_minutes, span.split("-"))) for span in rule.times] or [(0, 24 * 60)]
        self._days = {DAYS.index(day) for day in rule.days or DAYS}
        self._zone = zone

    def __contains__(self, time: datetime) -> bool:
        local = time.astimezone(self._zone)
        minute, today = 60 * local.hour + local.minute, local.weekday()
        for begin, end in self._spans:
            if begin < end:
                if begin <= minute < end and today in self._days:
                    return True
            elif minute >= begin:
                if today in self._days:
                    return True
            elif minute < end and (local - timedelta(days=1)).weekday() in self._days:  # it began the day before
                return True
        return False


@dataclass(slots=True)
class _Stay:
    """How long an object is in a zone."""

    since: float
    last: float


class _Presence:
    """Judges whether enough is in a zone for long enough."""

    def __init__(self, rule: Rule, rules: Rules, class_ids: frozenset[int], hours: _Hours) -> None:
        self._rule = rule
        self._zone = None if rule.zone is None else rules.zones[rule.zone]
        self._class_ids = class_ids
        self._hours = hours
        self._stays: dict[int, _Stay] = {}  # by track id; by 0 of a segmentation
        self._spell: Spell | None = None
        self._free_from = -np.inf  # seconds of the stream's clock from which a spell may start
        self._before = -np.inf  # seconds of the frame before
        self._mask: NDArray[np.bool_] | None = None

    def see(self, scene: Scene) -> Iterator[Spell]:
        now = scene.seconds
        found = self._objects(scene) if isinstance(scene.output, Detections) else self._classes(scene.output, now)
        met = found if found and scene.time in self._hours else None
        spell, before, self._before = self._spell, self._before, now
        linger = LONGEST_STEP if met and spell and spell.last == before else LINGER
        if spell and now - spell.last > linger:
            spell.over, self._spell = True, None
            self._free_from = spell.last + self._rule.cooldown
            yield spell
            spell = None
        if not met:
            return
        if spell:
            spell.seen, spell.last, spell.end = spell.seen.joined(met), now, scene.time
        elif now >= self._free_from:
            self._spell = Spell(scene.time, met, now, scene.time)
            yield self._spell

    def close(self) -> Iterator[Spell]:
        if self._spell:
            self._spell.over = True
            yield self._spell
        self._spell = None

    def _objects(self, scene: Scene) -> Sighting | None:
        """Return the objects that have been in the zone for long enough, or None if they are too few."""
        chosen, anchors, areas = _qualified(scene, self._rule, self._class_ids)
        assert isinstance(scene.output, Detections)
        assert scene.output.track_id is not None
        if self._zone is not None:
            within = inside(self._zone, anchors)
            chosen, areas = chosen[within], areas[within]
        ids = scene.output.track_id[chosen].tolist()
        self._stay(ids, scene.seconds)
        long = [i for i, track in enumerate(ids) if scene.seconds - self._stays[track].since >= self._rule.min_seconds]
        if len(long) < self._rule.min_count:
            return None
        return Sighting(
            frozenset(scene.output.class_id[chosen[long]].tolist()),
            tuple(ids[i] for i in long),
            len(long),
            round(float(scene.output.confidence[chosen[long]].max()), 4),
            round(float(areas[long].max()), 4),
        )

    def _classes(self, output: LabelMap, now: float) -> Sighting | None:
        """Return the classes that have covered enough of the zone for long enough, or None."""
        labels = output.labels
        if self._zone is not None:
            if self._mask is None or self._mask.shape != labels.shape:
                self._mask = zone_mask(self._zone, *labels.shape)
            labels = labels[self._mask]
        counts = np.bincount(labels.ravel(), minlength=256)
        shown = [i for i in self._class_ids if counts[i]]
        area = float(counts[shown].sum()) / max(1, labels.size)
        self._stay([0] if shown and area >= self._rule.min_area else [], now)
        if 0 not in self._stays or self._stays[0].last < now or now - self._stays[0].since < self._rule.min_seconds:
            return None
        return Sighting(frozenset(shown), area=round(area, 4))

    def _stay(self, present: Sequence[int], now: float) -> None:
        for one in present:
            self._stays.setdefault(one, _Stay(now, now)).last = now
        for one in [one for one, stay in self._stays.items() if now - stay.last > LINGER]:
            del self._stays[one]


@dataclass(slots=True)
class _Way:
    """Where an object was last seen on a side of the line."""

    point: tuple[float, float]
    last: float = field(default=0.0)


class _Crossings:
    """Judges whether objects cross a line. Each crossing is a spell without length."""

    def __init__(self, rule: Rule, rules: Rules, class_ids: frozenset[int], hours: _Hours) -> None:
        assert rule.line is not None
        self._rule = rule
        self._line = rules.lines[rule.line]
        self._class_ids = class_ids
        self._hours = hours
        self._ways: dict[int, _Way] = {}  # by track id
        self._free_from = -np.inf

    def see(self, scene: Scene) -> Iterator[Spell]:
        assert isinstance(scene.output, Detections)  # ensured by `Watcher`
        assert scene.output.track_id is not None
        now = scene.seconds
        chosen, anchors, areas = _qualified(scene, self._rule, self._class_ids)
        for i, (x, y), area in zip(chosen.tolist(), anchors.tolist(), areas.tolist(), strict=True):
            track = int(scene.output.track_id[i])
            way = self._ways.get(track)
            direction = crossing(self._line, way.point, (x, y)) if way else None
            if side(self._line, (x, y)):
                self._ways[track] = _Way((x, y), now)
            if not direction or self._rule.direction not in ("both", direction):
                continue
            if now < self._free_from or scene.time not in self._hours:
                continue
            self._free_from = now + self._rule.cooldown
            score = round(float(scene.output.confidence[i]), 4)
            class_ids = frozenset([int(scene.output.class_id[i])])
            seen = Sighting(class_ids, (track,), 1, score, round(area, 4), direction)
            yield Spell(scene.time, seen, now, scene.time, over=True)
        for track in [track for track, way in self._ways.items() if now - way.last > 30 * LINGER]:
            del self._ways[track]

    def close(self) -> Iterator[Spell]:
        yield from ()


def _qualified(
    scene: Scene, rule: Rule, class_ids: frozenset[int]
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Return the objects with an id that a rule is about.

    Returns:
        Their numbers, (n,); where they stand, the middle of their boxes' lower sides, (n, 2); and their areas, (n,).
        Places and areas are shares of the frame.
    """
    found = scene.output
    assert isinstance(found, Detections)
    assert found.track_id is not None
    boxes = found.xyxy.astype(np.float64) / [scene.width, scene.height, scene.width, scene.height]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    wanted = (found.track_id > 0) & (found.confidence >= rule.min_confidence) & (areas >= rule.min_area)
    wanted &= np.isin(found.class_id, [*class_ids])
    chosen = np.flatnonzero(wanted)
    anchors = np.stack([boxes[chosen, ::2].mean(axis=1), boxes[chosen, 3]], axis=1)
    return chosen, np.clip(anchors, 0, 1 - 1e-9), areas[chosen]


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)


def _largest(first: float | None, second: float | None) -> float | None:
    known = [one for one in (first, second) if one is not None]
    return max(known, default=None)
