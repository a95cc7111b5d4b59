"""Features with mean 0 and standard deviation 1 on the training graphs."""

from __future__ import annotations

from dataclasses import replace

import torch

from settlepoint.data.graph_set import GraphSet
from settlepoint.data.registry import DataError


def standardised(train: GraphSet, *others: GraphSet) -> tuple[GraphSet, ...]:
    """(x - mean) / std of every set, with mean and standard deviation (divided by N) of the nodes of train alone.

    A feature that is constant on train, to rounding, is only centred. Edge features stay. Raises DataError for a train
    without nodes and for sets with another number of features.
    """
    if not len(train.x):
        raise DataError("train must have nodes, got none: there is no mean to take")
    for other in others:
        if other.x.shape[1] != train.x.shape[1]:
            raise DataError(f"every set must have the {train.x.shape[1]} features of train, got {other.x.shape[1]}")
    x = train.x.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    constant = std <= torch.finfo(train.x.dtype).eps * x.abs().amax(0)
    scale = torch.where(constant, torch.ones_like(std), std)
    return tuple(replace(each, x=((each.x - mean) / scale).to(each.x.dtype)) for each in (train, *others))
