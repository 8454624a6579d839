"""Servers behind haproxy, with the configuration that Keywarp ships."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.running import ROOT

CONFIGURATION = ROOT / "docker" / "haproxy" / "haproxy.cfg"
PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
START_SECONDS = 20.0


@contextmanager
def haproxy(folder: Path, servers: Sequence[str], port: int = 0) -> Iterator[str]:
    """Run haproxy in front of servers until the block ends, and give its URL.

    It listens on a free port, unless one is given. Only its address and the servers' differ from the shipped
    configuration.
    """
    command = shutil.which("haproxy", path=PATH)
    if not command:
        pytest.skip("no haproxy: `make packages` installs it")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    named = "\n".join(f"    server s{number} {urlsplit(url).netloc}" for number, url in enumerate(servers, 1))
    text = CONFIGURATION.read_text().replace("bind :8080", f"bind {address}")
    text, templates = re.subn(r"(?m)(^    server-template .*\n)+", named + "\n", text)
    assert templates == 1
    config = folder / "haproxy.cfg"
    config.write_text(text)
    with subprocess.Popen([command, "-db", "-f", config], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(f"http://{address}/readyz"):
                assert time.monotonic() < deadline, "haproxy finds no server that is ready"
                time.sleep(0.05)
            yield f"http://{address}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
