"""The errors of `keywarp.export`."""


class ExportError(Exception):
    """A network can't be exported, or its graph doesn't compute what the network does."""
