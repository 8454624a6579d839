"""The errors of `keywarp.experiments`.

ExperimentError          an experiment that the preset, the data or the networks don't allow
└── OutOfTimeError       the time limit is reached; the same command resumes the work
"""


class ExperimentError(Exception):
    """Base class: an experiment can't be run."""


class OutOfTimeError(ExperimentError):
    """The time limit is reached. The same command resumes the work."""
