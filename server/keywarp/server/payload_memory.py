"""The memory of payloads that have arrived and aren't decoded yet, of all connections together."""

import asyncio

from keywarp.server.errors import OverloadError


class PayloadMemory:
    """Counts the bytes of payloads. Beyond a limit, connections wait, and bodies are refused.

    Attributes:
        used: Bytes.
    """

    def __init__(self, limit: int) -> None:
        """Begin with nothing.

        Args:
            limit: The most bytes, besides one payload of each connection.
        """
        self._limit = limit
        self._freed = asyncio.Event()
        self.used = 0

    def add(self, size: int) -> None:
        """Count a piece of a body.

        Raises:
            OverloadError: There is no room for it.
        """
        if self.used + size > self._limit:
            raise OverloadError("the server has no memory for more payloads: try again later")
        self.used += size

    async def wait(self, size: int, held: int) -> None:
        """Count a payload of a connection, once there is room or the connection holds no other.

        Args:
            size: Its bytes.
            held: Bytes of payloads that the connection holds already.
        """
        while held and self.used + size > self._limit:
            self._freed.clear()
            await self._freed.wait()
        self.used += size

    def free(self, size: int) -> None:
        """Count bytes no longer, and let others go on."""
        self.used -= size
        self._freed.set()
