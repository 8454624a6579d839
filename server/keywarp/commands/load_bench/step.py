"""One step of a load test: a number of cameras for some seconds, and what they and the server did."""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from keywarp.commands.load_bench.cameras import Camera, RefusedError
from keywarp.commands.load_bench.tally import KINDS, Tally
from keywarp.commands.other_work import OtherWork

LATE_SHARE: Final = 0.1  # of the objective's latency that the generator may be late, at its 99th percentile
GOLDEN: Final = 0.6180339887  # of a period: phases are spread evenly, whatever the number of cameras
SAMPLE_PERIOD: Final = 1.0  # seconds between two looks at the server's memory


@dataclass(frozen=True)
class Server:
    """What the server used, by its metrics. Figures that it doesn't export are None."""

    cores: float | None
    memory: int | None  # bytes, the most that was seen


@dataclass(frozen=True)
class Step:
    """What a step found."""

    cameras: int
    interval: int | None  # None: the model's
    seconds: float
    tally: Tally
    server: Server
    generator: float  # cores that this process took
    others: float | None  # cores that other programs took, but the server; None if the server is elsewhere
    refused: str | None = None  # why the server refused a camera

    def is_late(self, latency: float) -> bool:
        """Return whether the generator was too late to judge a latency (seconds) by this step."""
        return self.tally.lateness.percentile(99) > LATE_SHARE * latency

    @property
    def key_share(self) -> float:
        """The share of key frames in the results."""
        return len(self.tally.latencies["key"]) / self.tally.results if self.tally.results else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON; times in seconds."""
        tally = self.tally
        return {
            "cameras": self.cameras,
            "interval": self.interval,
            "seconds": self.seconds,
            "due": tally.due,
            "results": tally.results,
            "results_per_second": tally.results / self.seconds,
            "lost": dict(tally.lost),
            "key_share": self.key_share,
            "key_age": tally.ages / tally.results if tally.results else None,
            "latency": {"all": tally.all_latencies.as_dict()}
            | {kind: tally.latencies[kind].as_dict() for kind in KINDS if len(tally.latencies[kind])},
            "stages": {
                kind: {stage: total / len(tally.latencies[kind]) for stage, total in tally.stages[kind].items()}
                for kind in KINDS
                if len(tally.latencies[kind])
            },
            "server": {"cores": self.server.cores, "memory": self.server.memory},
            "generator": {"cores": self.generator, "lateness": tally.lateness.as_dict()},
            "other_work": self.others,
            "refused": self.refused,
        }


OpenCamera = Callable[[int, Tally], Camera]


async def run_step(
    open_camera: OpenCamera,
    watch: httpx.AsyncClient,
    *,
    cameras: int,
    interval: int | None,
    fps: float,
    warm_up: float,
    seconds: float,
    local: bool,
) -> Step:
    """Run cameras. Each sends a frame when it is due by the clock, whatever happened to the frames before.

    Args:
        open_camera: Makes the camera of a number, which counts in a tally.
        watch: A client of the server, for its metrics.
        cameras: Their number.
        interval: The key interval that they ask for, to note it.
        fps: Frames a second of each.
        warm_up: Seconds at first that aren't counted: all streams begin with a key frame.
        seconds: Seconds that are counted.
        local: Whether the server runs on this machine.

    Raises:
        CommandError: The server can't be reached.
    """
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.5 + 0.02 * cameras + warm_up  # there is time to open all streams
    tally = Tally(begin, begin + seconds)
    opened = [open_camera(number, tally) for number in range(cameras)]
    refused: str | None = None
    answers = await asyncio.gather(*(camera.open() for camera in opened), return_exceptions=True)
    ready = [camera for camera, answer in zip(opened, answers, strict=True) if answer is None]
    for answer in answers:
        if isinstance(answer, RefusedError):
            refused = str(answer)
        elif answer is not None:
            raise answer
    if refused:
        await asyncio.gather(*(camera.close() for camera in ready))
        return Step(cameras, interval, seconds, tally, Server(None, None), 0.0, None, refused)
    gc.collect()
    gc.disable()
    try:
        start = max(loop.time(), begin - warm_up)
        tally.shift(start + warm_up)
        sending = asyncio.gather(
            *(
                _film(camera, start + (number * GOLDEN % 1) / fps, fps, warm_up + seconds, tally)
                for number, camera in enumerate(opened)
            )
        )
        await asyncio.sleep(max(0.0, start + warm_up - loop.time()))
        others, before, own, at = OtherWork(), await _processor(watch), time.process_time(), loop.time()
        after, memory = before, [before[1]]
        while not sending.done():
            await asyncio.wait([sending], timeout=SAMPLE_PERIOD)
            after = await _processor(watch)
            memory.append(after[1])
        elapsed = loop.time() - at
        await sending
    finally:
        gc.enable()
    generator, other_cores = (time.process_time() - own) / elapsed, others.cores()
    cores = (after[0] - before[0]) / elapsed if before[0] is not None and after[0] is not None else None
    await asyncio.gather(*(camera.close() for camera in opened))
    known = [value for value in memory if value is not None]
    rest = max(0.0, other_cores - cores) if local and other_cores is not None and cores is not None else None
    return Step(cameras, interval, seconds, tally, Server(cores, max(known, default=None)), generator, rest)


async def _film(camera: Camera, start: float, fps: float, seconds: float, tally: Tally) -> None:
    """Send a camera's frames."""
    loop = asyncio.get_running_loop()
    for number in range(round(fps * seconds)):
        due = start + number / fps
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        tally.frame(due, loop.time())
        await camera.send(number, due)


async def _processor(watch: httpx.AsyncClient) -> tuple[float | None, int | None]:
    """Return the server's seconds of processor time, and its memory in bytes, as far as its metrics say."""
    try:
        text = (await watch.get("/metrics")).raise_for_status().text
    except httpx.HTTPError:
        return None, None
    wanted = "process_cpu_seconds_total ", "process_resident_memory_bytes "
    lines = "\n".join(line for line in text.splitlines() if line.startswith(wanted)) + "\n"
    found = {sample.name: sample.value for family in text_string_to_metric_families(lines) for sample in family.samples}
    memory = found.get("process_resident_memory_bytes")
    return found.get("process_cpu_seconds_total"), None if memory is None else int(memory)


def middle(steps: Sequence[Step]) -> Step:
    """Return the step with the median 99th percentile of several with the same number of cameras."""
    return sorted(steps, key=lambda step: step.tally.all_latencies.percentile(99))[len(steps) // 2]
