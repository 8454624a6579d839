"""The cores of the processor, and how frames share them."""

import os

LANES = 4  # at most, unless each can have as many cores


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS and Windows


def usual_lanes(threads: int = 0) -> int:
    """Return how many frames of different streams run at the same time.

    One inference gains little from many cores: its small layers and the work around it use one. So up to four frames
    have a core each, and more only if each has four.

    Args:
        threads: The number of threads of all frames together, or 0 for a thread on each core.
    """
    cores = threads or available_cores()
    return max(min(cores, LANES), cores // LANES)
