"""Blank out the machine code of a CUDA library for all GPUs but one kind, so that it packs to a fraction.

CUDA's compiler puts the code for each kind of GPU side by side into "fat binaries". The loader takes the entry that
fits the GPU and doesn't look at the others. Their content is replaced by zeros and nothing is moved, so every address
in the library stays right.
"""

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAGIC: Final = struct.pack("<I", 0xBA55ED50)
_CONTAINER: Final = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes after it
_ENTRY: Final = struct.Struct("<HHIQ")  # kind, version, bytes of this header, bytes of the content
_ARCHITECTURE: Final = 28  # bytes from an entry's start
PTX: Final = 1  # kinds of entries: code that the driver compiles, and machine code
CUBIN: Final = 2
Buffer = bytes | bytearray


@dataclass(frozen=True, slots=True)
class Entry:
    """The code of one fat binary for one kind of GPU."""

    kind: int
    capability: tuple[int, int]
    start: int  # of its content in the library, bytes
    size: int  # bytes


def entries(library: Buffer) -> Iterator[Entry]:
    """Yield all code for GPUs in a library."""
    place = 0
    while (place := library.find(MAGIC, place)) >= 0:
        _, version, header, size = _CONTAINER.unpack_from(library, place)
        if (version, header) != (1, _CONTAINER.size) or place + header + size > len(library):
            place += len(MAGIC)  # the same bytes by chance
            continue
        entry, end = place + header, place + header + size
        while entry < end:
            kind, _, header, content = _ENTRY.unpack_from(library, entry)
            (architecture,) = struct.unpack_from("<I", library, entry + _ARCHITECTURE)
            yield Entry(kind, divmod(architecture, 10), entry + header, content)
            entry += header + content
        place = end


def keep_only(library: bytearray, capability: tuple[int, int]) -> dict[tuple[int, int], int]:
    """Blank out all code but the machine code for one compute capability, in place.

    Args:
        library: The library's bytes.
        capability: The compute capability that stays.

    Returns:
        The bytes of machine code that there were for each compute capability.

    Raises:
        ValueError: If there is no code for it.
    """
    found = [entry for entry in entries(library) if entry.kind in (PTX, CUBIN)]
    sizes: Counter[tuple[int, int]] = Counter()
    for entry in found:
        if entry.kind == CUBIN:
            sizes[entry.capability] += entry.size
    if capability not in sizes:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(sizes))
        raise ValueError(f"there is no machine code for {capability[0]}.{capability[1]}, only for {known or 'no GPU'}")
    for entry in found:
        if (entry.kind, entry.capability) != (CUBIN, capability):
            library[entry.start : entry.start + entry.size] = bytes(entry.size)
    return dict(sizes)
