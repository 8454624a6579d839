"""Where a stream is pulled from: cameras over RTSP; files, HLS and MJPEG over HTTP."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import av
from av.container import InputContainer
from av.error import FFmpegError

from keywarp.protocol import FrameHeader, StreamOptions
from keywarp.server.decode.frames import Damage, Picture
from keywarp.server.decode.http import HttpFiles
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.video import PROBE, Screen
from keywarp.server.errors import BadMessageError, SourceError, SourceForbiddenError
from keywarp.server.security.pull_hosts import AllowList

Options = TypeVar("Options", bound=StreamOptions)

PORTS: Final = {"rtsp": 554, "http": 80, "https": 443}
NAME: Final = "a source"
# What FFmpeg may take a file for. Others, such as `concat`, open further files by themselves, where nobody looks.
FORMATS: Final = "hls,mpegts,mpeg,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpjpeg,mjpeg,h264,hevc,aac,mp3,webvtt"


@dataclass(frozen=True, slots=True)
class Source:
    """A URL that a stream is pulled from. In text it shows neither credentials nor query."""

    parts: SplitResult

    @classmethod
    def parse(cls, url: str) -> "Source":
        """Read a URL.

        Raises:
            BadMessageError: It isn't one that can be pulled from.
        """
        try:
            parts = urlsplit(url)
            _ = parts.port  # which is looked at only now
        except ValueError:  # whose text may hold a part of a password
            raise BadMessageError("`source` isn't a URL; in a password, / ? # @ are written %2F %3F %23 %40") from None
        if parts.scheme not in PORTS or not parts.hostname or not url.isascii() or not url.isprintable() or " " in url:
            raise BadMessageError(f"`source` is a URL of {', '.join(PORTS)}, in ASCII")
        return cls(parts)

    @property
    def host(self) -> str:
        """Name or address."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """TCP port."""
        return self.parts.port or PORTS[self.parts.scheme]

    @property
    def live(self) -> bool:
        """Whether it surely has no end of its own: a camera."""
        return self.parts.scheme == "rtsp"

    def suited(self, options: Options) -> Options:
        """Options for it: a camera doesn't wait."""
        return options.model_copy(update={"mode": options.mode or "latest"}) if self.live else options

    def at(self, address: str) -> str:
        """The URL with an address in the host's place."""
        user, at, _ = self.parts.netloc.rpartition("@")
        host = f"[{address}]" if ":" in address else address
        return self.parts._replace(netloc=f"{user}{at}{host}:{self.port}").geturl()

    def __str__(self) -> str:
        netloc = self.parts.netloc.rpartition("@")[2]
        return self.parts._replace(netloc=netloc, query="", fragment="").geturl()


class SourceDecoder:
    """Pulls one source: the payload that starts it is empty.

    Attributes:
        live: Whether it has no end of its own, as far as is known.
    """

    def __init__(
        self, source: Source, allowed: AllowList, timeout: float, max_pixels: int, nvdec: Nvdec | None = None
    ) -> None:
        """Nothing is opened yet.

        Args:
            source: What to pull.
            allowed: Where connections may go.
            timeout: Seconds to connect, and to wait for more.
            max_pixels: Of a frame; larger ones are refused.
            nvdec: What decodes where it can; None: the processor.
        """
        self.live = True
        self._source = source
        self._allowed = allowed
        self._timeout = timeout
        self._screen = Screen(max_pixels, nvdec)
        self._opened = ExitStack()
        self._files: HttpFiles | None = None

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:  # noqa: ARG002
        """All its frames, until it ends.

        Raises:
            SourceForbiddenError: It is, or leads, where connections aren't allowed to.
            SourceError: It can't be reached, or breaks off.
            BadVideoError: It can't be decoded.
        """
        try:
            container = self._opened.enter_context(self._open())
            self.live = self._source.live or not self._has_end(container)
            for item in self._screen.show(container, NAME):
                yield item
                if self._files:
                    self._files.show()
        except FFmpegError as error:
            raise self._fault or SourceError(f"the source can't be read: {error.strerror}") from error
        if self._fault:
            raise self._fault
        self._screen.check_used()

    def finish(self) -> Iterator[Picture | Damage]:
        """Nothing: decoding a source goes up to its end."""
        yield from ()

    def stop(self) -> None:
        """Have what is under way end soon; from any thread."""
        if self._files:
            self._files.stopped = True

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()

    def _open(self) -> InputContainer:
        options = PROBE | self._screen.options
        if self._source.live:
            address, *_ = self._allowed.addresses(self._source.host, self._source.port)
            # Over TCP: cameras on other networks, and no picture of which half the packets are lost.
            options |= {"rtsp_transport": "tcp", "allowed_media_types": "video"}
            return av.open(self._source.at(address), options=options, timeout=self._timeout)
        files = self._files = HttpFiles(self._allowed, self._timeout)
        self._opened.callback(files.close)
        options |= {"format_whitelist": FORMATS, "http_persistent": "0"}  # 0: or it would keep connections of its own
        return av.open(self._source.parts.geturl(), options=options, timeout=self._timeout, io_open=files.open)

    @property
    def _fault(self) -> SourceError | SourceForbiddenError | None:
        return self._files.fault if self._files else None

    def _has_end(self, container: InputContainer) -> bool:
        lists = container.format.name == "hls"  # a live playlist has a length as well
        return (container.duration or 0) > 0 or bool(self._files and self._files.finite and not lists)
