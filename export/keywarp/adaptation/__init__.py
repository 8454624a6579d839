"""Adaptation of a bundle's flow network and scale field to videos without labels."""

from keywarp.adaptation.adapting import (
    START_NAMES,
    Adaptation,
    AdaptationOptions,
    HeldOut,
    Start,
    adapt,
    best_source,
)
from keywarp.adaptation.errors import AdaptationError, FootageError, OperatorError, ProgressError, StartError
from keywarp.adaptation.fit import FitOptions, FitResult
from keywarp.adaptation.loss import LossWeights
from keywarp.adaptation.torch_graph import TorchGraph

__all__ = [
    "START_NAMES",
    "Adaptation",
    "AdaptationError",
    "AdaptationOptions",
    "FitOptions",
    "FitResult",
    "FootageError",
    "HeldOut",
    "LossWeights",
    "OperatorError",
    "ProgressError",
    "Start",
    "StartError",
    "TorchGraph",
    "adapt",
    "best_source",
]
