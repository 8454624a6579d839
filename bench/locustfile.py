"""Users of Locust that are cameras: each sends JPEGs to a stream of its own, at `KEYWARP_FPS` frames a second.

Example: locust -f bench/locustfile.py --host http://127.0.0.1:8080 --users 8 --spawn-rate 4 --headless --run-time 30s
"""

import os
import random
import secrets
import time

from locust import HttpUser, task

from keywarp.commands.load_generator import make_payloads
from keywarp.commands.sample_video import sample_video

FPS = float(os.environ.get("KEYWARP_FPS", "10"))
FRAMES = 50  # of the clip that cameras repeat

PAYLOADS = make_payloads(sample_video(), "image", FRAMES)  # made before users begin


class Camera(HttpUser):  # type: ignore[misc]
    """A camera. Its response times count from when each frame was due."""

    def on_start(self) -> None:
        """Create the stream, and begin at a phase of its own."""
        self.path = f"/v1/streams/locust-{secrets.token_hex(4)}"
        self.client.put(self.path, json={"mode": "latest"}, name="create").raise_for_status()
        self.number = 0
        self.start = time.monotonic() + random.random() / FPS

    def on_stop(self) -> None:
        """Delete the stream."""
        self.client.delete(self.path, name="delete")

    @task  # type: ignore[untyped-decorator]
    def frame(self) -> None:
        """Send the next frame as soon as it is due."""
        due = self.start + self.number / FPS
        time.sleep(max(0.0, due - time.monotonic()))  # Locust lets other users run meanwhile
        sent = time.monotonic()
        image = PAYLOADS[self.number % FRAMES]
        self.number += 1
        with self.client.post(f"{self.path}/frames", data=image, name="frame", catch_response=True) as response:
            response.request_meta["response_time"] += 1000 * (sent - due)
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
