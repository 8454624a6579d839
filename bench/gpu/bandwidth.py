"""The bandwidth of a kernel, beside what copies reach on the card."""

import statistics
from collections.abc import Callable, Mapping
from typing import Final

from bench.gpu.case import Case
from keywarp.engines.backends.tensorrt.driver import Driver

ROTATED: Final = 2**28  # bytes of all buffers that take turns, several times the caches of current cards
LAUNCHES: Final = 200
ROUNDS: Final = 5


def buffer_sets(case: Case, moved: int) -> int:
    """Return how many sets of buffers take turns, so that no cache helps.

    Args:
        case: The check that runs.
        moved: The bytes that a run reads and writes.
    """
    return 2 if case.dry else min(512, max(2, -(-ROTATED // moved)))


def measure(
    case: Case, driver: Driver, stream: int, moved: int, sets: int, queue: Callable[[int], None]
) -> Mapping[str, float]:
    """Return the time and bandwidth of a run.

    Args:
        case: The check that runs.
        driver: The device's driver.
        stream: The stream that `queue` uses.
        moved: The bytes that a run must read and write at least.
        sets: The number of sets of buffers.
        queue: Queues a run on one of the sets.
    """
    launches, times = sets if case.dry else max(LAUNCHES, sets), []
    start, end = driver.open_event(), driver.open_event()
    for _ in range(1 + (2 if case.dry else ROUNDS)):  # the first one warms up
        driver.record(start, stream)
        for number in range(launches):
            queue(number % sets)
        driver.record(end, stream)
        driver.synchronize(stream)
        times.append(driver.elapsed(start, end) / launches)
    driver.close_event(start)
    driver.close_event(end)
    seconds = statistics.median(times[1:])
    figure = {"us": 1e6 * seconds, "gb_per_s": moved / seconds / 1e9, "bytes": moved, "buffers": sets}
    ceiling = case.earlier("machine").get("copy_gb_per_s")
    if ceiling:
        figure["share_of_copy"] = figure["gb_per_s"] / ceiling
    return figure
