"""Count the samples that an MP4 claims to have, as its bytes arrive: each of them costs memory before it is read.

A sample is a packet. A table that gives all of them the same size claims any number in 20 bytes, for which FFmpeg
allocates about 70 bytes a sample (mov.c). Samples that a fragment describes one by one aren't counted.
"""

from typing import Final

from keywarp.videos.errors import VideoError
from keywarp.videos.extent import Feed
from keywarp.videos.structure import Walk

MAX_SAMPLES: Final = 2_000_000  # of all tracks; 18 hours at 30 a second
_PARENTS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
# Bytes that are read of a box's content. Each begins with a version and flags.
_READ: Final = {b"hdlr": 12, b"stts": 16, b"stsz": 12, b"stz2": 12, b"trun": 8}
_DESCRIBED: Final = 0xF00  # flags of a run of samples: each one's duration, size, flags or time follow


class Claims:
    """Counts the samples of an MP4. Other formats pass."""

    def __init__(self, limit: int = MAX_SAMPLES) -> None:
        """Begin a file.

        Args:
            limit: The most samples that it may claim.
        """
        self._limit = limit
        self._feed = Feed(self._count())

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file.

        Raises:
            VideoError: It claims too many samples.
        """
        self._feed.feed(data)

    def _count(self) -> Walk:
        """Go from box to box (ISO 14496-12), into those that hold tables of samples."""
        claimed, handler, ticks = 0, b"", False
        place = 0
        while True:
            box = yield place, 8
            size, kind, content = int.from_bytes(box[:4], "big"), box[4:8], 8
            if size == 1:
                box = yield place, 16
                size, content = int.from_bytes(box[8:16], "big"), 16
            if len(box) < content or size < content:
                return None
            field: list[int] = []
            if kind in _READ:  # no more than FFmpeg reads before it allocates, since the rest may never come
                box = yield place, min(size, content + _READ[kind])
                field = [int.from_bytes(box[at : at + 4], "big") for at in range(content, content + _READ[kind], 4)]
            match kind:
                case b"trak":
                    handler, ticks = b"", False
                case b"hdlr":
                    handler = box[content + 8 :]
                case b"stts":  # times that differ by one tick, as those of uncompressed sound, are read in chunks
                    ticks = field[1::2] == [1, 1]
                case b"stsz" if not (handler == b"soun" and ticks and field[1]):
                    claimed += field[2]
                case b"stz2":
                    claimed += field[2]
                case b"trun" if not field[0] & _DESCRIBED:
                    claimed += field[1]
            if claimed > self._limit:
                raise VideoError(
                    f"claims {claimed} samples, but at most {self._limit} are read: send it in fragments "
                    "(ffmpeg -c copy -movflags frag_keyframe+empty_moov)"
                )
            place += content if kind in _PARENTS else size
