"""Stand between FFmpeg and a camera, because FFmpeg follows redirects of RTSP, wherever they lead.

FFmpeg connects to a port of this machine, and its bytes go to the address that was checked, for `rtsps` through TLS.
What comes back is read as FFmpeg reads it (`ff_rtsp_read_reply`), and its headers are written anew, so that both see
the same.
"""

import contextlib
import re
import selectors
import socket
import ssl
import threading
from typing import Final

from keywarp.server.errors import PullError

MAX_LINE: Final = 4096  # bytes of a header's line, as in FFmpeg
MAX_BODY: Final = 2**20  # bytes of a description
_STATUS: Final = re.compile(rb"RTSP/1\.[01] (\d{3})(?: .*)?")
_SMALLEST: Final = 8  # bytes of a packet; FFmpeg takes those of smaller ones for text
_CHUNK: Final = 2**16
_OLD_SERVERS: Final = getattr(ssl, "OP_LEGACY_SERVER_CONNECT", 0x4)  # named in Python 3.12


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

    def __init__(self, address: str, port: int, timeout: float, *, tls: str | None = None) -> None:
        """Connect to the camera, and listen.

        Args:
            address: The camera's address, which was checked.
            port: Its port.
            timeout: Seconds to connect.
            tls: The camera's name, to speak TLS with it; None for a camera without TLS.

        Raises:
            PullError: The camera can't be reached, or doesn't speak TLS.
        """
        super().__init__(name="keywarp-rtsp", daemon=True)
        try:
            self._camera = socket.create_connection((address, port), timeout)
            if tls is not None:
                self._camera = _begin_tls(self._camera, tls)
        except ssl.SSLError as error:
            reason = (error.reason or "unknown").replace("_", " ").lower()
            raise PullError(f"the source can't be read: TLS fails ({reason})") from error
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
                try:
                    self._pass(client)
                except PullError as error:
                    self.fault = error  # before FFmpeg sees the end
        except OSError:
            pass  # closed
        finally:
            self._camera.close()

    def close(self) -> None:
        """End the connections."""
        for one in (self._camera, self._listener):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)  # that of a TLS socket isn't for two threads
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
                    elif (received := self._receive()) is not None:
                        if not received:
                            return
                        client.sendall(responses.feed(received))

    def _receive(self) -> bytes | None:
        """Return what the camera has sent, nothing at the end, or None if it is only a part of a TLS record."""
        self._camera.setblocking(False)
        try:
            return self._camera.recv(_CHUNK)  # a record has at most 16 KiB, so that nothing is left
        except ssl.SSLWantReadError:
            return None
        finally:
            self._camera.setblocking(True)


def _begin_tls(camera: socket.socket, name: str) -> socket.socket:
    """Speak TLS with a camera. Its certificate isn't checked, and old cameras' TLS is good enough."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.options |= _OLD_SERVERS
    try:
        return context.wrap_socket(camera, server_hostname=name)
    except BaseException:
        camera.close()
        raise
