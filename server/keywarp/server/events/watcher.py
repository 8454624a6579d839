"""Watch one stream by its rules, and make events of what they report."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from keywarp.engines import Detections, FrameResult, LabelMap, Manifest
from keywarp.engines.frames import Frame
from keywarp.engines.stream_clock import StreamClock
from keywarp.protocol.events import Event, Rules
from keywarp.server.errors import BadMessageError
from keywarp.server.events.judges import Judge, Scene, Spell, open_judge
from keywarp.server.overlay import draw

SNAPSHOT_WIDTH: Final = 960  # pixels


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """An event as it is now, with its snapshot if it has just started."""

    event: Event
    jpeg: bytes | None = None


class Watcher:
    """Judges the rules of one stream on each of its frames, in order. It isn't thread-safe."""

    def __init__(self, stream: str, rules: Rules, manifest: Manifest) -> None:
        """Start watching.

        Args:
            stream: The stream's id.
            rules: Its rules.
            manifest: The manifest of its model.

        Raises:
            BadMessageError: The model has no such class, or finds nothing that a rule can be about.
        """
        check_rules(rules, manifest)
        self.rules = rules
        self._stream = stream
        self._manifest = manifest
        self._clock = StreamClock()
        ids = {info.name: info.id for info in manifest.classes if info.id or not _has_background(manifest)}
        self._judges: dict[str, Judge] = {
            name: open_judge(rule, rules, frozenset(ids[one] for one in rule.classes or ids))
            for name, rule in rules.rules.items()
        }
        self._events: dict[Spell, Event] = {}  # those that haven't ended

    def see(self, pixels: Frame, found: FrameResult, timestamp: float | None, time: datetime | None) -> list[Report]:
        """Judge the next frame.

        Args:
            pixels: The frame, RGB (H, W, 3).
            found: Its result, with track ids if the model detects objects.
            timestamp: The producer's timestamp of the frame in seconds.
            time: When the frame reached the server.

        Returns:
            The events that start or end on it.
        """
        assert isinstance(found.output, Detections | LabelMap)  # ensured by `check_rules`
        seconds = self._clock.advance(timestamp)
        scene = Scene(seconds, time or datetime.now(UTC), found.output, found.height, found.width)
        reports: list[Report] = []
        jpeg: bytes | None = None
        for name, judge in self._judges.items():
            for spell in judge.see(scene):
                event, is_new = self._event(name, spell, found.index)
                if is_new and jpeg is None:
                    jpeg = self._draw(pixels, found)
                reports.append(Report(event, jpeg if is_new else None))
        return reports

    def close(self) -> Iterator[Report]:
        """End all events."""
        for name, judge in self._judges.items():
            for spell in judge.close():
                yield Report(self._event(name, spell, 0)[0])

    def _event(self, name: str, spell: Spell, frame: int) -> tuple[Event, bool]:
        """Return the event of a spell, and whether it is a new one."""
        rule, seen = self.rules.rules[name], spell.seen
        before = self._events.pop(spell, None)
        names = {info.id: info.name for info in self._manifest.classes}
        event = Event(
            id=before.id if before else f"{spell.start:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}",
            state="ended" if spell.over else "started",
            stream=self._stream,
            camera=self.rules.title or self._stream,
            rule=name,
            start=spell.start,
            end=max(spell.start, spell.end) if spell.over else None,  # the clock may have been set back meanwhile
            frame=before.frame if before else frame,
            classes=tuple(sorted(names[one] for one in seen.class_ids)),
            zone=rule.zone,
            line=rule.line,
            direction=seen.direction,
            objects=seen.objects,
            count=seen.count,
            confidence=seen.confidence,
            area=seen.area,
        )
        event = event.model_copy(update={"snapshot": f"/v1/events/{event.id}/snapshot"})
        if not spell.over:
            self._events[spell] = event
        return event, before is None

    def _draw(self, pixels: Frame, found: FrameResult) -> bytes:
        manifest = self._manifest
        return draw(pixels, found, manifest.classes, SNAPSHOT_WIDTH, manifest.background, self.rules)


def check_rules(rules: Rules, manifest: Manifest) -> None:
    """Check that a model finds what rules are about.

    Raises:
        BadMessageError: The model has no such class, or finds nothing that a rule can be about.
    """
    if rules.rules and manifest.task == "dense":
        raise BadMessageError(f"rules need a model with classes, and {manifest.name!r} gives maps of numbers")
    known = [info.name for info in manifest.classes if info.id or not _has_background(manifest)]
    for name, rule in rules.rules.items():
        for one in rule.classes:
            if one not in known:
                raise BadMessageError(
                    f"rules.{name}: {manifest.name!r} has no class {one[:64]!r}; it has: {', '.join(known)}"
                )
        if manifest.detection is None and (rule.line is not None or rule.min_count > 1):
            what = "`line`" if rule.line is not None else "`min_count`"
            raise BadMessageError(f"rules.{name}: {what} needs a model that detects objects, not {manifest.name!r}")


def _has_background(manifest: Manifest) -> bool:
    return manifest.task == "detection" or manifest.background
