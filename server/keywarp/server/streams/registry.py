"""The registry of streams: it limits their number, finds them by id, and removes idle ones."""

import asyncio
import logging
import secrets
from collections.abc import Iterator
from typing import Final

from keywarp.engines.memory import release_unused_memory
from keywarp.protocol import StreamOptions
from keywarp.server.errors import StreamConflictError, TooManyStreamsError, UnknownStreamError
from keywarp.server.models.replicas import Replica
from keywarp.server.security.quotas import Quota
from keywarp.server.streams.context import StreamContext
from keywarp.server.streams.schedule import ScheduleOptions
from keywarp.server.streams.stream import Stream

log = logging.getLogger(__name__)

RELEASE_PERIOD: Final = 5.0  # seconds between two times at which memory of streams that ended is given back


class StreamRegistry:
    """All streams by id."""

    def __init__(self, limit: int, idle_timeout: float) -> None:
        """Make an empty registry.

        Args:
            limit: The most streams at once.
            idle_timeout: Seconds without a frame after which `expire` removes a stream.
        """
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._streams: dict[str, Stream] = {}
        self._removed = 0  # streams since memory was given back

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def __getitem__(self, id_: str) -> Stream:
        """Return a stream by its id.

        Raises:
            UnknownStreamError: There is no stream with this id.
        """
        stream = self.get(id_)
        if stream is None:
            raise UnknownStreamError(f"there is no stream {id_[:64]!r}")
        return stream

    def get(self, id_: str) -> Stream | None:
        """Return a stream by its id, or None if there is none."""
        return self._streams.get(id_)

    def create(
        self,
        id_: str | None,
        replica: Replica,
        schedule: ScheduleOptions,
        options: StreamOptions,
        context: StreamContext,
        owner: Quota,
    ) -> Stream:
        """Add a stream.

        Args:
            id_: The stream's id, or None for a random one.
            replica: The replica of the stream's model that processes its frames.
            schedule: The stream's key schedule.
            options: The options that the client asked for.
            context: The objects that all streams share.
            owner: The quota of the API key that asked for the stream.

        Raises:
            StreamConflictError: There is already a stream with this id.
            TooManyStreamsError: The server's limit of streams is reached.
        """
        id_ = id_ or secrets.token_hex(8)
        if id_ in self._streams:
            raise StreamConflictError(f"there is already a stream {id_!r}")
        if len(self._streams) >= self._limit:
            raise TooManyStreamsError(
                f"the server has its {self._limit} streams: delete one, or try again later", "max_streams"
            )
        stream = Stream(id_, replica, schedule, options, context, owner)
        self._streams[id_] = stream
        return stream

    async def remove(self, stream: Stream, reason: str, *, expired: bool = False) -> None:
        """Remove and close a stream. Removing it again does nothing."""
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
            await stream.close(reason, expired=expired)
            self._removed += 1

    async def expire(self) -> None:
        """Keep removing idle streams. This never returns."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout / 4))
            await self._remove_idle()

    async def release_memory(self) -> None:
        """Keep giving memory back to the system in which streams were that ended. This never returns.

        glibc keeps what is freed in pools of several threads. After 10,000 streams that came and went, a sixth of the
        server's memory was such. Meanwhile threads may wait for a pool, up to 60 ms on a busy machine, so that it must
        wait until no stream is left.
        """
        while True:
            await asyncio.sleep(RELEASE_PERIOD)
            if self._removed and not self._streams:
                self._removed = 0
                await asyncio.to_thread(release_unused_memory)

    async def _remove_idle(self) -> None:
        # Not part of the endless loop, whose variable would keep the last stream and its engine from being freed.
        for stream in self:
            if stream.idle > self._idle_timeout:
                log.info("stream %s expired", stream.id)
                await self.remove(
                    stream, f"stream {stream.id!r} expired: {self._idle_timeout:g} s without a frame", expired=True
                )

    async def close(self) -> None:
        """Remove all streams."""
        for stream in self:
            await self.remove(stream, "the server stops")
