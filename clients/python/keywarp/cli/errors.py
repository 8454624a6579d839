"""How a command fails."""

from keywarp.client.errors import KeywarpError


class CommandError(KeywarpError):
    """A command can't do its work: `keywarp` prints the text, one sentence, to stderr and exits with status 1."""
