"""Decode the sources of pulled streams: live ones over RTSP, RTMP, SRT and UDP, and files, HLS and MJPEG over HTTP."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from av.container import InputContainer
from av.error import ExitError, FFmpegError, HTTPClientError, HTTPUnauthorizedError, ProtocolNotFoundError

from keywarp.protocol import FrameHeader, StreamOptions
from keywarp.protocol.addresses import without_secrets
from keywarp.server.decode import allowed
from keywarp.server.decode.frames import Decoded
from keywarp.server.decode.http import HttpFiles, refused_password
from keywarp.server.decode.rtsp import RtspRelay
from keywarp.server.decode.video import PROBE, VideoDecoder, VideoOptions
from keywarp.server.errors import BadMessageError, BadVideoError, PullError, SourceForbiddenError
from keywarp.server.security.pull_hosts import AllowList
from keywarp.videos import describe_other, is_format, open_container

Options = TypeVar("Options", bound=StreamOptions)

# The schemes, with their ports if a URL names none. SRT and UDP have no port of their own.
PORTS: Final = {
    "rtsp": 554,
    "http": 80,
    "https": 443,
    "rtsps": 322,
    "rtmp": 1935,
    "rtmps": 443,
    "srt": None,
    "udp": None,
}
# TCP reaches cameras on other networks, and loses no packets.
_RTSP: Final = {"rtsp_transport": "tcp", "allowed_media_types": "video"}
NAME: Final = "the source"


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """A URL that a stream is pulled from. Its text form shows neither credentials nor query."""

    parts: SplitResult

    @classmethod
    def parse(cls, url: str) -> "SourceUrl":
        """Parse a URL.

        Raises:
            BadMessageError: The text isn't a URL, or streams can't be pulled from it.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port  # the port is checked only when it is read
        except ValueError:  # its text may contain a part of a password
            raise BadMessageError("`source` isn't a URL; write / ? # @ in a password as %2F %3F %23 %40") from None
        if parts.scheme not in PORTS or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
            raise BadMessageError(f"`source` must be a URL in ASCII, with the scheme {', '.join(PORTS)}")
        if not (parts.port or PORTS[parts.scheme]):
            raise BadMessageError(f"`source` must name a port, as in {parts.scheme}://{parts.hostname}:5000")
        return cls(parts)

    @property
    def host(self) -> str:
        """The host's name or address."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        return self.parts.port or PORTS[self.parts.scheme] or 0

    @property
    def live(self) -> bool:
        """Whether this is a camera or the like, whose video has no end."""
        return self.parts.scheme in allowed.LIVE_PROTOCOLS

    def with_default_mode(self, options: Options) -> Options:
        """Fill in the mode `latest` for a camera, which doesn't wait, unless the options name a mode."""
        return options.model_copy(update={"mode": options.mode or "latest"}) if self.live else options

    def at(self, address: str, port: int, scheme: str | None = None) -> str:
        """Replace the host and port in the URL by an address and another port, and perhaps the scheme by another."""
        user, at, _ = self.parts.netloc.rpartition("@")
        host = f"[{address}]" if ":" in address else address
        return self.parts._replace(scheme=scheme or self.parts.scheme, netloc=f"{user}{at}{host}:{port}").geturl()

    def __str__(self) -> str:
        return without_secrets(self.parts.geturl())


class SourceDecoder:
    """Pulls and decodes one source. One empty payload starts it.

    Attributes:
        live: Whether the source has no end. True until it is known.
        hopeless: Whether another attempt would fail likewise.
    """

    whole_units = False

    def __init__(self, source: SourceUrl, allowed: AllowList, timeout: float, options: VideoOptions) -> None:
        """Set up a decoder. Nothing is opened yet.

        Args:
            source: The URL to pull.
            allowed: The hosts that may be connected to.
            timeout: Seconds to connect, and to wait for more data.
            options: How its video is decoded.
        """
        self.live = True
        self.hopeless = False
        self._source = source
        self._allowed = allowed
        self._timeout = timeout
        self._video = VideoDecoder(options)
        self._recorder = options.recorder
        self._opened = ExitStack()
        self._files: HttpFiles | None = None
        self._relay: RtspRelay | None = None

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Decoded]:  # noqa: ARG002
        """Decode all frames of the source, until it ends.

        Raises:
            SourceForbiddenError: The source's host, or one that it redirects to, isn't allowed.
            PullError: The source can't be reached, the connection breaks, or it isn't a video.
            BadVideoError: The source is a video that can't be decoded.
        """
        try:
            container = self._opened.enter_context(self._open())
            if self._recorder:
                self._opened.callback(self._recorder.finish)  # before the container is closed
            self.live = self._source.live or not self._has_end(container)
            continuity = self._files.continuity if self._files and is_format(container, "mpegts") else None
            for item in self._video.decode_container(container, NAME, continuity):
                yield item
                if self._files:
                    self._files.frame_decoded()
        except FFmpegError as error:
            if self._needs_ranges:
                self.live = False
                self.hopeless = True
                raise PullError(
                    "the source is an MP4 whose index isn't in front, and its web server offers no ranges: use another "
                    "web server, or move the index (ffmpeg -c copy -movflags faststart)"
                ) from error
            raise self._fault or self._no_video or self._described(error) from error
        except BadVideoError as error:
            raise self._fault or self._no_video or error from error
        if self._fault:
            raise self._fault

    def finish(self) -> Iterator[Decoded]:
        """Return nothing: `decode` has read the source to its end."""
        yield from ()

    def stop(self) -> None:
        """Make `decode` end soon. This may be called from any thread."""
        if self._files:
            self._files.stopped = True

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()

    def _open(self) -> InputContainer:
        options = PROBE | self._video.ffmpeg
        if self._source.live:
            address, *_ = self._allowed.addresses(self._source.host, self._source.port)
            scheme = self._source.parts.scheme
            options |= _RTSP if scheme in ("rtsp", "rtsps") else {}
            options |= {"protocol_whitelist": allowed.LIVE_PROTOCOLS[scheme]}
            options |= {"format_whitelist": allowed.LIVE_FORMATS[scheme]}
            started = time.monotonic()
            try:
                return open_container(self._live_url(address), options=options, timeout=self._timeout)
            except FFmpegError as error:
                if time.monotonic() - started >= self._timeout:  # FFmpeg calls an answer that never came invalid
                    raise self._fault or self._silent from error
                raise
        files = self._files = HttpFiles(self._allowed, self._timeout)
        self._opened.callback(files.close)
        # Persistent connections would be FFmpeg's own, which nobody checks.
        options |= {"protocol_whitelist": allowed.HTTP_PROTOCOLS, "format_whitelist": allowed.HTTP_FORMATS}
        options |= {"http_persistent": "0"}
        return open_container(self._source.parts.geturl(), options=options, timeout=self._timeout, io_open=files.open)

    def _live_url(self, address: str) -> str:
        """Return the URL that FFmpeg opens: that of a relay for RTSP, whose redirects it would follow."""
        if self._source.parts.scheme not in ("rtsp", "rtsps"):
            return self._source.at(address, self._source.port)
        tls = self._source.host if self._source.parts.scheme == "rtsps" else None
        relay = self._relay = RtspRelay(address, self._source.port, self._timeout, tls=tls)
        self._opened.callback(relay.close)
        relay.start()
        return self._source.at("127.0.0.1", relay.port, scheme="rtsp")

    def _described(self, error: FFmpegError) -> PullError:
        if isinstance(error, ExitError):  # FFmpeg's own text is about its user, who exits
            return self._silent
        if isinstance(error, ProtocolNotFoundError):
            scheme = self._source.parts.scheme
            return PullError(f"FFmpeg, as it is installed here, has no {scheme.upper()}", lasting=True)
        unauthorized = isinstance(error, HTTPUnauthorizedError)
        because = refused_password(self._source.parts.username) if unauthorized else error.strerror
        refused = isinstance(error, HTTPClientError)  # RTSP has HTTP's status codes
        return PullError(f"the source can't be read: {because}", lasting=refused, unauthorized=unauthorized)

    @property
    def _silent(self) -> PullError:
        return PullError(f"the source sent nothing for {self._timeout:g} s")

    @property
    def _fault(self) -> PullError | SourceForbiddenError | None:
        if self._relay:
            return self._relay.fault
        return self._files.fault if self._files else None

    @property
    def _no_video(self) -> PullError | None:
        """An error that says what the source is, if it isn't a video."""
        if self._files is None:
            return None
        head = self._files.head
        what = describe_other(head)
        if head[4:8] == b"ftyp" and self.live:  # it couldn't be opened
            what = "is a truncated MP4 file: its index (moov) is missing"
        return PullError(f"the source {what}", lasting=True) if what else None

    @property
    def _needs_ranges(self) -> bool:
        """Whether the file is an MP4 that can only be read from its end, and its server doesn't allow that."""
        files = self._files
        return bool(files and files.finite and not files.seekable and files.head[4:8] == b"ftyp" and not files.fault)

    def _has_end(self, container: InputContainer) -> bool:
        lists = container.format.name == "hls"  # a live playlist has a length as well
        return (container.duration or 0) > 0 or bool(self._files and self._files.finite and not lists)
