"""Errors of importing model files.

ImportingError
"""


class ImportingError(Exception):
    """A model file that can't be imported."""
