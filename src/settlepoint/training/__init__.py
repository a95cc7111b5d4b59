"""The loop that fits a model, and its checkpoints."""

from settlepoint.training.checkpoint import load, save
from settlepoint.training.fit import History, Hooks, Recipe, accuracy, fit, majority

__all__ = ["History", "Hooks", "Recipe", "accuracy", "fit", "load", "majority", "save"]
