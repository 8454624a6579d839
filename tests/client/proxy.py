"""A TCP proxy that cuts connections, as networks and real proxies do."""

import socket
import struct
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset at once


class CuttingProxy:
    """A proxy that passes bytes on to a server until a test cuts the connections.

    Attributes:
        address: The address to give to a client.
        connections: The number of connections so far.
    """

    def __init__(self, server: str, cut_after: tuple[int, ...] = ()) -> None:
        """Listen on a free port.

        Args:
            server: The server's address.
            cut_after: For the first connection, the second and so on, the bytes of the server after which it is cut.
        """
        parts = urlsplit(server)
        assert parts.hostname
        assert parts.port
        self._server = (parts.hostname, parts.port)
        self._cut_after = list(cut_after)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []  # client's end, server's end
        self._held: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def cut(self, *, hold: bool = False) -> None:
        """Reset all connections. With `hold`, the server's ends stay open until the next connection has ended."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            for client, server in pairs:
                _reset(client)
                if hold:
                    self._held.append(server)
                else:
                    _reset(server)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._server)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._pairs.append((client, server))
            limit = self._cut_after.pop(0) if self._cut_after else None
            for source, sink, most in ((client, server, None), (server, client, limit)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, most))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, most: int | None) -> None:
        try:
            while data := source.recv(2**16 if most is None else min(most, 2**16)):
                sink.sendall(data)
                if most is not None:
                    most -= len(data)
                    if most == 0:
                        break
        except OSError:
            pass
        with self._lock:
            if source in self._held or sink in self._held:
                return  # cut, with the server's end still open
            held, self._held = self._held, []
            for end in (source, sink, *held):
                _reset(end)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.cut()
        for end in self._held:
            _reset(end)
        for thread in self._threads:
            thread.join()


def _reset(end: socket.socket) -> None:
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RD)  # wakes a thread that waits for it
    except OSError:
        pass
    end.close()
