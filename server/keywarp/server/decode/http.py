"""Files over HTTP for FFmpeg, so that all it opens, as playlists and redirects say, is looked at first."""

import base64
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from keywarp.server.errors import SourceError, SourceForbiddenError
from keywarp.server.security.pull_hosts import AllowList

MAX_REDIRECTS: Final = 5
PATIENCE: Final = 3  # timeouts without a picture
PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class HttpFiles:
    """Opens files over HTTP and HTTPS, at allowed addresses only.

    Attributes:
        finite: The file that was opened last has said how long it is.
        fault: Why the last one ended early: FFmpeg is told of the end only.
        stopped: Nothing more is to be read.
    """

    def __init__(self, allowed: AllowList, timeout: float) -> None:
        """Nothing is opened yet.

        Args:
            allowed: Where connections may go.
            timeout: Seconds to connect, and to wait for the next bytes.
        """
        self.finite = False
        self.stopped = False
        self._patience = PATIENCE * timeout
        self._shown = time.monotonic()
        self.fault: SourceError | SourceForbiddenError | None = None
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        self._pool = httpcore.ConnectionPool(network_backend=_Checked(allowed))

    def open(self, url: str, flags: int = 0, options: object = None) -> "HttpFile":  # noqa: ARG002 - PyAV's `io_open`
        """Open a file.

        Raises:
            SourceForbiddenError: It lies, or is redirected to, where connections aren't allowed to.
            SourceError: It can't be had.
        """
        try:
            return HttpFile(self, url)
        except (SourceError, SourceForbiddenError) as error:
            self.fault = error
            raise

    def show(self) -> None:
        """Tell that a picture came of what was read."""
        self._shown = time.monotonic()

    def check(self) -> None:
        """Look whether to go on.

        Raises:
            SourceError: Reading was stopped, or there has been no picture for long, whatever else came.
        """
        if self.stopped:
            raise SourceError("it was stopped")
        if time.monotonic() - self._shown > self._patience:
            raise SourceError(f"no picture came for {self._patience:g} s")

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def get(self, url: str, start: int, opened: ExitStack) -> httpcore.Response:
        """Ask for a file from a byte on, through redirects; raises as `open`."""
        for _ in range(MAX_REDIRECTS + 1):
            self.check()
            try:
                parts = urlsplit(url)
                _ = parts.port  # which is looked at only now
            except ValueError:
                raise SourceError("it leads to what isn't a URL") from None
            if parts.scheme not in PORTS or not parts.hostname:
                raise SourceError(f"a source leads to a URL that isn't of HTTP: {parts.scheme[:16]!r}")
            headers = [(b"Host", parts.netloc.rpartition("@")[2].encode()), (b"User-Agent", b"keywarp")]
            if start:
                headers.append((b"Range", b"bytes=%d-" % start))
            if parts.username:
                user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers.append((b"Authorization", b"Basic " + base64.b64encode(user.encode())))
            target = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
            try:
                response = opened.enter_context(
                    self._pool.stream("GET", target, headers=headers, extensions={"timeout": self._timeouts})
                )
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                raise SourceError(f"no answer: {str(error) or type(error).__name__}") from error
            except (ValueError, TypeError):  # httpcore's, of characters that no URL has
                raise SourceError("it leads to what isn't a URL") from None
            if response.status in _REDIRECTS and (location := _header(response.headers, b"location")):
                opened.close()
                try:
                    url = urljoin(url, location)
                except ValueError:
                    raise SourceError("it leads to what isn't a URL") from None
                continue
            if response.status != (206 if start else 200):
                opened.close()
                raise SourceError(f"it answers with status {response.status}")
            return response
        raise SourceError(f"more than {MAX_REDIRECTS} redirects")


class HttpFile:
    """A file that is read while it comes; another position is asked for when something is read there."""

    def __init__(self, files: HttpFiles, url: str) -> None:
        """Open it; raises as `HttpFiles.open`."""
        self._files = files
        self._url = url
        self._opened = ExitStack()
        self._position = self._next = 0  # of what comes, and of what is to be read next; bytes
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""
        headers = self._ask()
        length = _header(headers, b"content-length")
        ranged = _header(headers, b"accept-ranges").lower() == "bytes"
        files.finite = length.isdecimal()
        self._size = int(length) if ranged and length.isdecimal() else None

    def read(self, size: int) -> bytes:
        """Read some bytes; nothing at the end, nor when the connection breaks."""
        try:
            return self._read(size)
        except SourceError as error:
            self._files.fault = error
            return b""

    def _read(self, size: int) -> bytes:
        self._files.check()
        if self._next != self._position:
            if self._size is not None and self._next >= self._size:
                return b""
            self._position, self._rest = self._next, b""
            self._ask()
        try:
            while not self._rest:
                if (chunk := next(self._chunks, None)) is None:
                    return b""
                self._rest = chunk
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise SourceError(f"the connection broke: {str(error) or type(error).__name__}") from error
        piece, self._rest = self._rest[:size], self._rest[size:]
        self._position = self._next = self._position + len(piece)
        return piece

    def seekable(self) -> bool:
        """Whether it can be read from any position."""
        return self._size is not None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Choose where to read next."""
        self._next = offset + (0, self._next, self._size or 0)[whence]
        return self._next

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._next

    def close(self) -> None:
        """Give up the connection."""
        self._opened.close()

    def _ask(self) -> list[tuple[bytes, bytes]]:
        self._opened.close()
        response = self._files.get(self._url, self._position, self._opened)
        stream: Iterable[bytes] = response.iter_stream()
        self._chunks = iter(stream)
        return response.headers


class _Checked(httpcore.NetworkBackend):
    """Connects to addresses that were looked at."""

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        address, *_ = self._allowed.addresses(host, port)
        return self._network.connect_tcp(address, port, timeout, local_address, socket_options)


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")
