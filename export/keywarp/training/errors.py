"""The errors of `keywarp.training`.

TrainingError
├── RecipeError        a recipe that can't be read or isn't valid
├── ProgressError      saved progress of an earlier run that can't be used
├── ProcessError       a device, precision or number of processes that can't be used
└── DivergedError      a loss that is no longer a finite number
"""


class TrainingError(Exception):
    """Base class: training can't start or continue."""


class RecipeError(TrainingError):
    """A recipe can't be read or isn't valid."""


class ProgressError(TrainingError):
    """The saved progress of an earlier run is damaged, or belongs to other networks or settings."""


class ProcessError(TrainingError):
    """The device is missing, lacks the requested precision, or the processes can't share the work."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""
