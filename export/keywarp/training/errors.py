"""The errors of `keywarp.training`.

TrainingError
├── RecipeError        a recipe that can't be read or isn't valid
├── ResumeError        progress of an earlier run that doesn't fit
├── ComputeError       no such device
└── DivergedError      the loss isn't a number any more
"""


class TrainingError(Exception):
    """Base class: training can't start or go on."""


class RecipeError(TrainingError):
    """A recipe can't be read or isn't valid."""


class ResumeError(TrainingError):
    """The kept progress of an earlier run can't be read or is of other networks."""


class ComputeError(TrainingError):
    """The device isn't there, or can't compute in the precision asked for."""


class DivergedError(TrainingError):
    """The loss isn't a finite number any more."""
