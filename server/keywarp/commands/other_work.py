"""The work of other programs on this machine while something is measured, which makes times longer."""

import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

QUIET = 0.2  # cores: other work that hardly disturbs
STAT = Path("/proc/stat")  # Linux's counters of the processors' time
BUSY = (0, 1, 2, 5, 6, 7)  # of its columns: user, nice, system, interrupts, and what other virtual machines took


def seconds_of_all() -> float | None:
    """Return the processor time that everything on this machine took since it started; None except on Linux."""
    if not STAT.exists():
        return None
    columns = STAT.read_text(encoding="ascii").splitlines()[0].split()[1:]
    return sum(int(columns[index]) for index in BUSY) / os.sysconf("SC_CLK_TCK")


def seconds_of_own() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass
class OtherWork:
    """Counts the processor time that other programs than this one and its children take, from when it is made."""

    started: float = field(default_factory=time.monotonic)  # seconds
    all_before: float | None = field(default_factory=seconds_of_all)  # seconds
    own_before: float = field(default_factory=seconds_of_own)  # seconds

    def cores(self) -> float | None:
        """Return how many cores they took on average; None except on Linux. Children count once they have ended."""
        total, own = seconds_of_all(), seconds_of_own()
        if total is None or self.all_before is None:
            return None
        others = (total - self.all_before) - (own - self.own_before)
        return max(0.0, others / (time.monotonic() - self.started))
