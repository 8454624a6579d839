"""Look at the beginning of a source that can't be read, to say what it is."""

from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx

from keywarp.videos import HEAD_BYTES, describe_other

_TIMEOUT: Final = 5.0  # seconds for each step of a request


def describe_file(path: Path) -> str | None:
    """Say what a file is, as the rest of a sentence, or return None if that isn't known."""
    with suppress(OSError), path.open("rb") as file:
        return describe_other(file.read(HEAD_BYTES))
    return None


def describe_address(address: str) -> str | None:
    """Say what a web server gives for an address, likewise."""
    if not address.startswith(("http:", "https:")):
        return None
    with (
        suppress(httpx.HTTPError, httpx.InvalidURL),
        httpx.stream("GET", address, timeout=_TIMEOUT, follow_redirects=True) as response,
    ):
        if not response.is_success:
            return f"can't be opened: the web server responds with status {response.status_code}"
        head = b""
        for piece in response.iter_bytes():
            head += piece
            if len(head) >= HEAD_BYTES:
                break
        return describe_other(head[:HEAD_BYTES])
    return None
