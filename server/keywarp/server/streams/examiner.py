"""What is looked for in a stream's results: the identity of objects, and what rules report."""

import asyncio
import base64
import logging
from concurrent.futures import Executor
from typing import Final

from keywarp.engines import FrameResult, Manifest
from keywarp.engines.tracks import Tracker
from keywarp.protocol.events import Event, Rules
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.recorder import Recorder
from keywarp.server.errors import EventStoreError
from keywarp.server.events.watcher import Report, Watcher
from keywarp.server.streams.context import StreamContext
from keywarp.server.streams.subscribers import Subscribers

log = logging.getLogger(__name__)

NO_RULES: Final = Rules()


class Examiner:
    """Tracks the objects of one stream, judges its rules, and keeps and publishes what they report.

    Attributes:
        events: The subscribers of the events by the present rules.
        recorder: Keeps the packets of a pulled stream whose events have clips, or None; from its next connection on.
    """

    def __init__(self, stream: str, manifest: Manifest, context: StreamContext, pool: Executor, *, track: bool) -> None:
        """Begin without rules.

        Args:
            stream: The stream's id.
            manifest: The manifest of its model.
            context: The objects that all streams share.
            pool: The threads on which frames are examined.
            track: Whether objects are tracked even if no rule needs that.
        """
        self.events: Subscribers[Event] = Subscribers()
        self.recorder: Recorder | None = None
        self._stream = stream
        self._manifest = manifest
        self._metrics = context.metrics
        self._store = context.events
        self._pool = pool
        self._watcher: Watcher | None = None
        self._tracker: Tracker | None = None
        self._judging = asyncio.Lock()  # held while a frame is judged, or rules change: events have an order
        self._clips: set[asyncio.Task[None]] = set()  # that are being written
        self._with_clips: set[str] = set()  # ids of open events that have, or will have, a clip
        self.set_track(track)

    @property
    def rules(self) -> Rules:
        """The zones, lines and rules."""
        return self._watcher.rules if self._watcher else NO_RULES

    @property
    def tracks(self) -> bool:
        """Whether objects are tracked."""
        return self._tracker is not None

    def set_track(self, track: bool) -> None:
        """Track objects from now on, or only if the rules want that."""
        self._track = track
        if not (track or self.rules.rules):
            self._tracker = None
        elif self._tracker is None:
            self._tracker = self._open_tracker()

    async def watch(self, rules: Rules) -> None:
        """Watch by rules from now on, instead of those before, whose events end.

        Raises:
            BadMessageError: The model has no such class, or finds nothing that a rule can be about.
        """
        watcher = Watcher(self._stream, rules, self._manifest)
        async with self._judging:
            self._close_events()
            self._watcher = watcher
            if not rules.clip_after:
                self.recorder = None
            elif self.recorder:  # it goes on: the decoder may be using it
                self.recorder.resize(rules.clip_before, rules.clip_after)
            else:
                self.recorder = Recorder(rules.clip_before, rules.clip_after)
            if rules.rules and self._tracker is None:
                self._tracker = self._open_tracker()
            self.events.close()  # ends the deliveries by the rules before
            self.events = Subscribers()

    def move(self, manifest: Manifest) -> None:
        """Go on with another version of the model. No event may be open.

        Raises:
            BadMessageError: The version lacks what the rules name. Everything stays as it is.
        """
        watcher = Watcher(self._stream, self.rules, manifest) if self._watcher else None
        self._manifest, self._watcher, self._tracker = manifest, watcher, None
        self.set_track(self._track)

    async def examine(self, frame: DecodedFrame, found: FrameResult) -> FrameResult:
        """Track the objects of the next frame, judge the rules, and report what they say.

        Returns:
            The result, with the objects' track ids.
        """
        if not (self._tracker or self._watcher):
            return found
        # Whoever waits may be cancelled, but what a rule has said is reported nevertheless.
        return await asyncio.shield(self._examine(frame, found))

    async def end_events(self) -> None:
        """End all open events."""
        async with self._judging:
            self._close_events()

    async def end(self) -> None:
        """End all events, so that none starts any more, and wait until their clips are written."""
        async with self._judging:
            self._close_events()
            self._watcher = None
        if self._clips:
            await asyncio.wait(self._clips)

    async def _examine(self, frame: DecodedFrame, found: FrameResult) -> FrameResult:
        def judge() -> tuple[FrameResult, list[Report]]:
            tracked = self._tracker.update(found, frame.timestamp) if self._tracker else found
            watcher = self._watcher
            reports = watcher.see(frame.pixels, tracked, frame.timestamp, frame.received) if watcher else []
            return tracked, reports

        async with self._judging:
            tracked, reports = await asyncio.get_running_loop().run_in_executor(self._pool, judge)
            for report in reports:
                self._report(report)
        return tracked

    def _open_tracker(self) -> Tracker | None:
        detection = self._manifest.detection
        return Tracker(detection.threshold) if detection else None

    def _close_events(self) -> None:
        for report in self._watcher.close() if self._watcher else ():
            self._report(report)

    def _report(self, report: Report) -> None:
        """Keep an event, and publish it."""
        event = report.event
        if report.jpeg and self.recorder:
            loop, id_ = asyncio.get_running_loop(), event.id
            if self.recorder.request(lambda mp4: loop.call_soon_threadsafe(self._keep_clip, id_, mp4)):
                self._with_clips.add(id_)
        if event.id in self._with_clips:
            event = event.model_copy(update={"clip": f"/v1/events/{event.id}/clip"})
            if event.state == "ended":
                self._with_clips.discard(event.id)
        log.info("stream %s, rule %s: event %s %s", self._stream, event.rule, event.id, event.state)
        self._metrics.count_event(event.rule, event.state)
        self._store.write(Report(event, report.jpeg))
        if report.jpeg:
            event = event.model_copy(update={"snapshot_jpeg": base64.b64encode(report.jpeg).decode("ascii")})
        self.events.publish(event)

    def _keep_clip(self, id_: str, mp4: bytes) -> None:
        task = asyncio.create_task(self._write_clip(id_, mp4))
        self._clips.add(task)
        task.add_done_callback(self._clips.discard)

    async def _write_clip(self, id_: str, mp4: bytes) -> None:
        try:
            await self._store.write_clip(id_, mp4)
        except EventStoreError as error:
            log.error("stream %s: the clip of event %s isn't kept: %s", self._stream, id_, error)
