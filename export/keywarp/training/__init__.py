"""Training: from a recipe to a checkpoint."""

from keywarp.training.errors import ProgressError, RecipeError, TrainingError
from keywarp.training.evaluation import Accuracy, evaluate
from keywarp.training.pipeline import run
from keywarp.training.recipe import Recipe, read_recipe
from keywarp.training.reporting import Reporter

__all__ = [
    "Accuracy",
    "ProgressError",
    "Recipe",
    "RecipeError",
    "Reporter",
    "TrainingError",
    "evaluate",
    "read_recipe",
    "run",
]
