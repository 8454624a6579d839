"""All streams: limited in number, found by id, expired when idle."""

import asyncio
import logging
import secrets
from collections.abc import Iterator

from keywarp.protocol import StreamOptions
from keywarp.server.errors import StreamConflictError, TooManyStreamsError, UnknownStreamError
from keywarp.server.models.replicas import Replica
from keywarp.server.security.quotas import Quota
from keywarp.server.streams.schedule import Pacing
from keywarp.server.streams.stream import Stream, Workshop

log = logging.getLogger(__name__)


class Streams:
    """All streams by id."""

    def __init__(self, limit: int, idle_timeout: float) -> None:
        """Make an empty registry.

        Args:
            limit: How many streams there may be at once.
            idle_timeout: Seconds without a frame after which `expire` removes a stream.
        """
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._streams: dict[str, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def __getitem__(self, id_: str) -> Stream:
        """The stream of this id.

        Raises:
            UnknownStreamError: There is none.
        """
        stream = self.get(id_)
        if stream is None:
            raise UnknownStreamError(f"there is no stream {id_[:64]!r}")
        return stream

    def get(self, id_: str) -> Stream | None:
        """The stream of this id, if there is one."""
        return self._streams.get(id_)

    def create(
        self,
        id_: str | None,
        replica: Replica,
        pacing: Pacing,
        options: StreamOptions,
        workshop: Workshop,
        owner: Quota,
    ) -> Stream:
        """Add a stream.

        Args:
            id_: None: a random one.
            replica: Of the stream's model.
            pacing: How its key frames are placed.
            options: What was asked for.
            workshop: Where its frames are processed.
            owner: Of the key that asks for it.

        Raises:
            StreamConflictError: There is one of this id.
            TooManyStreamsError: There are as many as there may be.
        """
        id_ = id_ or secrets.token_hex(8)
        if id_ in self._streams:
            raise StreamConflictError(f"there is already a stream {id_!r}")
        if len(self._streams) >= self._limit:
            raise TooManyStreamsError(
                f"the server has its {self._limit} streams: delete one, or try again later", "max_streams"
            )
        stream = Stream(id_, replica, pacing, options, workshop, owner)
        self._streams[id_] = stream
        return stream

    async def remove(self, stream: Stream, because: str) -> None:
        """Remove and close a stream; nothing happens if that was done already."""
        if self._streams.get(stream.id) is stream:
            del self._streams[stream.id]
            await stream.close(because)

    async def expire(self) -> None:
        """Remove streams that got idle, forever."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_timeout / 4))
            for stream in self:
                if stream.idle > self._idle_timeout:
                    log.info("stream %s expired", stream.id)
                    await self.remove(stream, f"stream {stream.id!r} expired: {self._idle_timeout:g} s without a frame")

    async def close(self) -> None:
        """Remove all streams."""
        for stream in self:
            await self.remove(stream, "the server stops")
