"""The error of `keywarp.export`."""


class ExportError(Exception):
    """A network can't be exported, or a graph's outputs differ from the network's."""
