"""The cameras that the server starts by itself: those of the site file, and those that were added while it ran."""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from pydantic import ValidationError

from keywarp.protocol import CameraOptions, Changes, ChangeStream, CreateStream, StreamOptions, faults
from keywarp.protocol.events import Rules
from keywarp.protocol.messages import Origin
from keywarp.server.camera_store import CameraStore, StoredCamera
from keywarp.server.decode.sources import SourceUrl
from keywarp.server.errors import (
    BadMessageError,
    CameraStoreError,
    DrainingError,
    InternalError,
    ServerError,
    SiteError,
)
from keywarp.server.leases import Leases
from keywarp.server.pulls import Pulls
from keywarp.server.security.pull_hosts import AllowList
from keywarp.server.security.quotas import UNLIMITED, Quota
from keywarp.server.service import Service
from keywarp.server.site import SiteStream
from keywarp.server.streams.stream import Stream
from keywarp.server.telemetry.metrics import CameraReading

log = logging.getLogger(__name__)

ROUND: Final = 0.25  # seconds after which a server looks again which cameras it should have
WAIT_AFTER_FAILURE: Final = 30.0  # seconds after which a server tries again to start a camera that it couldn't start


class Cameras:
    """All pulled streams that a restart starts again.

    The site file has precedence: a camera that it names is as it says, whatever was added under that name before.
    """

    def __init__(self, service: Service, pulls: Pulls) -> None:
        """Open the database of cameras, if the settings name a folder.

        Raises:
            CameraStoreError: The database can't be opened.
            SiteError: The folder of leases can't be used.
        """
        self._service = service
        self._pulls = pulls
        self._site = dict(service.site.streams)
        self._store = CameraStore(service.settings.data) if service.settings.data else None
        self._stored: dict[str, StoredCamera] = {}
        self._leases = Leases(service.settings.leases) if service.settings.leases else None
        self._sharing = asyncio.Lock()  # held while it is decided which cameras this server has
        self._waits: dict[str, float] = {}  # until when cameras aren't tried again here; monotonic seconds
        self._failed: dict[str, str] = {}  # why cameras of the site couldn't be started, by name
        self._tasks: set[asyncio.Task[None]] = set()
        service.metrics.watch_cameras(self._readings)

    async def start(self) -> None:
        """Start all cameras, once the models are ready. A camera of the site that can't be started ends the server.

        If several servers share the site's cameras, this starts and ends cameras until the server stops, and goes on
        without those that can't be started.
        """
        try:
            self._stored = await self._store.read() if self._store else {}
        except CameraStoreError as error:
            self._service.failure = error
            return
        await self._service.loaded.wait()
        if self._service.failure:
            return
        try:
            for name, planned in self._site.items() if not self._leases else ():
                await self._start_planned(name, planned)
        except DrainingError:
            return
        except ServerError as error:
            self._service.failure = SiteError(f"{self._service.settings.site}: streams.{name}: {error}")
            return
        for name, camera in tuple(self._stored.items()):
            if name in self._site:
                log.warning("camera %s: the site file replaces the one that was added while the server ran", name)
                await self._forget(name)
            else:
                await self._start_stored(name, camera)
        if self._leases:
            await self._share_out(self._leases)

    async def add(self, request: CreateStream, owner: Quota) -> Stream:
        """Start to pull a stream, and keep it for the next start of the server.

        Raises:
            BadMessageError: The source isn't a URL, or streams can't be pulled from it.
            SourceForbiddenError: The source's host isn't on the allow-list.
            ServerError: As `Service.create_stream` raises it.
            InternalError: The stream can't be kept.
        """
        assert request.source is not None
        source = SourceUrl.parse(request.source)
        await self._pulls.check_allowed(source)
        options, rules = source.with_default_mode(request), request.watched_by
        stream = await self._service.create_watched(options, request.id, rules, owner)
        if self._store:
            self._stored[stream.id] = StoredCamera(request=request.unwatched(), owner=owner.name, rules=stream.rules)
            try:
                await self._save(stream.id)
            except InternalError:
                await self.remove(stream)
                raise
        self._pull(stream, source, "stored" if self._store else None)
        return stream

    async def change(self, stream: Stream, changes: ChangeStream) -> None:
        """Change the options and the rules of any running stream, and keep them for the next start of the server.

        Raises:
            BadMessageError: The options or the rules contradict each other or don't fit the model, there is no such
                sink, or the source isn't a URL to pull from. Nothing has changed.
            SourceForbiddenError: The source's host isn't on the allow-list.
            NotPulledError: A new source is given, but the stream isn't pulled, or its pull has ended.
            InternalError: The options can't be kept.
        """
        given = changes.model_fields_set
        pull = self._pulls[stream] if "source" in given else self._pulls.get(stream)
        source = pull.source if pull else None
        if pull and "source" in given:
            source = SourceUrl.parse(changes.source or "")
            await pull.check_allowed(source)
        rules = None
        if not given.isdisjoint(Rules.model_fields):
            try:
                rules = changes.watched_by(stream.rules)
            except ValidationError as error:
                raise BadMessageError(faults.describe(error, limit=1)) from error
            self._service.check_rules(stream, rules)
        before = stream.options.model_dump(include=set(CameraOptions.model_fields))
        options = CameraOptions.model_validate(before | changes.options)
        await self._service.change_stream(stream, source.with_default_mode(options) if source else options)
        if rules:
            await self._service.watch_stream(stream, rules)
        if pull and source and source != pull.source:
            pull.change_source(source)
        if camera := self._stored.get(stream.id):
            update = changes.options | ({"source": changes.source} if "source" in given else {})
            request = camera.request.model_copy(update=update)
            self._stored[stream.id] = camera.model_copy(update={"request": request, "rules": rules or camera.rules})
            await self._save(stream.id)

    async def set_rules(self, stream: Stream, rules: Rules) -> None:
        """Watch any stream by these rules from now on, and keep them for the next start of the server.

        Raises:
            BadMessageError: The stream's model has no such class, or there is no such sink.
            InternalError: The rules can't be kept.
        """
        await self._service.watch_stream(stream, rules)
        if camera := self._stored.get(stream.id):
            self._stored[stream.id] = camera.model_copy(update={"rules": rules})
            await self._save(stream.id)

    async def remove(self, stream: Stream) -> None:
        """Remove any stream, and don't start it again."""
        await self._service.streams.remove(stream, f"stream {stream.id!r} was deleted")
        await self._forget(stream.id)

    async def apply(self, planned: Mapping[str, SiteStream]) -> tuple[Changes, Mapping[str, str]]:
        """Start, change and remove cameras so that they are as another site file says. Others run on.

        A camera of the file that was deleted meanwhile is started again.

        Returns:
            The names of the cameras that are different from the last file, and why some couldn't be started.
        """
        async with self._sharing:
            return await self._apply(planned)

    async def _apply(self, planned: Mapping[str, SiteStream]) -> tuple[Changes, Mapping[str, str]]:
        old, self._site = self._site, dict(planned)
        changes = Changes.between(old, planned)
        for name in changes.removed:
            await self._stop(name, f"stream {name!r} is no longer in the site file")
        failed: dict[str, str] = {}
        self._waits.clear()
        for name, camera in planned.items():
            if self._leases and name not in self._leases:
                continue
            try:
                stream = self._service.streams.get(name)
                if stream and name in old and old[name] == camera:
                    continue
                if stream and name in old and await self._change_planned(stream, old[name], camera):
                    continue
                if stream:
                    await self.remove(stream)
                await self._forget(name)
                await self._start_planned(name, camera)
            except ServerError as error:
                log.error("camera %s can't be started: %s", name, error)
                failed[name] = str(error)
        self._failed = failed
        return changes, failed

    async def set_paused(self, stream: Stream, *, paused: bool) -> None:
        """Pause or resume a pulled stream.

        Raises:
            NotPulledError: The stream isn't pulled, or its pull has ended.
            InternalError: The state can't be kept for the next start of the server.
        """
        pull = self._pulls[stream]
        if paused:
            pull.pause()
        else:
            pull.resume()
        if camera := self._stored.get(stream.id):
            self._stored[stream.id] = camera.model_copy(update={"paused": paused})
            await self._save(stream.id)

    async def close(self) -> None:
        """Wait until all pulls have ended, and close the database. Call it while the server stops, which ends them."""
        await self._pulls.close()
        if self._leases:
            self._leases.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._store:
            await self._store.close()

    # -- sharing -------------------------------------------------------------------------------------------------------

    async def _share_out(self, leases: Leases) -> None:
        """Pull this server's share of the site's cameras until the server stops."""
        while not self._service.draining.is_set():
            try:
                async with self._sharing:
                    await self._take_turn(leases)
            except (SiteError, OSError) as error:
                log.error("this server goes on with the cameras that it has: %s", error)
                await self._wait(WAIT_AFTER_FAILURE)
            except Exception:
                log.exception("this server goes on with the cameras that it has: internal error")
                await self._wait(WAIT_AFTER_FAILURE)
            await self._wait(ROUND)
        await self._pulls.close()  # others shall have the cameras before this server has drained
        leases.close()

    async def _wait(self, seconds: float) -> None:
        """Wait some time, or until the server stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._service.draining.wait()

    async def _take_turn(self, leases: Leases) -> None:
        now = time.monotonic()
        self._waits = {name: until for name, until in self._waits.items() if until > now}
        moves = await asyncio.to_thread(leases.plan, tuple(self._site))
        if moves.give:
            log.info("camera %s is left to another server", moves.give)
            await self._stop(moves.give, f"another server goes on with camera {moves.give!r}")
        for name in moves.take:
            if name in self._waits or not await asyncio.to_thread(leases.take, name):  # the disk may be busy
                continue
            try:
                await self._start_planned(name, self._site[name])
            except DrainingError:
                leases.give(name)
            except ServerError as error:
                leases.give(name)
                log.error("camera %s can't be started: %s", name, error)
                self._failed[name] = str(error)
                self._waits[name] = now + WAIT_AFTER_FAILURE
            else:
                self._failed.pop(name, None)

    async def _stop(self, name: str, reason: str) -> None:
        """End a camera of the site, and let go of it once it isn't pulled any more."""
        if stream := self._service.streams.get(name):
            await self._service.streams.remove(stream, reason)
            await self._pulls.wait_ended(stream)
        if self._leases:
            self._leases.give(name)

    # -- starting ------------------------------------------------------------------------------------------------------

    async def _start_planned(self, name: str, planned: SiteStream) -> None:
        source = SourceUrl.parse(planned.source)
        stream = await self._service.create_watched(source.with_default_mode(planned), name, planned)
        self._pull(stream, source, "site", self._trusting(source))

    async def _change_planned(self, stream: Stream, old: SiteStream, new: SiteStream) -> bool:
        """Change a running camera of the site. Return False if it has to be started anew."""
        fields = {name for name in SiteStream.model_fields if getattr(old, name) != getattr(new, name)}
        pull = self._pulls.get(stream)
        if not pull or not fields <= {*ChangeStream.model_fields}:
            return False
        source = SourceUrl.parse(new.source)
        await self._service.change_stream(stream, source.with_default_mode(new))
        if not fields.isdisjoint(Rules.model_fields):
            await self._service.watch_stream(stream, new)
        if source != pull.source:
            pull.change_source(source, self._trusting(source))
        return True

    def _trusting(self, source: SourceUrl) -> AllowList:
        """Return the hosts that a camera of the site may connect to."""
        return AllowList(self._service.settings.allow_pull, trusted=source.host)

    async def _start_stored(self, name: str, camera: StoredCamera) -> None:
        """Start a stored camera. One that can't be started stays stored, because the reason may go away."""
        options: StreamOptions = camera.request
        keys = self._service.api_keys
        owner = keys.quota_of(camera.owner) if keys and camera.owner else UNLIMITED
        try:
            source = SourceUrl.parse(camera.request.source or "")
            stream = self._service.create_stream(source.with_default_mode(options), name, owner)
        except ServerError as error:
            log.error("camera %s can't be started: %s", name, error)
            return
        if camera.rules and camera.rules != Rules():
            try:
                await self._service.watch_stream(stream, camera.rules)
            except ServerError as error:
                log.error("camera %s runs without its rules: %s", name, error)
        self._pull(stream, source, "stored")
        if camera.paused:
            self._pulls[stream].pause()

    def _pull(
        self, stream: Stream, source: SourceUrl, configured: Origin | None, allowed: AllowList | None = None
    ) -> None:
        pulling = self._pulls.start(stream, source, allowed, configured=configured)
        pulling.add_done_callback(lambda done: self._pull_ended(stream, done))

    def _pull_ended(self, stream: Stream, done: asyncio.Task[bool]) -> None:
        """Forget a file that was read to its end, which would begin again after a restart."""
        if not done.cancelled() and not done.exception() and done.result() and stream.id in self._stored:
            task = asyncio.create_task(self._forget(stream.id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- the database --------------------------------------------------------------------------------------------------

    async def _save(self, name: str) -> None:
        assert self._store is not None
        try:
            await self._store.write(name, self._stored[name])
        except CameraStoreError as error:
            log.error("camera %s: %s", name, error)
            raise InternalError("the camera can't be kept for the next start: the server's log says why") from error

    async def _forget(self, name: str) -> None:
        if self._stored.pop(name, None) and self._store:
            try:
                await self._store.remove(name)
            except CameraStoreError as error:
                log.error("camera %s: %s", name, error)

    def _readings(self) -> list[CameraReading]:
        """Return the cameras' readings. Those of the site that were deleted, or have ended and expired, have none."""
        readings = []
        for name in (*self._site, *self._stored):
            stream = self._service.streams.get(name)
            if stream and stream.pull:
                age = stream.age if stream.frame_age is None else stream.frame_age
                readings.append(CameraReading(name, stream.pull.state, age))
            elif name in self._stored or name in self._failed:  # it couldn't be started
                readings.append(CameraReading(name, "failed", None))
        return readings
