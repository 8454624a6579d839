"""The errors of `keywarp.datasets`.

DataError             training data is missing, unreadable or inconsistent
└── PackageError      a package can't be fetched, or a file in it isn't the expected one
"""


class DataError(Exception):
    """Training data is missing, unreadable or inconsistent. Base class of the package's errors."""


class PackageError(DataError):
    """A package can't be fetched, or a file in it isn't the one that was named."""
