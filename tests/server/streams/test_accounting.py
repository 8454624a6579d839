"""No frame is lost without being counted, and nothing is left of clients that disconnected."""

import gc
import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from keywarp.protocol import Done, Dropped, Error, Hello, Result
from tests.server.conftest import LANES, Running, Starter, StreamConnection, eventually
from tests.server.media import B_FRAMES, h264, jpeg, mpegts, pieces

FRAMES = 120
CYCLES = 200


def counted(server: Running, name: str) -> Counter[str]:
    """Return a metric's values by their labels."""
    found: Counter[str] = Counter()
    for line in server.http.get("/metrics").text.splitlines():
        if line.startswith(f"{name}{{"):
            labels, _, value = line.removeprefix(name).rpartition(" ")
            found[labels] += int(float(value))
    return found


class Camera(threading.Thread):
    """Feeds one stream, as fast as the credit allows, and counts the responses."""

    def __init__(self, server: Running, name: str, hello: Hello, payloads: list[tuple[int | None, bytes]]) -> None:
        super().__init__(name=name)
        self._server = server
        self._hello = hello
        self._payloads = payloads
        self.frames: list[int | None] = []
        self.answers: Counter[str] = Counter()
        self.done: Done | None = None

    def run(self) -> None:
        with self._server.connect(self.name, self._hello) as talk:
            answers, self.done = talk.stream(self._payloads)
        self.frames = [answer.frame for answer in answers]
        self.answers = Counter(answer.type for answer in answers)


def images(seed: int) -> list[tuple[int | None, bytes]]:
    """Make payloads of which one in ten is no image."""
    chance = random.Random(seed)
    return [(i, b"no image" if chance.random() < 0.1 else jpeg()) for i in range(FRAMES)]


def test_each_frame_that_was_sent_is_a_result_a_drop_or_an_error(start: Starter) -> None:
    """Seven streams of mixed kinds share a device that is too slow for them, and an eighth disconnects meanwhile."""
    server = start(credit=16)
    release = server.hold_device()
    chunks: list[tuple[int | None, bytes]] = [(None, piece) for piece in pieces(mpegts(FRAMES, B_FRAMES), 1316)]
    cameras = [
        *(Camera(server, f"lossless-{i}", Hello(interval=5), images(i)) for i in range(2)),
        *(Camera(server, f"latest-{i}", Hello(interval=5, mode="latest"), images(i)) for i in range(3)),
        Camera(server, "h264", Hello(codec="h264", mode="latest"), [*h264(FRAMES, B_FRAMES)]),
        Camera(server, "mpegts", Hello(codec="mpegts"), chunks),
    ]
    with server.connect("killed", Hello(mode="latest")) as killed:
        for camera in cameras:
            camera.start()
        for _ in range(8):
            killed.frame(jpeg())
        # The device stalls until frames of all streams wait for it.
        eventually(lambda: server.service.devices[0].executor.depth >= len(cameras) + LANES + 1)
        release()
        killed.result()
        disconnect(killed)
    for camera in cameras:
        camera.join(60)
        assert camera.frames == list(range(FRAMES)), camera.name
        done = camera.done
        assert done is not None
        assert camera.answers == Counter(result=done.frames, error=done.errors, dropped=done.dropped), camera.name
        assert done.frames + done.errors + done.dropped == FRAMES
    latest = {camera.name for camera in cameras if camera.answers["dropped"]}
    assert latest
    assert latest <= {"latest-0", "latest-1", "latest-2", "h264"}
    eventually(lambda: len(server.service.streams) == 0)
    answers = sum((camera.answers for camera in cameras), Counter[str]())
    results, drops = counted(server, "keywarp_frames_total"), counted(server, "keywarp_frames_dropped_total")
    errors = counted(server, "keywarp_frame_errors_total")
    # The killed client's frames are in the metrics too, each at most once.
    assert answers["result"] <= results.total() <= answers["result"] + 8
    assert answers["dropped"] <= drops.total() <= answers["dropped"] + 8
    assert errors.total() == answers["error"]
    assert results.total() + drops.total() + errors.total() <= answers.total() + 8


def disconnect(talk: StreamConnection) -> None:
    """Disconnect without a close frame."""
    talk.socket.socket.shutdown(2)


@pytest.mark.parametrize(
    ("hello", "payload"),
    [(Hello(), jpeg()), (Hello(mode="latest"), jpeg()), (Hello(codec="mpegts"), mpegts(20, B_FRAMES)[:1316])],
    ids=["lossless", "latest", "mpegts"],
)
def test_clients_that_disconnect_leave_no_memory_task_thread_or_file_behind(
    server: Running, hello: Hello, payload: bytes
) -> None:
    def cycle(number: int) -> None:
        with server.connect(f"gone-{number}", hello) as talk:
            for _ in range(3):
                talk.frame(payload)
            if hello.codec == "image":
                assert isinstance(talk.receive(), Result | Error | Dropped)
            disconnect(talk)

    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for number in range(CYCLES):  # until pools, caches and the allocator have their final size
        cycle(number)
    eventually(lambda: len(server.service.streams) == 0)
    files, threads, memory = open_files(), threading.active_count(), resident()
    for number in range(CYCLES):
        cycle(number)
    eventually(lambda: len(server.service.streams) == 0)
    eventually(lambda: not server.tasks())
    eventually(lambda: open_files() <= files)
    eventually(lambda: threading.active_count() <= threads + 8)  # pools start threads when they need them
    grown = resident() - memory
    print(f"{hello.codec}, {hello.mode}: {grown / 2**20:.1f} MiB grown over {CYCLES} streams")
    assert grown < 16 * 2**20
