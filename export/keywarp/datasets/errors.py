"""The errors of `keywarp.datasets`.

DataError             data that can't be had or read
└── PackageError      a package that can't be fetched, or doesn't hold what it should
"""


class DataError(Exception):
    """Base class: training data is missing, unreadable or inconsistent."""


class PackageError(DataError):
    """A package can't be fetched, or a file in it isn't the one that the recipe names."""
