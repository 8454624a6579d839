"""The errors of `keywarp.training`.

TrainingError
├── RecipeError        a recipe that can't be read or isn't valid
└── ResumeError        progress of an earlier run that doesn't fit
"""


class TrainingError(Exception):
    """Base class: training can't start or go on."""


class RecipeError(TrainingError):
    """A recipe can't be read or isn't valid."""


class ResumeError(TrainingError):
    """The kept progress of an earlier run can't be read or is of other networks."""
