"""Stand between FFmpeg and a camera, because FFmpeg follows redirects of RTSP, wherever they lead.

FFmpeg connects to a port of this machine, and its bytes go to the address that was checked. What comes back is read as
FFmpeg reads it (`ff_rtsp_read_reply`), and its headers are written anew, so that both see the same.
"""

import contextlib
import re
import selectors
import socket
import threading
from typing import Final

from keywarp.server.errors import PullError

MAX_LINE: Final = 4096  # bytes of a header's line, as in FFmpeg
MAX_BODY: Final = 2**20  # bytes of a description
_STATUS: Final = re.compile(rb"RTSP/1\.[01] (\d{3})(?: .*)?")
_SMALLEST: Final = 8  # bytes of a packet; FFmpeg takes those of smaller ones for text
_CHUNK: Final = 2**16


class Responses:
    """Checks what a camera sends: responses, and packets between them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._rest = 0  # bytes of a packet or body that pass as they are
        self._length = 0  # of the body after the header that is being read

    def feed(self, data: bytes) -> bytes:
        """Return what may be passed on so far.

        Raises:
            PullError: The camera redirects, or doesn't speak RTSP.
        """
        self._buffer += data
        passed = bytearray()
        while self._buffer:
            if self._rest:
                piece = self._buffer[: self._rest]
                passed += piece
                self._rest -= len(piece)
                del self._buffer[: len(piece)]
            elif self._buffer[0] == ord("$"):
                if len(self._buffer) < 4:
                    break
                size = int.from_bytes(self._buffer[2:4], "big")
                if size < _SMALLEST:
                    raise PullError(f"the camera sends a packet of {size} bytes, which is none of RTP")
                self._rest = 4 + size
            elif (end := self._buffer.find(b"\n")) >= 0:
                passed += self._line(bytes(self._buffer[:end]).replace(b"\r", b""))
                del self._buffer[: end + 1]
            elif len(self._buffer) > MAX_LINE:
                raise PullError("the camera doesn't speak RTSP")
            else:
                break
        return bytes(passed)

    def _line(self, line: bytes) -> bytes:
        """Check a line of a header, and return it as it is passed on."""
        name, _, value = line.partition(b":")
        if b"\0" in line or len(line) > MAX_LINE:
            raise PullError("the camera doesn't speak RTSP")
        if line.startswith(b"RTSP/"):
            status = _STATUS.fullmatch(line)
            if status is None:
                raise PullError("the camera doesn't speak RTSP")
            if status[1].startswith(b"3"):
                raise PullError(
                    "the camera redirects, which isn't followed: pull from the address that it redirects to",
                    lasting=True,
                )
        match name.lower():
            case b"location":
                return b""
            case b"content-length":
                if not value.strip().isdigit() or int(value) > MAX_BODY:
                    raise PullError("the camera sends a description of a wrong size")
                self._length = int(value)
                return b""
        if line:
            return line + b"\r\n"
        self._rest, self._length = self._length, 0
        return b"Content-Length: %d\r\n\r\n" % self._rest if self._rest else b"\r\n"


class RtspRelay(threading.Thread):
    """Passes bytes between FFmpeg, which connects to `port` of this machine, and a camera.

    Attributes:
        port: The port.
        fault: Why the connection was cut, or None.
    """

    def __init__(self, address: str, port: int, timeout: float) -> None:
        """Connect to the camera, and listen.

        Args:
            address: The camera's address, which was checked.
            port: Its port.
            timeout: Seconds to connect.

        Raises:
            PullError: The camera can't be reached.
        """
        super().__init__(name="keywarp-rtsp", daemon=True)
        try:
            self._camera = socket.create_connection((address, port), timeout)
        except OSError as error:
            raise PullError(f"the source can't be read: {error.strerror or 'Connection timed out'}") from error
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self._listener.settimeout(timeout)
        self._camera.settimeout(None)
        self.port: int = self._listener.getsockname()[1]
        self.fault: PullError | None = None

    def run(self) -> None:
        """Pass bytes on until one end closes."""
        try:
            with self._listener:
                client, _ = self._listener.accept()
            with client:
                self._pass(client)
        except PullError as error:
            self.fault = error
        except OSError:
            pass  # closed
        finally:
            self._camera.close()

    def close(self) -> None:
        """End the connections."""
        for one in (self._camera, self._listener):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self.is_alive():
            self.join()

    def _pass(self, client: socket.socket) -> None:
        responses = Responses()
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(self._camera, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is client:
                        if not (data := client.recv(_CHUNK)):
                            return
                        self._camera.sendall(data)
                    elif data := self._camera.recv(_CHUNK):
                        client.sendall(responses.feed(data))
                    else:
                        return
