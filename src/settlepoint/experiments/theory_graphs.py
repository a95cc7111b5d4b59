"""Lemma 3 and Theorem 4 of Operator Learning Meets Numerical Analysis, on random graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from settlepoint.certify import Refused, Region, lipschitz_upper
from settlepoint.experiments.theory_trials import (
    Statement,
    Trials,
    bounds,
    normal,
    single,
    sized,
    together,
    uniform,
)
from settlepoint.layers import adjacency

_WIDTH = 2  # features of a node
Operator = Callable[[Tensor], Tensor]  # (N, h) -> (N, h)


@dataclass(frozen=True)
class Graph:
    """Who reads whom: row i of `reads` (N, N) holds the neighbourhood of node i; W (h, h), of 2-norm .9; x (N, h)."""

    reads: Tensor
    W: Tensor
    x: Tensor

    @classmethod
    def drawn(cls, g: torch.Generator, star: bool = False) -> Graph:
        """A random graph of both directions with loops; star: node 0 in every neighbourhood, on top."""
        n = 8 if star else int(torch.randint(5, 10, (1,), generator=g))
        links = torch.zeros(n, n, dtype=torch.bool) if star else uniform(g, 0, 1, n, n) < 0.3
        links[0] |= star
        reads = links | links.T | torch.eye(n, dtype=torch.bool)
        if not star:
            return cls(reads, sized(normal(g, _WIDTH, _WIDTH), 0.9), normal(g, n, _WIDTH))
        x = torch.zeros(n, 1, dtype=torch.float64)
        x[0] = 1.0
        return cls(reads, torch.full((1, 1), 0.9, dtype=torch.float64), x)

    @property
    def edges(self) -> Tensor:  # (2, E)
        """Sources and targets."""
        return self.reads.T.nonzero().T

    @property
    def crowd(self) -> int:
        """C, the most neighbourhoods that hold a node."""
        return int(self.reads.sum(0).max())

    def largest(self, x: Tensor) -> Tensor:
        """The largest W x_j of the neighbourhood, entry by entry."""
        source, target = self.edges
        messages = (x @ self.W.T).index_select(0, source)
        index = target[:, None].expand(-1, messages.shape[1])
        start = torch.zeros(len(self.reads), messages.shape[1], dtype=torch.float64)
        return torch.scatter_reduce(start, 0, index, messages, "amax", include_self=False)

    def total(self, x: Tensor) -> Tensor:
        """The sum of W x_j over the neighbourhood."""
        source, target = self.edges
        messages = (x @ self.W.T).index_select(0, source)
        start = torch.zeros(len(self.reads), messages.shape[1], dtype=torch.float64)
        return torch.index_add(start, 0, target, messages)

    def mean(self, x: Tensor) -> Tensor:
        """Their mean."""
        return self.total(x) / self.reads.sum(1)[:, None].double()

    def normalised(self, x: Tensor) -> Tensor:
        """D^{-1/2} (L + I) D^{-1/2} x W^T, as GCN does."""
        return adjacency(self.edges, len(self.reads), torch.float64) @ (x @ self.W.T)

    def attended(self, x: Tensor, a: Tensor, b: Tensor) -> Tensor:  # a, b (h, 1)
        """GAT: sum_j p_ij W x_j, p_ij the soft-max over the neighbourhood of leaky_relu(a . W x_i + b . W x_j)."""
        h = x @ self.W.T
        scores = F.leaky_relu(h @ a + (h @ b).mT, 0.2)
        return torch.softmax(scores.masked_fill(~self.reads, -torch.inf), -1) @ h


def slope(T: Operator, x: Tensor, norm: float) -> Tensor:  # (1,)
    """||T'(x)|| in the 1-, 2- or sup norm of all entries."""
    J = torch.autograd.functional.jacobian(T, x).reshape(x.numel(), x.numel())
    return torch.linalg.matrix_norm(J, ord=norm)[None]


def above(T: Operator, x: Tensor, norm: str = "two") -> Tensor:  # (1,)
    """The bound that certify works out of T, for all x."""
    return single(lipschitz_upper(T, example=(x,), norm=norm))


def absolute(n: int, g: torch.Generator, m: int = 4) -> Trials:
    """|max a - max b| against max (a - b) and max |a - b|; the first is a = 0, b = (0, 1, 0, 0)."""
    a, b = normal(g, n, m), normal(g, n, m)
    a[0], b[0] = 0.0, torch.eye(m)[1]
    lip = lipschitz_upper(lambda x: x.amax(1, keepdim=True), example=(a[:1],), norm="sup")
    return bounds((a - b).amax(1), lip * (a - b).abs().amax(1), (a.amax(1) - b.amax(1)).abs(), evals=2 * n)


def _each(n: int, g: torch.Generator, one: Callable[[Graph], Trials]) -> Trials:
    """The star first, then random graphs."""
    return together([one(Graph.drawn(g, star=i == 0)) for i in range(n)])


def largest_one(n: int, g: torch.Generator) -> Trials:
    """A maximum in the 1-norm, against L sqrt(C) and L C."""

    def one(graph: Graph) -> Trials:
        L, C = torch.linalg.matrix_norm(graph.W, ord=1), graph.crowd
        return bounds((L * C**0.5)[None], (L * C)[None], slope(graph.largest, graph.x, 1), evals=1)

    return _each(n, g, one)


def largest_two(n: int, g: torch.Generator) -> Trials:
    """A maximum in the 2-norm, against L C and what certify finds, L sqrt(C)."""

    def one(graph: Graph) -> Trials:
        L, C = torch.linalg.matrix_norm(graph.W, ord=2), graph.crowd
        found = above(graph.largest, graph.x)
        off = ((found / (L * C**0.5)) - 1).abs() > 1e-9
        return bounds((L * C)[None], found, slope(graph.largest, graph.x, 2), evals=1).but(off)

    return _each(n, g, one)


def largest_sup(n: int, g: torch.Generator) -> Trials:
    """A maximum in the sup norm, against ||W||_2 and the row sums of |W|."""

    def one(graph: Graph) -> Trials:
        L = torch.linalg.matrix_norm(graph.W, ord=2)
        found = above(graph.largest, graph.x, "sup")
        return bounds(L[None], found, slope(graph.largest, graph.x, torch.inf), evals=1)

    return _each(n, g, one)


def linear(kind: str) -> Callable[[int, torch.Generator], Trials]:
    """An aggregation by a matrix A in the 2-norm, against L and L ||A||_2."""

    def one(graph: Graph) -> Trials:
        T: Operator = getattr(graph, kind)
        L = torch.linalg.matrix_norm(graph.W, ord=2)
        return bounds(L[None], above(T, graph.x), slope(T, graph.x, 2), evals=1)

    return lambda n, g: _each(n, g, one)


def combined(n: int, g: torch.Generator) -> Trials:
    """SAGE, V x_i + mean W x_j, against ||A||_2 ||W|| and ||V|| + ||A||_2 ||W||."""

    def one(graph: Graph) -> Trials:
        V = sized(normal(g, *graph.W.shape), 0.5)
        T = lambda x: x @ V.T + graph.mean(x)  # noqa: E731
        scaled = lambda x: F.normalize(T(x), dim=-1)  # noqa: E731
        found = bounds(above(graph.mean, graph.x), above(T, graph.x), slope(T, graph.x, 2), evals=1)
        return found.but(single(not _refused(scaled, graph.x)) > 0)

    return _each(n, g, one)


def attention(n: int, g: torch.Generator) -> Trials:
    """GAT on ||x|| <= r against ||W|| sqrt(C), its weights taken as fixed, and the bound on the ball; r up to 100."""

    def one(graph: Graph) -> Trials:
        a, b = (normal(g, graph.W.shape[0], 1) for _ in range(2))
        T = lambda x: graph.attended(x, a, b)  # noqa: E731
        r = float(10 ** uniform(g, 0, 2, 1))
        x = graph.x * (r / torch.linalg.vector_norm(graph.x))
        fixed = torch.linalg.matrix_norm(graph.W, ord=2) * graph.crowd**0.5
        found = single(lipschitz_upper(T, Region(r), example=(x,)))
        return bounds(fixed[None], found, slope(T, x, 2), evals=1).but(single(not _refused(T, x)) > 0)

    return _each(n, g, one)


def _refused(T: Operator, x: Tensor) -> bool:
    try:
        lipschitz_upper(T, example=(x,))
    except Refused:
        return True
    return False


STATEMENTS = {
    "L3 maximum": Statement(
        "Lemma 3 bounds |max a - max b| by max (a - b); it needs max |a - b|: a = 0 and b = (0, 1) give 1 against 0.",
        absolute,
    ),
    "T4 max, 1-norm": Statement(
        "Theorem 4 takes the 1-norm for the 2-norm; with C = the most neighbourhoods that hold a node, a maximum has "
        "L C in the 1-norm, not L sqrt(C): a star, whose centre is in all of them, attains it.",
        largest_one,
        costly=True,
    ),
    "T4 max, 2-norm": Statement(
        "In the 2-norm the same maximum has L sqrt(C), which the star attains; the L C of the 1-norm holds, but is "
        "sqrt(C) times too large.",
        largest_two,
        wrong=False,
        costly=True,
    ),
    "T4 max, sup norm": Statement(
        "In the sup norm no degree enters, but L must be that of W there, its largest row sum: ||W||_2 is less.",
        largest_sup,
        costly=True,
    ),
    "T4 sum": Statement(
        "A sum over neighbours has L ||A||_2, which grows with the degrees, not L.", linear("total"), costly=True
    ),
    "T4 mean": Statement(
        "A mean has L ||A||_2 too, and ||A||_2 > 1 where degrees differ; it is L in the norm of the largest node.",
        linear("mean"),
        costly=True,
    ),
    "T4 GCN": Statement(
        "GCN's aggregation has L ||A||_2 <= L, since its adjacency is normalised on both sides.",
        linear("normalised"),
        wrong=False,
        costly=True,
    ),
    "T4 SAGE": Statement(
        "SAGE with its combine step has ||W_self|| + ||W_neigh|| ||A||_2, the aggregation alone is too little; its "
        "normalised output, x / ||x||, has no constant and is refused.",
        combined,
        costly=True,
    ),
    "T4 GAT": Statement(
        "GAT's weights depend on the state, so that ||W|| sqrt(C) is broken far out: refused on the whole space, "
        "bounded on a ball.",
        attention,
        costly=True,
    ),
}
