"""Open files over HTTP for FFmpeg, so that every URL that a playlist or redirect leads to is checked first."""

import base64
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from http.client import responses
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import httpcore
import httpx

from keywarp.server.errors import PullError, SourceForbiddenError
from keywarp.server.security.pull_hosts import AllowList
from keywarp.videos import HEAD_BYTES, Continuity, TransportFile

MAX_REDIRECTS: Final = 5
MAX_TIMEOUTS: Final = 3  # timeouts that may pass without a frame
PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TEMPORARY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class HttpFiles:
    """Opens files over HTTP and HTTPS, at allowed addresses only.

    Attributes:
        continuity: What is known of the first file, if it is a transport stream.
        finite: Whether the server gave the length of the last opened file.
        head: The first bytes of the last opened file, as far as they were read.
        seekable: Whether the last opened file can be read from any position.
        fault: The error that ended the last file early. FFmpeg only sees the end of the file.
        stopped: Set this to make every further read fail.
    """

    def __init__(self, allowed: AllowList, timeout: float) -> None:
        """Set up an opener. Nothing is opened yet.

        Args:
            allowed: The hosts that may be connected to.
            timeout: Seconds to connect, and to wait for the next bytes.
        """
        self._first: str | None = None  # the first URL
        self.continuity = Continuity()
        self.finite = False
        self.seekable = False
        self.head = b""
        self.stopped = False
        self._max_wait = MAX_TIMEOUTS * timeout  # seconds without a frame
        self._last_frame = time.monotonic()
        self.fault: PullError | SourceForbiddenError | None = None
        self._digests: dict[str, httpx.DigestAuth] = {}  # of web servers that asked for it, by scheme and authority
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
        self._pool = httpcore.ConnectionPool(network_backend=_CheckedNetwork(allowed))

    def open(self, url: str, flags: int = 0, options: object = None) -> TransportFile:  # noqa: ARG002 - PyAV's `io_open`
        """Open a file.

        Raises:
            SourceForbiddenError: The URL, or a redirect, leads to a host that isn't allowed.
            PullError: The file can't be fetched.
        """
        self._first = self._first or url
        try:
            return TransportFile(HttpFile(self, url), self.continuity if url == self._first else None)
        except (PullError, SourceForbiddenError) as error:
            self.fault = error
            if url != self._first and isinstance(error, PullError):
                reason = f"a part of the source's playlist can't be read: {error}"
                self.fault = PullError(reason, lasting=error.lasting, unauthorized=error.unauthorized)
            raise self.fault from error

    def frame_decoded(self) -> None:
        """Note that a frame was decoded from the data that was read."""
        self._last_frame = time.monotonic()

    def check(self) -> None:
        """Check that reading may continue.

        Raises:
            PullError: Reading was stopped, or no frame was decoded for too long, even if data arrived.
        """
        if self.stopped:
            raise PullError("the pull was stopped")
        if time.monotonic() - self._last_frame > self._max_wait:
            raise PullError(f"no frame came for {self._max_wait:g} s")

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def get(self, url: str, start: int, opened: ExitStack) -> httpcore.Response:
        """Request a file from byte `start` on, and follow redirects. It raises the errors of `open`."""
        asked = False  # whether the web server has just asked for Digest authentication
        for _ in range(MAX_REDIRECTS + 2):
            self.check()
            try:
                parts = urlsplit(url)
                _ = parts.port  # the port is checked only when it is read
            except ValueError:
                raise PullError("the source redirects to something that isn't a URL") from None
            if parts.scheme not in PORTS or not parts.hostname:
                raise PullError(f"the source leads to a URL with the scheme {parts.scheme[:16]!r}, not http or https")
            headers = [(b"Host", parts.netloc.rpartition("@")[2].encode()), (b"User-Agent", b"keywarp")]
            if start:
                headers.append((b"Range", b"bytes=%d-" % start))
            target = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
            login = f"{parts.scheme}://{parts.netloc}"
            if digest := self._digests.get(login):
                target, answer = _signed(digest, target)
                headers.append((b"Authorization", answer))
            elif parts.username:
                user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers.append((b"Authorization", b"Basic " + base64.b64encode(user.encode())))
            try:
                response = opened.enter_context(
                    self._pool.stream("GET", target, headers=headers, extensions={"timeout": self._timeouts})
                )
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                raise PullError(f"no response: {str(error) or type(error).__name__}") from error
            except (ValueError, TypeError):  # raised by httpcore for characters that no URL has
                raise PullError("the source redirects to something that isn't a URL") from None
            if response.status in _REDIRECTS and (location := _header(response.headers, b"location")):
                opened.close()
                try:
                    url = urljoin(url, location)
                except ValueError:
                    raise PullError("the source redirects to something that isn't a URL") from None
                continue
            if response.status == HTTPStatus.UNAUTHORIZED and parts.username and not asked:
                asked = True
                if challenged := _challenged(parts, target, response.headers):
                    opened.close()
                    self._digests[login] = challenged
                    continue
            if response.status != (206 if start else 200):
                opened.close()
                unauthorized = response.status == HTTPStatus.UNAUTHORIZED
                reason = f"the source responded with status {_described(response.status)}"
                if unauthorized:
                    offered = _header(response.headers, b"www-authenticate")
                    reason += f": {refused_password(parts.username, offered)}"
                raise PullError(
                    reason,
                    lasting=400 <= response.status < 500 and response.status not in _TEMPORARY,
                    unauthorized=unauthorized,
                )
            return response
        raise PullError(f"the source redirects more than {MAX_REDIRECTS} times")


class HttpFile:
    """A file that is read while it arrives. Reading at another position makes a new request."""

    def __init__(self, files: HttpFiles, url: str) -> None:
        """Open the file. This raises the errors of `HttpFiles.open`."""
        self._files = files
        self._url = url
        self._opened = ExitStack()
        self._position = self._next = 0  # byte offsets of the data that is arriving, and of the next read
        self._chunks: Iterator[bytes] = iter(())
        self._rest = b""
        headers = self._request()
        length = _header(headers, b"content-length")
        ranged = _header(headers, b"accept-ranges").lower() == "bytes"
        files.finite = length.isdecimal()
        files.seekable = ranged and files.finite
        files.head = b""
        self._size = int(length) if files.seekable else None

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes. Return no bytes at the end, and after the connection broke."""
        try:
            return self._read(size)
        except PullError as error:
            self._files.fault = error
            return b""

    def _read(self, size: int) -> bytes:
        self._files.check()
        if self._next != self._position:
            if self._size is not None and self._next >= self._size:
                return b""
            self._position, self._rest = self._next, b""
            self._request()
        try:
            while not self._rest:
                if (chunk := next(self._chunks, None)) is None:
                    return b""
                self._rest = chunk
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise PullError(f"the connection broke: {str(error) or type(error).__name__}") from error
        piece, self._rest = self._rest[:size], self._rest[size:]
        if self._position < HEAD_BYTES:
            self._files.head += piece[: HEAD_BYTES - len(self._files.head)]
        self._position = self._next = self._position + len(piece)
        return piece

    def seekable(self) -> bool:
        """Whether the file can be read from any position."""
        return self._size is not None

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position of the next read, in bytes."""
        self._next = max(offset + (0, self._next, self._size or 0)[whence], 0)
        return self._next

    def tell(self) -> int:
        """Return the position of the next read, in bytes."""
        return self._next

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()

    def _request(self) -> list[tuple[bytes, bytes]]:
        self._opened.close()
        response = self._files.get(self._url, self._position, self._opened)
        stream: Iterable[bytes] = response.iter_stream()
        self._chunks = iter(stream)
        return response.headers


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects only to addresses that the allow-list has."""

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


def refused_password(user: str | None, offered: str = "") -> str:
    """Describe why a source wants another login.

    Args:
        user: The user that its URL names, if any.
        offered: The kinds of authentication that its web server offers, as its header names them.
    """
    if not user:
        return "its URL lacks a user and password"
    if offered and not any(kind in offered.lower() for kind in ("basic", "digest")):
        return f"it wants {offered.split()[0][:16]} authentication, and over HTTP the server has only Basic and Digest"
    return "it refuses the user and password of its URL"


def _challenged(parts: SplitResult, target: str, headers: list[tuple[bytes, bytes]]) -> httpx.DigestAuth | None:
    """Return what answers a web server that asks for Digest authentication, or None if it doesn't."""
    auth = httpx.DigestAuth(unquote(parts.username or ""), unquote(parts.password or ""))
    request = httpx.Request("GET", target)
    flow = auth.auth_flow(request)
    next(flow)
    try:
        flow.send(httpx.Response(HTTPStatus.UNAUTHORIZED, headers=headers, request=request))
    except (StopIteration, httpx.ProtocolError, NotImplementedError):
        return None
    return auth


def _signed(auth: httpx.DigestAuth, target: str) -> tuple[str, bytes]:
    """Return a URL as it is signed, and the header that signs it."""
    request = next(auth.auth_flow(httpx.Request("GET", target)))
    return str(request.url), request.headers["Authorization"].encode()


def _described(status: int) -> str:
    return f"{status} ({responses[status]})" if status in responses else str(status)


def _header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in headers if name.lower() == wanted), "")
