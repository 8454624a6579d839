"""Open containers for reading."""

from typing import Any

import av
from av.container import InputContainer


def open_container(file: Any, **options: Any) -> InputContainer:
    """Open a container as `av.open` does, whatever bytes its texts hold.

    Args:
        file: A name, or an object to read from.
        options: Those of `av.open`.

    Raises:
        FFmpegError: It can't be opened.
    """
    container: InputContainer = av.open(file, "r", metadata_errors="replace", **options)
    return container
