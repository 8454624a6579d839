"""Measures what it would cost to decode video in a child process, which could be given a memory limit of its own.

H.264 is decoded here, or in a child that gets packets through a pipe and hands frames over in shared memory. Both take
turns.

Example: python -m bench.child_decoder --sizes 640x368 1920x1088
"""

import argparse
import io
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Final

import av
import numpy as np

FRAMES: Final = 60
ROUNDS: Final = 5


def packets(width: int, height: int) -> list[bytes]:
    """Encode a moving texture."""
    file, encoded = io.BytesIO(), list[bytes]()
    tiles = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    picture = tiles.repeat(16, 0).repeat(16, 1)
    with av.open(file, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(picture, 3 * i, 1)), format="rgb24")
            frame.pts = i
            encoded += [bytes(packet) for packet in stream.encode(frame)]
        return encoded + [bytes(packet) for packet in stream.encode(None)]


def decode(encoded: Sequence[bytes]) -> Iterator[Any]:
    """Yield the pixels of all frames."""
    context: Any = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    for packet in encoded:
        for frame in context.decode(av.Packet(packet)):
            yield frame.to_ndarray(format="rgb24")


def child(pipe: Connection, name: str) -> None:
    """Decode packets from a pipe until an empty one comes. Then return this process's peak of memory, in MB."""
    memory = SharedMemory(name)
    context: Any = av.CodecContext.create("h264", "r")
    context.thread_count = 1
    while packet := pipe.recv_bytes():
        shapes = []
        for frame in context.decode(av.Packet(packet)):
            pixels = frame.to_ndarray(format="rgb24")
            np.ndarray(pixels.shape, np.uint8, memory.buf)[:] = pixels
            shapes.append(pixels.shape)
        pipe.send(shapes)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


@contextmanager
def shared(size: int) -> Iterator[SharedMemory]:
    """Make shared memory for one frame."""
    memory = SharedMemory(create=True, size=size)
    try:
        yield memory
    finally:
        memory.close()
        memory.unlink()


def in_this_process(encoded: Sequence[bytes]) -> float:
    """Return the milliseconds of a frame."""
    started = time.perf_counter()
    count = sum(1 for _ in decode(encoded))
    return (time.perf_counter() - started) / count * 1000


def in_a_child(encoded: Sequence[bytes], memory: SharedMemory) -> tuple[float, float, float]:
    """Return the milliseconds of a frame and until the first response, and the child's memory in MB."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["av", "numpy"])
    ours, theirs = context.Pipe()
    begun = time.perf_counter()
    process = context.Process(target=child, args=(theirs, memory.name))
    process.start()
    ours.send_bytes(encoded[0])
    ours.recv()
    started, count = time.perf_counter(), 0
    for packet in encoded[1:]:
        ours.send_bytes(packet)
        for shape in ours.recv():
            np.ndarray(shape, np.uint8, memory.buf).copy()
            count += 1
    milliseconds = (time.perf_counter() - started) / count * 1000
    ours.send_bytes(b"")
    megabytes = ours.recv()
    process.join()
    return milliseconds, (started - begun) * 1000, megabytes


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    from keywarp.experiments.report import machine, table  # imports torch, which the child doesn't need

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["640x368", "1280x720", "1920x1088"], help="of frames, in pixels")
    rows = []
    for size in parser.parse_args(arguments).sizes:
        width, height = map(int, size.split("x"))
        encoded = packets(width, height)
        with shared(width * height * 3) as memory:
            both = [(in_this_process(encoded), *in_a_child(encoded, memory)) for _ in range(ROUNDS)]
        here, there, first, megabytes = (statistics.median(column) for column in zip(*both, strict=True))
        rows.append([size, f"{here:.2f}", f"{there:.2f}", f"{there - here:+.2f}", f"{first:.0f}", f"{megabytes:.0f}"])
    print(machine())
    print(table(["frames", "here, ms", "in a child, ms", "difference", "first response, ms", "child, MB"], rows))


if __name__ == "__main__":
    main()
