"""The loop that fits a model, and its checkpoints."""

from settlepoint.training.checkpoint import load, save
from settlepoint.training.fit import History, Hooks, Recipe, accuracy, fit, majority
from settlepoint.training.nodes import NodeHistory, NodeRecipe, NodeTask, fit_nodes

__all__ = [
    "History",
    "Hooks",
    "NodeHistory",
    "NodeRecipe",
    "NodeTask",
    "Recipe",
    "accuracy",
    "fit",
    "fit_nodes",
    "load",
    "majority",
    "save",
]
