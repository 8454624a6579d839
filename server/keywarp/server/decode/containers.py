"""Video in containers to pictures by PyAV (FFmpeg): MPEG transport streams, fragmented MP4 and WebM, while they arrive.

The delay is what the container asks for: an MPEG-TS unit ends only where the next begins, an MP4 fragment comes as a
whole. An MP4 file whose index is behind its content, as most programs write them, is kept until it is whole.
"""

import threading
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from queue import SimpleQueue
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

import av
from av.error import FFmpegError

from keywarp.protocol import Container, FrameHeader
from keywarp.server.decode.frames import Damage, Picture
from keywarp.server.decode.nvdec import Nvdec
from keywarp.server.decode.video import PROBE, Screen
from keywarp.server.errors import BadVideoError

MAX_SILENCE: Final = 64 * 2**20  # bytes without a picture
MAX_FILE: Final = 2 * 2**30  # bytes of an MP4 that can't be read before it is whole
_IN_MEMORY: Final = 16 * 2**20  # bytes of it; the rest is kept on disk
_MAX_START: Final = 2**20  # bytes before an MP4's index or content

_NAMES: Final[Mapping[Container, str]] = {
    "mpegts": "an MPEG transport stream",
    "mp4": "an MP4 stream",
    "webm": "a WebM stream",
}


class _Turn(Enum):
    """What decoder and demuxer say to each other besides content."""

    GO_ON = auto()
    END = auto()  # of the content
    STOP = auto()  # whatever you do
    HUNGRY = auto()
    FINISHED = auto()


class _StoppedError(Exception):
    """The decoder was closed."""


class _Demuxer(threading.Thread):
    """Runs FFmpeg's demuxer, which pulls its input, as a coroutine of its decoder, which is pushed to.

    Strictly in turns: the thread runs from one turn it is given to the one event that it answers with. So there is
    never more than one payload and one picture in it, and it always waits where `STOP` reaches it.
    """

    def __init__(self, container: Container, max_pixels: int, nvdec: Nvdec | None) -> None:
        super().__init__(name="keywarp-demuxer", daemon=True)
        self._container = container
        self._name = _NAMES[container]
        self.turns: SimpleQueue[memoryview | _Turn] = SimpleQueue()
        self.events: SimpleQueue[Picture | Damage | _Turn | Exception] = SimpleQueue()
        self._screen = Screen(max_pixels, nvdec)
        self._payload = memoryview(b"")
        self.keeps = False  # what comes, until it is whole
        self._ended = False
        self._stopped = False

    def run(self) -> None:
        self._await_turn()
        try:
            self._demux()
        except FFmpegError as error:
            self.events.put(BadVideoError(f"not {self._name}: {error.strerror}"))
        except Exception as error:  # noqa: BLE001 - raised again by the decoder
            self.events.put(error)
        else:
            self.events.put(_Turn.FINISHED)

    def read(self, size: int) -> bytes:
        """FFmpeg's input. At the end it keeps returning nothing."""
        while not self._payload and not self._ended:
            self.events.put(_Turn.HUNGRY)
            self._await_turn()
        piece, self._payload = self._payload[:size], self._payload[size:]
        return bytes(piece)

    def _demux(self) -> None:
        with SpooledTemporaryFile(_IN_MEMORY) as file:
            if self._container == "mp4" and self._index_is_behind():
                self._keep(file)
                self._decode(file)
            else:
                self._decode(self)
        if not self._ended:
            raise BadVideoError(f"{self._name} that broke off")
        if not self._stopped:
            self._screen.check_used()

    def _decode(self, file: Any) -> None:
        with av.open(file, "r", format=self._container, options=PROBE | self._screen.options) as container:
            for event in self._screen.show(container, self._name):
                self._hand_over(event)

    def _index_is_behind(self) -> bool:
        """Whether an MP4's content comes before its index (ISO 14496-12: boxes of size, type, content)."""
        head, box = b"", 0
        try:
            while box < _MAX_START:
                while len(head) < box + 8:
                    if not (piece := self.read(_MAX_START)):
                        return False
                    head += piece
                size, kind = int.from_bytes(head[box : box + 4]), head[box + 4 : box + 8]
                if kind in (b"moov", b"mdat") or size < 8:
                    return kind == b"mdat"
                box += size
            return False
        finally:
            self._payload = memoryview(head + self._payload)  # to be read again

    def _keep(self, file: IO[bytes]) -> None:
        """Write all that comes to a file."""
        self.keeps = True
        while piece := self.read(_IN_MEMORY):
            file.write(piece)
            if file.tell() > MAX_FILE:
                raise BadVideoError(
                    f"an MP4 of more than {MAX_FILE} bytes must have its index in front "
                    "(ffmpeg -c copy -movflags faststart)"
                )
        self.keeps = False
        file.seek(0)

    def _hand_over(self, event: Picture | Damage) -> None:
        if not self._stopped:
            self.events.put(event)
            self._await_turn()
        if self._stopped:  # before or now: nobody takes turns any more
            raise _StoppedError

    def _await_turn(self) -> None:
        match self.turns.get():
            case _Turn.END:
                self._ended = True
            case _Turn.STOP:
                self._ended = self._stopped = True
            case memoryview() as payload:
                self._payload = payload


class ContainerDecoder:
    """A container in pieces of any size; its first video of any codec that FFmpeg knows.

    Frames bear the container's timestamps, and no id.
    """

    def __init__(self, container: Container, max_pixels: int, nvdec: Nvdec | None = None) -> None:
        """Set a demuxer up.

        Args:
            container: What the pieces are pieces of.
            max_pixels: Of a frame; larger ones are refused.
            nvdec: What decodes where it can; None: the processor.
        """
        self._demuxer = _Demuxer(container, max_pixels, nvdec)
        self._silence = 0  # bytes since the last picture

    def decode(self, header: FrameHeader, payload: memoryview) -> Iterator[Picture | Damage]:  # noqa: ARG002
        """The frames that this payload completes."""
        if not self._demuxer.is_alive():
            self._demuxer.start()
        self._silence += len(payload)
        for event in self._run(payload):
            self._silence = 0
            yield event
        if self._silence > MAX_SILENCE and not self._demuxer.keeps:
            raise BadVideoError(f"{self._silence} bytes of video without a picture")

    def finish(self) -> Iterator[Picture | Damage]:
        """The frames that were held back for their order."""
        if self._demuxer.is_alive():
            yield from self._run(_Turn.END)

    def close(self) -> None:
        """End the thread."""
        if self._demuxer.is_alive():
            self._demuxer.turns.put(_Turn.STOP)
            self._demuxer.join()

    def _run(self, turn: memoryview | _Turn) -> Iterator[Picture | Damage]:
        while True:
            self._demuxer.turns.put(turn)
            match self._demuxer.events.get():
                case _Turn():
                    return
                case Exception() as error:
                    raise error
                case event:
                    yield event
            turn = _Turn.GO_ON
