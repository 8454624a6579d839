"""Images that cost the server more than their bytes."""

import io
import threading
from functools import cache

import numpy as np
from PIL import Image

from keywarp.images.reader import MAX_SCANS
from tests.server.conftest import Running, Starter
from tests.server.faults.neighbour import undisturbed

SIDE = 4096  # pixels; the largest image that a server takes by default
ATTACKERS = 8  # streams


@cache
def with_scans(count: int) -> bytes:
    """Make a large progressive JPEG of 200 KB or less, whose last scan comes again until there are so many.

    It turns out to be damaged only after all of them were decoded.
    """
    file = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    start, more = data.rindex(b"\xff\xda"), count - data.count(b"\xff\xda")
    return data[:-2] + data[start:-2] * more + data[-2:]


def attack(server: Running, image: bytes, stop: threading.Event) -> list[threading.Thread]:
    """Send an image again and again, over several streams."""

    def send(stream: str) -> None:
        while not stop.is_set():
            assert server.frame(stream, image).status_code in (415, 422)

    threads = []
    for i in range(ATTACKERS):
        server.http.post("/v1/streams", json={"id": f"attacker-{i}"})
        threads.append(threading.Thread(target=send, args=[f"attacker-{i}"]))
        threads[-1].start()
    return threads


def test_images_of_too_many_scans_disturb_no_stream(server: Running) -> None:
    image = with_scans(2646)
    with undisturbed(server) as neighbour:
        server.http.post("/v1/streams", json={"id": "attacker"})
        for _ in range(3):
            refused = server.frame("attacker", image)
            assert refused.status_code == 415
            assert "2646 scans" in refused.json()["detail"]
        neighbour.receives(3)


def test_slow_images_of_many_streams_leave_a_thread_to_quick_ones(start: Starter) -> None:
    server, stop = start(), threading.Event()
    with undisturbed(server) as neighbour:
        threads = attack(server, with_scans(MAX_SCANS), stop)
        neighbour.receives(20)
        stop.set()
        for thread in threads:
            thread.join()
