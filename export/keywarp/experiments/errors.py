"""The errors of `keywarp.experiments`.

ExperimentError          what was asked for doesn't fit the preset, the data or the networks
└── OutOfTimeError       the time that was given is over; the same command goes on from here
"""


class ExperimentError(Exception):
    """Base class: an experiment can't be made."""


class OutOfTimeError(ExperimentError):
    """The time that was given is over; the same command goes on from here."""
