"""Training: from a recipe to a checkpoint."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keywarp.training.errors import RecipeError, ResumeError, TrainingError

if TYPE_CHECKING:
    from keywarp.training.evaluation import Accuracy, evaluate
    from keywarp.training.pipeline import run
    from keywarp.training.recipe import Recipe, read_recipe
    from keywarp.training.reporting import Reporter

__all__ = [
    "Accuracy",
    "Recipe",
    "RecipeError",
    "Reporter",
    "ResumeError",
    "TrainingError",
    "evaluate",
    "read_recipe",
    "run",
]

# Loaded when first used, so that `keywarp --help` needs no torch.
_HOMES = {
    "Accuracy": "evaluation",
    "Recipe": "recipe",
    "Reporter": "reporting",
    "evaluate": "evaluation",
    "read_recipe": "recipe",
    "run": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
