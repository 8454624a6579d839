"""Share out the cameras of a site over several servers on one host, so that exactly one pulls each.

A server that pulls a camera holds a lock on the camera's file in a folder that all servers use. The kernel sees to it
that one process holds a lock, and releases the locks of a process that dies, however it dies. The servers don't talk to
each other. Each reads in the same folder how many servers there are and how many cameras each of them has, and takes
cameras that are free while it has the fewest.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

from keywarp.server.errors import SiteError

MOST_SERVERS: Final = 256
LONGEST_FREE: Final = 8  # rounds after which any server takes a camera that those with fewer left alone


@dataclass(frozen=True, slots=True)
class Moves:
    """What one server should do now."""

    take: tuple[str, ...] = ()  # free cameras, of which another server may take some first
    give: str | None = None  # a camera that this server should leave to one with fewer


class Leases:
    """The locks of one server. The methods read and lock files, and may be called from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        """Announce this server to the others.

        Raises:
            SiteError: The folder can't be used, or too many servers use it.
        """
        self._folder = folder
        self._held: dict[str, int] = {}  # open files by camera
        self._free: Counter[str] = Counter()  # how many rounds cameras have been free
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._presence: int | None
            self._server, self._presence = self._announce()
        except OSError as error:
            raise SiteError(f"the cameras can't be shared out in {folder}: {error}") from error

    def __contains__(self, camera: str) -> bool:
        """Return whether this server holds a camera."""
        return camera in self._held

    def plan(self, cameras: Collection[str]) -> Moves:
        """Decide which cameras to take and to give up. Call it in turns of equal length.

        Args:
            cameras: All cameras of the site.

        Raises:
            SiteError: The folder can't be read.
        """
        try:
            counts = dict.fromkeys(self._servers(), 0)
            holders = {camera: self._holder(camera) for camera in cameras}
        except OSError as error:
            raise SiteError(f"the cameras can't be shared out in {self._folder}: {error}") from error
        for holder in holders.values():
            if holder in counts:
                counts[holder] += 1
        free = [camera for camera in cameras if holders[camera] is None]
        self._free = Counter({camera: self._free[camera] + 1 for camera in free})
        return self._moves(counts, free)

    def take(self, camera: str) -> bool:
        """Take a camera, and return whether this server now holds it. Another one may have been faster.

        Raises:
            OSError: The camera's file can't be written. Nobody holds it.
        """
        if camera in self._held:
            return True
        file = os.open(self._folder / f"camera-{camera}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if _lock(file):
                os.ftruncate(file, 0)
                os.pwrite(file, str(self._server).encode(), 0)  # for those who count, and for the operator
                self._held[camera] = file
        finally:
            if camera not in self._held:
                os.close(file)
        return camera in self._held

    def give(self, camera: str) -> None:
        """Give a camera up. Giving it up again does nothing."""
        if camera in self._held:
            os.close(self._held.pop(camera))

    def close(self) -> None:
        """Give everything up, and leave. Leaving again does nothing."""
        for camera in tuple(self._held):
            self.give(camera)
        if self._presence is not None:
            os.close(self._presence)
            self._presence = None

    def _moves(self, counts: Mapping[int, int], free: Collection[str]) -> Moves:
        mine, fewest = counts[self._server], min(counts.values())
        if mine > fewest:
            abandoned = tuple(camera for camera in free if self._free[camera] > LONGEST_FREE)
            most = max(counts.values())
            first = min(server for server, count in counts.items() if count == most)
            if not free and first == self._server and most > fewest + 1:  # one at a time
                return Moves(give=next(reversed(self._held)))
            return Moves(abandoned)
        return Moves(tuple(free)[: ceil(len(free) / len(counts))])

    def _announce(self) -> tuple[int, int]:
        """Lock the file of the first free number, and return the number and the open file."""
        for number in range(MOST_SERVERS):
            file = os.open(self._presence_path(number), os.O_CREAT | os.O_RDWR, 0o600)
            if _lock(file):
                return number, file
            os.close(file)
        raise OSError(f"{MOST_SERVERS} servers use it")

    def _servers(self) -> list[int]:
        """Return the numbers of the servers that live, this one included."""
        numbers = []
        for path in self._folder.glob("server-*.lock"):
            number = int(path.stem.removeprefix("server-"))
            if number == self._server or _is_locked(path):
                numbers.append(number)
        return sorted(numbers)

    def _holder(self, camera: str) -> int | None:
        """Return the number of the server that holds a camera, -1 if that isn't known yet, or None if it is free."""
        if camera in self._held:
            return self._server
        path = self._folder / f"camera-{camera}.lock"
        if not _is_locked(path):
            return None
        content = path.read_bytes()
        return int(content) if content.isdigit() else -1

    def _presence_path(self, number: int) -> Path:
        return self._folder / f"server-{number}.lock"


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Return whether a server holds a file's lock. A shared lock finds that out without excluding others who ask."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)
