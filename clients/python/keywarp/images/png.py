"""Check the checksums of PNG files, which Pillow doesn't: https://github.com/python-pillow/Pillow/issues/5800."""

import zlib
from collections.abc import Iterator
from typing import Final

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_END: Final = b"IEND"
# The chunks that pictures are made of. Others are left out.
_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", _END, b"tRNS", b"acTL", b"fcTL", b"fdAT"})
_EXIF: Final = b"eXIf"
# Chunks in which a wrong checksum doesn't matter, though Pillow refuses the file for it.
_EXTRAS: Final = frozenset(
    {
        b"cHRM",
        b"cICP",
        b"cLLI",
        b"gAMA",
        b"iCCP",
        b"mDCV",
        b"sBIT",
        b"sRGB",
        b"bKGD",
        b"hIST",
        b"pHYs",
        b"sPLT",
        b"tIME",
    }
    | {b"iTXt", b"tEXt", b"zTXt", b"oFFs", b"sCAL", _EXIF}
)
_OVERHEAD: Final = 12  # bytes of a chunk beside its content: length, type and checksum


def sound_part(data: bytes | memoryview) -> tuple[bytes, bool]:
    """Return the chunks that pictures are made of, up to the first one that is damaged or missing.

    Returns:
        A PNG file of these chunks, and whether they are all.
    """
    parts: list[bytes | memoryview] = [SIGNATURE]
    for kind, chunk, sound in _chunks(memoryview(data)):
        if not sound and kind not in _EXTRAS:
            break
        if sound and (kind in _NEEDED or kind == _EXIF):
            parts.append(chunk)
        if kind == _END:
            return b"".join(parts), True
    return b"".join(parts), False


def _chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield each whole chunk's type, the chunk, and whether its checksum is right."""
    position = len(SIGNATURE)
    while position + _OVERHEAD <= len(view):
        length = int.from_bytes(view[position : position + 4], "big")
        chunk = view[position : position + _OVERHEAD + length]
        if len(chunk) < _OVERHEAD + length:
            return
        yield bytes(chunk[4:8]), chunk, zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        position += len(chunk)
