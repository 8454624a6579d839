"""Runs the stand-in for a camera as a process."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    """A stand-in that runs.

    Attributes:
        udp: The port that it answers probes at, on 127.0.0.1.
        http: The port of its services.
        process: It. It prints `refused` for each request that it refuses for the user and password.
    """

    udp: int
    http: int
    process: subprocess.Popen[str]

    @property
    def service(self) -> str:
        return f"http://127.0.0.1:{self.http}/onvif/device_service"

    def stop(self) -> int:
        """Stop it, and return the number of requests that it refused."""
        self.process.terminate()
        printed, _ = self.process.communicate(timeout=30)
        return printed.count("refused")


@contextmanager
def camera(*options: str) -> Iterator[Running]:
    """Run a stand-in with the options of `tests/onvif/camera.py`."""
    script = Path(__file__).with_name("camera.py")
    with subprocess.Popen(
        [sys.executable, str(script), *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
    ) as process:
        try:
            assert process.stdout is not None
            udp, http = map(int, process.stdout.readline().split())
            yield Running(udp, http, process)
        finally:
            process.kill()
