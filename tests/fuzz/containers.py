"""Cut, overwrite and reorder the bytes of small valid videos, and read what is left as the client and the server do.

    python -m tests.fuzz.containers RUNS [SEED]

A run fails if anything but the reader's own errors comes out, or if it calls a video complete from which pictures are
missing: fewer pictures than the whole video has, without a loss, a note or an error. What can't be noticed counts as no
failure. Transport streams don't declare where they end. An index that is overwritten lists something else, and a block
of a GIF may swallow others. But a cut of the others is always noticed, unless it is between two fragments of MP4 or two
blocks of a GIF. The memory of the process is bounded.
"""

import io
import random
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import av

from keywarp.protocol import FrameHeader
from keywarp.server.decode.containers import ContainerDecoder
from keywarp.server.decode.frames import DecodedFrame
from keywarp.server.decode.video import VideoOptions
from keywarp.server.errors import BadVideoError, FrameRefusedError
from keywarp.videos import (
    Continuity,
    Extent,
    Lost,
    Note,
    Picture,
    SoftwareDecoder,
    VideoError,
    VideoReader,
    choose_video,
    open_container,
)
from tests.videos.films import B_FRAMES, FASTSTART, FRAMES, GOP, TS_PACKET, boxes, film

MAX_PIXELS: Final = 256 * 256
MAX_MEMORY: Final = 2 * 2**30  # bytes of the process beyond what it has at the start
MAX_PICTURES: Final = 1000  # a damaged file may have more than the whole one, but not without end


@dataclass(frozen=True)
class Seed:
    """A valid video."""

    name: str
    data: bytes
    container: str | None = None  # the server's name of its container
    declares: bool = True  # whether it declares its length
    may_vanish: int = 0  # pictures that can vanish without a trace, unless it was cut

    @property
    def ends(self) -> set[int]:
        """Places where it would be a whole video, too: behind any fragment, and before any block of a GIF."""
        if self.name == "gif":
            return {at for at, byte in enumerate(self.data) if byte in b"!,;"}
        return {at for at, _, _ in boxes(self.data)} if self.name == "mp4, fragmented" else set()

    @property
    def index(self) -> bytes:
        """The part that lists the pictures: what a damaged one lists can't be known."""
        if self.name.startswith("avi"):
            return self.data[self.data.index(b"idx1") :]
        if not self.name.startswith("mp4"):
            return b""
        return next((self.data[at : at + size] for at, size, kind in boxes(self.data) if kind == b"moov"), b"")


@cache
def seeds() -> tuple[Seed, ...]:
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    return (
        Seed("mp4", film(muxing=FASTSTART), "mp4"),
        Seed("mp4, index behind, B-frames", film(options=B_FRAMES), "mp4"),
        Seed("mp4, fragmented", film(muxing=fragments), "mp4", may_vanish=GOP),
        Seed("mkv", film("matroska"), "webm"),
        Seed("webm", film("webm", codec="libvpx"), "webm", may_vanish=2),
        Seed("ts", film("mpegts"), "mpegts", declares=False, may_vanish=5),
        Seed("ts, B-frames", film("mpegts", options=B_FRAMES), "mpegts", declares=False, may_vanish=5),
        Seed("avi", film("avi", codec="mpeg4"), may_vanish=2),
        Seed("avi, MJPEG", film("avi", codec="mjpeg"), may_vanish=2),
        Seed("flv", film("flv"), may_vanish=2),
        Seed("gif", film("gif", codec="gif"), may_vanish=FRAMES),
    )


def cut(data: bytes, random_: random.Random) -> bytes:
    return data[: random_.randrange(len(data))]


def overwrite(data: bytes, random_: random.Random) -> bytes:
    size = random_.choice((1, 4, 40, 400))
    place = random_.randrange(len(data))
    return data[:place] + random_.randbytes(size)[: len(data) - place] + data[place + size :]


def reorder(data: bytes, random_: random.Random) -> bytes:
    size = TS_PACKET if data[:1] == b"G" and random_.random() < 0.8 else random_.choice((16, 64, 256))
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    first, second = random_.randrange(len(pieces)), random_.randrange(len(pieces))
    pieces[first], pieces[second] = pieces[second], pieces[first]
    return b"".join(pieces)


def remove(data: bytes, random_: random.Random) -> bytes:
    size = TS_PACKET * random_.randrange(1, 9) if data[:1] == b"G" else random_.choice((1, 16, 256))
    place = random_.randrange(len(data)) // TS_PACKET * TS_PACKET if data[:1] == b"G" else random_.randrange(len(data))
    return data[:place] + data[place + size :]


CHANGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (cut, overwrite, reorder, remove)


def read(data: bytes) -> tuple[int, bool]:
    """Read a video as the client does. Return the number of pictures, and whether nothing was said to be wrong."""
    pictures, silent = 0, True
    extent, continuity = Extent(), Continuity()
    extent.feed(data)
    continuity.feed(data)
    try:
        with open_container(io.BytesIO(data)) as container:
            stream = choose_video(container)
            decoder = SoftwareDecoder(stream.codec_context, MAX_PIXELS)
            for item in VideoReader(container, stream, decoder, continuity):
                match item:
                    case Picture():
                        pictures += 1
                        if pictures > MAX_PICTURES:
                            break
                    case Lost() | Note():
                        silent = False
    except (av.FFmpegError, VideoError):  # what the client turns into its own errors
        silent = False
    return pictures, silent and not extent.fault


def serve(data: bytes, container: str, size: int) -> tuple[int, bool]:
    """Read a video as the server does, in pieces."""
    pictures, silent = 0, True
    decoder = ContainerDecoder(container, VideoOptions(MAX_PIXELS))  # type: ignore[arg-type]

    def items() -> Iterator[object]:
        for start in range(0, len(data), size):
            yield from decoder.decode(FrameHeader(), memoryview(data[start : start + size]))
        yield from decoder.finish()

    try:
        for item in items():
            pictures += isinstance(item, DecodedFrame)
            silent = silent and not isinstance(item, FrameRefusedError | Note)
            if pictures > MAX_PICTURES:
                break
    except BadVideoError:
        silent = False
    finally:
        decoder.close()
    return pictures, silent


def fuzz(runs: int, seed: int = 0) -> list[str]:
    """Read damaged videos, and return what went wrong."""
    av.logging.set_level(None)
    random_ = random.Random(seed)
    failures: list[str] = []
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in range(runs):
        whole = random_.choice(seeds())
        change = random_.choice(CHANGES)
        data = change(whole.data, random_)
        for way in ("client", "server"):
            if way == "server" and not (whole.container and data):  # an empty upload is refused before
                continue
            where = f"run {run}: {whole.name}, {change.__name__}, {way}"
            try:
                if way == "client":
                    pictures, silent = read(data)
                else:
                    pictures, silent = serve(data, str(whole.container), random_.choice((100, 1316, 1 << 20)))
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                failures.append(f"{where}: {error!r}")
                continue
            if whole.data.startswith(data):
                noticeable, expected = whole.declares and len(data) not in whole.ends, FRAMES
            else:
                noticeable, expected = whole.index in data, FRAMES - whole.may_vanish
            if silent and pictures < expected and noticeable:
                failures.append(f"{where}: {pictures} of {FRAMES} pictures, and not a word")
    if (grown := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024) > MAX_MEMORY:
        failures.append(f"the process has grown by {grown} bytes")
    return failures


def main() -> None:
    runs, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    failures = fuzz(runs, seed)
    print("\n".join(failures) or f"{runs} runs, no failure")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
