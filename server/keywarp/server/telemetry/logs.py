"""The log of the server process."""

import logging

from keywarp.protocol.addresses import hide_secrets

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Formatter(logging.Formatter):
    """A formatter whose lines and tracebacks have no secrets of addresses in them, whichever package logs them."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))


def log_to_stderr(level: str) -> None:
    """Log to stderr from now on.

    Args:
        level: The name of the lowest level to log.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
