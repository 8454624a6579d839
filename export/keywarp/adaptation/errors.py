"""The errors of `keywarp.adaptation`.

AdaptationError
├── OperatorError      a graph with an operator that can't be differentiated here
├── StartError         a flow network that can't be the start
├── FootageError       videos that are too short or too different for the training
└── ProgressError      the saved progress of an earlier run can't be used
"""


class AdaptationError(Exception):
    """Base class: a bundle can't be adapted."""


class OperatorError(AdaptationError):
    """A graph has an operator, or a form of one, that `TorchGraph` doesn't know."""


class StartError(AdaptationError):
    """What is given as the flow network to start from isn't one that can be."""


class FootageError(AdaptationError):
    """There is too little video to learn from and to hold out."""


class ProgressError(AdaptationError):
    """The saved progress of an earlier run is damaged, or belongs to another bundle, other videos or settings."""
