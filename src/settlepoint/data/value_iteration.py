"""Graph value iteration: random decision processes on graphs, and the value of every state, exact."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from settlepoint.data.graph_set import GraphSet
from settlepoint.data.shortest_paths import check_edges, neighbours

EXACT = 1e-10
"""The largest error of a value, as proved by the contraction."""


def decision_processes(
    count: int,
    generator: torch.Generator,
    *,
    nodes: tuple[int, int] = (20, 50),
    actions: int = 5,
    gamma: float = 0.9,
    sharpness: float = 8.0,
) -> GraphSet:
    """y = V, V_s = max over the actions of s of r + gamma V_next        (the task of Park, Choo and Park 2022)

    States are random points in a square; an action moves to one of the `actions` nearest and is paid r = w^sharpness, w
    uniform in [0, 1]: the larger, the rarer a good action, and the longer the way to it. nodes: states, least and most.

    edges: from the next state to the state that may go there, the way values flow; one direction need not come with the
    other. edge_x: (E, 1), r. x: (N, 2), the largest and the mean r of the actions of a state. y to 1e-10 before it is
    rounded to float32. Graphs may be in several parts: values need no more than an action in every state.

    Raises ValueError for a number that makes no such process.
    """
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    if not 1 <= actions < nodes[0] <= nodes[1]:
        raise ValueError(f"nodes must be (least, most) with {actions} actions < least <= most, got {nodes}")
    if not sharpness > 0:
        raise ValueError(f"sharpness must be positive, got {sharpness}")
    _check(gamma)
    sizes = torch.randint(nodes[0], nodes[1] + 1, (count,), generator=generator).tolist()
    graphs = [_process(size, actions, gamma, sharpness, generator) for size in sizes]
    return GraphSet.joined(graphs) if graphs else _empty()


def values(edges: Tensor, rewards: Tensor, gamma: float, nodes: int) -> Tensor:  # (2, E), (E,) -> (N,)
    """V_t = max over the edges from s to t of r + gamma V_s, in float64, by value iteration to 1e-10.

    V <- T V contracts by gamma in the largest entry, so that |V - V*| <= gamma / (1 - gamma) |V - V_before|. Raises
    ValueError for gamma outside [0, 1), edges that name no state, rewards that are not finite, and a state without an
    action.
    """
    _check(gamma)
    check_edges(edges, rewards, nodes, "rewards")
    idle = (torch.bincount(edges[1], minlength=nodes) == 0).nonzero()[:, 0]
    if len(idle):
        raise ValueError(f"every state must have an action, got {len(idle)} without, first {int(idle[0])}")
    source, target, paid = edges[0].numpy(), edges[1].numpy(), rewards.double().numpy()
    value, moved = np.zeros(nodes), np.inf
    while moved > EXACT * (1 - gamma):
        new = np.full(nodes, -np.inf)
        np.maximum.at(new, target, paid + gamma * value[source])
        value, moved = new, np.abs(new - value).max(initial=0.0)
    return torch.as_tensor(value)


def _check(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must lie in [0, 1), or values are infinite, got {gamma}")


def _process(nodes: int, actions: int, gamma: float, sharpness: float, generator: torch.Generator) -> GraphSet:
    edges = neighbours(torch.rand(nodes, 2, generator=generator, dtype=torch.float64), actions).flip(0)
    reward = torch.rand(nodes * actions, generator=generator, dtype=torch.float64) ** sharpness
    by_state = reward.view(nodes, actions)
    x = torch.stack((by_state.max(1).values, by_state.mean(1)), 1).float()
    order = (edges[0] * nodes + edges[1]).argsort()
    return GraphSet(
        x=x, y=values(edges, reward, gamma, nodes).float(), edges=edges[:, order],
        index=torch.zeros(nodes, dtype=torch.int64), count=1, edge_x=reward[order, None].float(),
    )  # fmt: skip


def _empty() -> GraphSet:
    none = torch.zeros(0, dtype=torch.int64)
    return GraphSet(
        x=torch.zeros(0, 2), y=torch.zeros(0), edges=none.expand(2, 0), index=none, count=0, edge_x=torch.zeros(0, 1)
    )
