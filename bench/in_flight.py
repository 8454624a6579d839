"""Simulates frames in flight on GPUs that aren't at hand: the real executor, with a device and a host of virtual time.

The paper's R-FCN (ResNet-101, FlowNet, 31 classes) on frames of 720x1280, scaled to 600x1000. The host's stages are
measured on this machine, alone and beside a thread that always wants Python's interpreter: the time in which that
thread sleeps is the time in which the stage holds the interpreter. On a busy machine that is too low, since waiting for
a core isn't sleep. The device's times follow from floating-point operations, the card's peak, a share of it that such
networks reach, and the bus. Then `Executor` runs sessions whose stages let virtual time pass: each core, the
interpreter, both copy engines and the device's computing take one thing after another.

Four ways are compared: one frame at a time, as before frames in flight, and several; each with detection's last step on
the host, for which 16.9 MB are downloaded, and on the device, for which 0.3 ms are assumed.

It needs no GPU. Example: python -m bench.in_flight --cores 16 --lanes 4 8
"""

import argparse
import heapq
import io
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from bench.gpu.detection import CLASSES, random_maps
from bench.gpu.frames import moving_frames
from bench.gpu.graphs import PAPER_SIZE
from bench.imports import machine
from keywarp.engines import Executor, FrameKind, FrameResult, StreamSession
from keywarp.engines.detection.regions import RegionDetector
from keywarp.engines.manifest import RegionDetection
from keywarp.engines.motion.repair import FlowCheck
from keywarp.engines.preparation import resize
from keywarp.engines.result import Detections

CAMERA: Final = (720, 1280)
INTERVAL: Final = 10
KEY_OPERATIONS: Final = 330e9  # of a key frame: ResNet-101 at stride 16 and R-FCN's head at 600x1000
PROPAGATED_OPERATIONS: Final = 30e9  # FlowNet at half the size, the warp and the head
UPLOAD: Final = 600 * 1000 * 3  # bytes of a frame
DOWNLOAD: Final = 16.9e6  # bytes of the maps that detection reads on the host
OBJECTS: Final = 2.4e3  # bytes of the objects that it finds on the device
TAIL: Final = 0.0003  # seconds of detection's kernels on the device, assumed
LAUNCH: Final = 0.0001  # seconds of a thread to queue a frame's work as CUDA graphs, assumed
AHEAD: Final = 2  # frames of a stream that are decoded and wait for their turn, or run
ROUNDS: Final = 15  # of a measurement


@dataclass(frozen=True)
class Card:
    """A GPU: its peak in fp16, what share of it one frame's networks reach (assumed), and its bus."""

    name: str
    peak: float  # operations a second, dense
    reached: float  # 0..1
    bus: float  # bytes a second in one direction


CARDS: Final = (
    Card("T4", 65e12, 0.4, 12e9),
    Card("A10", 125e12, 0.4, 24e9),
    Card("H200", 989e12, 0.2, 50e9),
)


@dataclass(frozen=True)
class HostStage:
    """Work of the processor for a frame."""

    seconds: float
    interpreter: float  # seconds of these that hold Python's interpreter


# -- measurements ------------------------------------------------------------------------------------------------------


def measure_stages() -> dict[str, HostStage]:
    """Measure the host's stages on this machine."""
    frames = moving_frames(24, *CAMERA)
    small_size = (PAPER_SIZE[1] // 2, PAPER_SIZE[0] // 2)
    staging = np.empty((*PAPER_SIZE, 3), np.uint8)
    settings = RegionDetection()
    detector, maps = RegionDetector(settings, CLASSES, *PAPER_SIZE), random_maps(0, settings, PAPER_SIZE)
    small = cv2.resize(frames[0], small_size)
    check = FlowCheck(np.asarray(small, np.uint8), 8)
    flow = np.full((1, 2, -(-small.shape[0] // 8), -(-small.shape[1] // 8)), 0.3, np.float32)
    pictures = decoded(encode(frames))

    def prepare() -> None:
        picture = resize(frames[0], *PAPER_SIZE)
        cv2.resize(picture, small_size, interpolation=cv2.INTER_AREA)
        np.copyto(staging, picture)

    work: dict[str, Callable[[], Any]] = {
        "decode": lambda: next(pictures),
        "prepare": prepare,
        "check": lambda: check.check(np.asarray(small, np.uint8), flow),
        "tail": lambda: detector.detect(maps),
    }
    return {name: measure(run) for name, run in work.items()}


def measure(run: Callable[[], Any]) -> HostStage:
    """Measure work alone, and beside a thread that always wants the interpreter."""
    for _ in range(3):
        run()
    alone = _median(run)
    stop, interval = threading.Event(), sys.getswitchinterval()
    asleep: list[float] = []
    greedy = threading.Thread(target=_want_interpreter, args=(stop, asleep), daemon=True)
    sys.setswitchinterval(1e-4)
    greedy.start()
    try:
        for _ in range(ROUNDS):
            run()
    finally:
        stop.set()
        greedy.join()
        sys.setswitchinterval(interval)
    return HostStage(alone, min(alone, asleep[0] / ROUNDS))


def _want_interpreter(stop: threading.Event, asleep: list[float]) -> None:
    """Want the interpreter until told to stop, and add the seconds in which this thread was asleep."""
    began, (ran, waited) = time.perf_counter(), _scheduled()
    while not stop.is_set():
        pass
    passed, (ran_now, waited_now) = time.perf_counter() - began, _scheduled()
    asleep.append(max(0.0, passed - (ran_now - ran) - (waited_now - waited)))


def _scheduled() -> tuple[float, float]:
    """Return the seconds in which this thread ran, and in which it waited for a core."""
    ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def _median(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def encode(frames: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return a video in H.264."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width = CAMERA
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return target.getvalue()


def decoded(video: bytes) -> Iterator[NDArray[np.uint8]]:
    """Yield a video's frames again and again, each decoded by one thread."""
    while True:
        with av.open(io.BytesIO(video), "r") as container:
            container.streams.video[0].codec_context.thread_count = 1
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


# -- virtual time ------------------------------------------------------------------------------------------------------


class Resource:
    """What takes one thing after another, on each of some places."""

    def __init__(self, places: int = 1) -> None:
        self.free = [0.0] * places  # when each place is free
        self.busy = 0.0


class VirtualClock:
    """Time that passes only when all threads of an executor wait for it. So results don't depend on this machine.

    A lane of the executor is free, runs a session, or is on the way from one to the other. Time stands still unless all
    are free or asleep.
    """

    def __init__(self, executor: Executor) -> None:
        """Start at 0 seconds."""
        self.now = 0.0
        self._executor = executor
        self._numbers = count()
        self._changed = threading.Condition()
        self._asleep = 0
        self._due: list[tuple[float, int, bool, Callable[[], object]]] = []  # when, whether a thread wakes up, call

    def use(self, seconds: float, *resources: Resource) -> float:
        """Take the next free place of all resources for some time, and return when that ends."""
        with self._changed:
            begin = max(self.now, *(min(resource.free) for resource in resources))
            for resource in resources:
                resource.free[resource.free.index(min(resource.free))] = begin + seconds
                resource.busy += seconds
            return begin + seconds

    def sleep_until(self, moment: float) -> None:
        """Let a lane's thread sleep."""
        woken = threading.Event()
        with self._changed:
            self._asleep += 1
            heapq.heappush(self._due, (moment, next(self._numbers), True, woken.set))
        woken.wait()

    def call_at(self, moment: float, call: Callable[[], object]) -> None:
        """Call something at a time, from the thread that runs the clock."""
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._numbers), False, call))

    def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until something is true."""
        while not until():
            executor = self._executor
            with executor._lock, self._changed:
                lanes = len(executor._free) + len(executor._running)
                still = lanes == executor.lanes and self._asleep == len(executor._running)
                call = None
                if still and self._due:
                    moment, _, wakes, call = heapq.heappop(self._due)
                    self.now = max(self.now, moment)
                    self._asleep -= wakes
            if call:
                call()
            else:
                time.sleep(2e-5)


@dataclass(frozen=True)
class World:
    """The simulated machine."""

    clock: VirtualClock
    card: Card
    stages: dict[str, HostStage]
    cores: Resource
    interpreter: Resource
    upload: Resource
    compute: Resource
    download: Resource
    on_device: bool  # whether detection's last step runs there

    def work(self, stage: HostStage) -> None:
        """Let a lane's thread work on the host: in turns, it holds the interpreter and doesn't."""
        turns = 2
        for _ in range(turns):
            if stage.interpreter:
                self.clock.sleep_until(self.clock.use(stage.interpreter / turns, self.cores, self.interpreter))
            if stage.seconds > stage.interpreter:
                self.clock.sleep_until(self.clock.use((stage.seconds - stage.interpreter) / turns, self.cores))

    def decode(self) -> float:
        """Decode a frame, and return when that is done."""
        stage = self.stages["decode"]
        end = self.clock.use(stage.interpreter, self.cores, self.interpreter)
        return max(end, self.clock.use(stage.seconds - stage.interpreter, self.cores))


class SimulatedSession:
    """A session whose stages take virtual time."""

    owed = useful = 0

    def __init__(self, world: World) -> None:
        """Start with a key frame."""
        self._world = world
        self._index = 0

    def process(self, *_place: Any, **_more: Any) -> FrameResult:
        """Let the time of a frame pass."""
        world, key = self._world, self._index % INTERVAL == 0
        self._index += 1
        clock, card, stages = world.clock, world.card, world.stages
        world.work(stages["prepare"])
        world.work(HostStage(LAUNCH, LAUNCH / 2))
        clock.sleep_until(clock.use(UPLOAD * (1 if key else 0.25) / card.bus, world.upload))
        operations = KEY_OPERATIONS if key else PROPAGATED_OPERATIONS
        tail = TAIL if world.on_device else 0.0
        clock.sleep_until(clock.use(operations / (card.peak * card.reached) + tail, world.compute))
        clock.sleep_until(clock.use((OBJECTS if world.on_device else DOWNLOAD) / card.bus, world.download))
        if not world.on_device:
            world.work(stages["tail"])
        if not key:
            world.work(stages["check"])
        kind = FrameKind.KEY if key else FrameKind.PROPAGATED
        nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        return FrameResult(self._index - 1, kind, 0, *CAMERA, nothing, 0.0, 0.0)


@dataclass(frozen=True)
class Figure:
    """What a way of running frames gives on a card."""

    card: str
    lanes: int
    on_device: bool
    fps: float
    device: float  # share of the time in which the GPU computes
    interpreter: float  # share of the time in which Python's interpreter is held
    cores: float  # cores in use


def simulate(
    card: Card, stages: dict[str, HostStage], lanes: int, *, cores: int, streams: int, frames: int, on_device: bool
) -> Figure:
    """Run some streams, each with some frames, on a card.

    Args:
        card: The GPU.
        stages: The host's stages.
        lanes: The frames in flight.
        cores: The cores of the simulated host.
        streams: The number of streams, which always have frames.
        frames: The frames of each.
        on_device: Whether detection's last step runs on the GPU.
    """
    executor = Executor(lanes, in_flight=True)
    clock = VirtualClock(executor)
    world = World(
        clock, card, stages, Resource(cores), Resource(), Resource(), Resource(), Resource(), on_device=on_device
    )
    picture, done = np.zeros((1, 1, 3), np.uint8), 0
    indices: list[list[int]] = [[] for _ in range(streams)]

    def begin(number: int, session: StreamSession, left: list[int]) -> None:
        if not left[0]:
            return
        left[0] -= 1

        def submit() -> None:
            executor.submit(session, picture).add_done_callback(lambda future: finish(future, number, session, left))

        clock.call_at(world.decode(), submit)

    def finish(future: Future[FrameResult], number: int, session: StreamSession, left: list[int]) -> None:
        nonlocal done
        done += 1
        indices[number].append(future.result().index)
        begin(number, session, left)

    for number in range(streams):
        session, left = cast("StreamSession", SimulatedSession(world)), [frames]
        for _ in range(AHEAD):
            begin(number, session, left)
    clock.run(lambda: done == streams * frames)
    executor.close()
    if any(found != sorted(found) for found in indices):
        raise RuntimeError("results of a stream came out of order")
    busy = [resource.busy / clock.now for resource in (world.compute, world.interpreter, world.cores)]
    return Figure(card.name, lanes, on_device, streams * frames / clock.now, *busy)


def main() -> None:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=16, help="cores of the simulated host (default: 16)")
    parser.add_argument("--lanes", type=int, nargs="+", default=[4, 8], help="frames in flight (default: 4 8)")
    parser.add_argument("--streams", type=int, default=8, help="streams that always have frames (default: 8)")
    parser.add_argument("--frames", type=int, default=20, help="frames of each stream (default: 20)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    arguments = parser.parse_args()
    stages = measure_stages()
    size = {"cores": arguments.cores, "streams": arguments.streams, "frames": arguments.frames}
    figures = [
        simulate(card, stages, lanes, on_device=on_device, **size)
        for card in CARDS
        for on_device in (False, True)
        for lanes in (1, *arguments.lanes)
    ]
    if arguments.json:
        times = {name: asdict(stage) for name, stage in stages.items()}
        print(json.dumps({"machine": machine(), **size, "stages": times, "figures": [asdict(f) for f in figures]}))
        return
    print(f"host stages measured on {machine()}; simulated: {arguments.cores} cores, {arguments.streams} streams")
    print("\n| stage | ms | of these with the interpreter |\n| --- | ---: | ---: |")
    for name, stage in stages.items():
        print(f"| {name} | {1000 * stage.seconds:.2f} | {1000 * stage.interpreter:.2f} |")
    print("\n| card | detection's last step | in flight | fps | times | GPU computes | interpreter held | cores |")
    print("| --- | --- | " + "---: | " * 6)
    serial = {figure.card: figure.fps for figure in figures if figure.lanes == 1 and not figure.on_device}
    for figure in figures:
        shares = f"{100 * figure.device:.0f} % | {100 * figure.interpreter:.0f} % | {figure.cores:.1f}"
        place = "GPU" if figure.on_device else "host"
        ratio = figure.fps / serial[figure.card]
        print(f"| {figure.card} | {place} | {figure.lanes} | {figure.fps:.0f} | {ratio:.1f} | {shares} |")


if __name__ == "__main__":
    main()
