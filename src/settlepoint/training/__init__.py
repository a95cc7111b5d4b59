"""The loop that fits a model, and its checkpoints."""

from settlepoint.training.checkpoint import load, save
from settlepoint.training.consistency import Consistency, Trajectories, token_loss
from settlepoint.training.elbo import Elbo
from settlepoint.training.fit import History, Hooks, Recipe, accuracy, fit, majority
from settlepoint.training.frechet import Principal, frechet
from settlepoint.training.graphs import (
    GraphHistory,
    GraphRecipe,
    balanced,
    commonest,
    evaluated,
    fit_graphs,
    macro_f1,
)
from settlepoint.training.inception import fid, inception
from settlepoint.training.nodes import NodeHistory, NodeRecipe, NodeTask, fit_nodes
from settlepoint.training.score_matching import ScoreMatching, matched
from settlepoint.training.settled import AllIterates, iterates

__all__ = [
    "AllIterates",
    "Consistency",
    "Elbo",
    "GraphHistory",
    "GraphRecipe",
    "History",
    "Hooks",
    "NodeHistory",
    "NodeRecipe",
    "NodeTask",
    "Principal",
    "Recipe",
    "ScoreMatching",
    "Trajectories",
    "accuracy",
    "balanced",
    "commonest",
    "evaluated",
    "fid",
    "fit",
    "fit_graphs",
    "fit_nodes",
    "frechet",
    "inception",
    "iterates",
    "load",
    "macro_f1",
    "majority",
    "matched",
    "save",
    "token_loss",
]
