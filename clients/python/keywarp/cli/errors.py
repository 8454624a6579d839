"""The error of a command."""

from keywarp.client.errors import KeywarpError


class CommandError(KeywarpError):
    """A command failed. `keywarp` prints the message, which is one sentence, to stderr and exits with status 1."""
