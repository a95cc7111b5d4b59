"""Certificates of what was learned: the digits' equilibria, a wide cell, graphs, and a linear solver."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from settlepoint import Anderson, Equation, FixedSteps, Picard, Tolerance, certify, solve
from settlepoint.experiments.certified import Found, Held, Posed, cloud, posed, trusted
from settlepoint.experiments.digits import DigitsScale, trained
from settlepoint.experiments.experiment import Context, curve
from settlepoint.experiments.pign_cora import CoraScale, build, cora
from settlepoint.experiments.r2n2_parts import linear_batch
from settlepoint.experiments.theory_trials import length
from settlepoint.layers import TanhCell, adjacency, pyg
from settlepoint.learn import LevenbergMarquardt, fit
from settlepoint.models import PIGN, EquilibriumClassifier, Graphs
from settlepoint.problems import LinearFamily
from settlepoint.runs import generator_from, seeded
from settlepoint.runs.seeds import seed_from
from settlepoint.solvers import R2N2
from settlepoint.training import NodeTask, fit_nodes
from settlepoint.training.presets import recipe

NAME = "certificates"
LOOSE, TIGHT = (Tolerance(atol=atol, max_steps=20_000) for atol in (1e-6, 1e-11))
GRAPH_STOP = Tolerance(atol=0.0, rtol=1e-8, max_steps=1000)


@lru_cache(maxsize=2)
def settled_digits(model: str, epochs: int, images: int, seed: int) -> tuple[Posed, Posed]:
    """The first test images at the two tolerances. Kept, since all methods are tried on the same values."""
    net, data, _ = trained(model, seed, Context(DigitsScale(epochs=epochs)))
    assert isinstance(net, EquilibriumClassifier)
    with torch.no_grad():
        u = net.encode(data.test_x[:images])
        eq, x0 = Equation(net.operator, context=(u,)), torch.zeros_like(u)
        tight = posed(eq, x0, Picard(), TIGHT)
        return posed(eq, x0, Picard(), LOOSE, tight.exact), tight


def digits(model: str, method: str, size: tuple[int, int], seed: int, repeats: int) -> Found:
    """One method on both solves; with "auto" also what norms and spectra there are. size: epochs and test images."""
    loose, tight = settled_digits(model, *size, seed)
    rough, fine = loose.held(method), tight.held(method)
    metrics = fine.metrics() | {f"{name} 1e-6": value for name, value in rough.metrics().items()}
    metrics["false certificates"] += metrics["false certificates 1e-6"]
    metrics |= {"rows": float(len(tight.value)), "unknowns": float(tight.value.shape[1])} | tight.cost(method, repeats)
    if method == "auto":
        metrics |= _norms(tight) | {"trust wrong %": _wrong(tight)}
    shown = {f"radii {label}": _sorted(held) for label, held in (("1e-6", rough), ("1e-11", fine))}
    curves = {name: line for name, line in shown.items() if line["x"]} | {"points": cloud([fine])}
    return Found(metrics, curves, (f"{method}: {fine.found.reason[0]}",))


def _wrong(solved: Posed) -> float:
    """Per cent of rows in which trusting the residual is wrong."""
    return 100 * float(trusted(solved.eq, solved.value, solved.distances).double().mean())


def _sorted(held: Held) -> dict[str, Any]:
    radii = held.found.radius[held.found.radius.isfinite()].sort().values
    return curve(range(len(radii)), radii.tolist(), x_label="test images, in order", y_label="radius", log_y=True)


def _norms(solved: Posed) -> dict[str, float]:
    """||W||_2, the Perron root of |W|, and at the values ||J||_2 and the spectral radius of J."""
    W = solved.eq.operator.weight.detach()  # pyright: ignore[reportFunctionMemberAccess]
    slope = certify.lipschitz_estimate(solved.eq, solved.value)
    radius = certify.spectral_radius(solved.eq, solved.value, 40)
    return {
        "norm W": float(torch.linalg.matrix_norm(W, ord=2)),
        "rho |W|": float(torch.linalg.eigvals(W.abs()).abs().max()),
        "norm J max": float(slope.max()),
        "rho J": float(radius.median()),
        "rho J max": float(radius.max()),
    }


def wide(width: int, seed: int, repeats: int, rows: int = 16) -> Found:
    """tanh(W z + u) at a spectral radius of about .9, too wide for a dense inverse: the estimate, and why no proof."""
    g = generator_from(NAME, "wide", seed)
    cell = TanhCell(width, gain=1.5, generator=g, dtype=torch.float64)
    u = torch.randn(rows, width, generator=g, dtype=torch.float64)
    with torch.no_grad():
        eq, x0 = Equation(cell, context=(u,)), torch.zeros_like(u)
        exact = solve(eq, x0, Picard(), Tolerance(1e-13, max_steps=2000)).require().value
        assert isinstance(exact, Tensor)
        found = posed(eq, x0, Picard(), Tolerance(1e-8, max_steps=2000), exact)
        held, auto = found.held("newton-krylov"), found.held("auto")
        radius = certify.spectral_radius(eq, found.value, 80)
    metrics = held.metrics() | found.cost("newton-krylov", repeats) | {"rows": rows, "unknowns": width}
    metrics |= {"rho J": float(radius.median()), "rho J max": float(radius.max())}
    metrics["false certificates"] += float(auto.false.sum())
    metrics["trust wrong %"] = _wrong(found)
    return Found(metrics, {"points": cloud([held])}, (f"auto: {auto.found.reason[0]}",))


def graph(backbone: str, context: Context, epochs: int, seed: int, repeats: int) -> Found:
    """PIGN on Cora, trained briefly, in float64, the whole graph as one row; certified by Theorem 4, corrected."""
    task = cora(context)
    if backbone == "gat":
        task = replace(task, graphs=Graphs.one(_links(task.graphs), len(task.y)))
    with seeded(NAME, backbone, seed), torch.enable_grad():
        model = _pign(backbone, task)
        fit_nodes(model, task, recipe(epochs))
    with torch.no_grad():
        found = _settled_graph(model.double().eval(), task, backbone)
        held, auto = found.held("graph"), found.held("auto")
    metrics = held.metrics() | {"rows": 1.0, "unknowns": float(found.value.numel())} | found.cost("graph", repeats)
    metrics["false certificates"] += float(auto.false.sum())
    metrics["trust wrong %"] = _wrong(found)
    return Found(metrics, {"points": cloud([held])}, (held.found.reason[0], f"auto: {auto.found.reason[0]}"))


def _pign(backbone: str, task: NodeTask) -> PIGN:
    """PIGN-GCN as it settles, or the same with attention in its place."""
    channels = (task.x.shape[1], 64, 7)
    if backbone == "gcn":
        model = build("settled", channels, CoraScale())
        assert isinstance(model, PIGN)
        return model
    conv = pyg().GATConv(64, 64, bias=False)
    return PIGN(conv, channels, injection=0.1, transport="identity", solver=Picard(), stop=FixedSteps(10))


def _settled_graph(model: PIGN, task: NodeTask, backbone: str) -> Posed:
    nodes, links = len(task.y), _links(task.graphs)
    graphs = Graphs.one(links if backbone == "gat" else adjacency(links, nodes, torch.float64), nodes)
    u = model.encode(task.x.double(), graphs)
    eq = Equation(model.operator, context=(u, *model.context(graphs)))
    exact = solve(eq, u, Anderson(5), replace(GRAPH_STOP, rtol=1e-12)).require().value
    assert isinstance(exact, Tensor)
    return posed(eq, u, Anderson(5), GRAPH_STOP, exact)


def _links(graphs: Graphs) -> Tensor:  # (2, E)
    edges = graphs.edges
    return edges if edges.layout == torch.strided else edges.to_sparse_coo().indices()


def linear_solver(samples: int, starts: int, rhs: int, seed: int) -> Found:
    """R2N2(4) trained on A1: the proved shrink of every residual, of A1 and of its class, beside what is measured."""
    family = LinearFamily("A1")
    assert family.interval is not None
    low, high = 1 - family.interval[1], 1 - family.interval[0]
    batch = family.sample(samples, generator_from(NAME, "right-hand sides", seed))
    trainer = LevenbergMarquardt(starts)
    solver = fit(R2N2(4), family, 3, trainer=trainer, samples=batch, seed=seed_from(NAME, seed) % 10**6).solver
    assert isinstance(solver, R2N2)
    with torch.no_grad():
        p = certify.residual_polynomial(solver)
        radius, norm = certify.matrix_rate(p, family.dense)
        tried = family.sample(rhs, generator_from(NAME, "tried", seed)).parameters["b"]
        shrink = _shrunk(solver, family.dense, tried)
        spectrum = torch.linspace(low, high, rhs, dtype=torch.float64)
        spread = _shrunk(solver, torch.diag(spectrum), torch.eye(rhs, dtype=torch.float64))
    bound = certify.class_rate(p, low, high)
    metrics = {
        "matrix radius": radius,
        "matrix norm": norm,
        "measured": float(shrink.max()),
        "class rate": bound,
        "class measured": float(spread.max()),
        "best rate": certify.best_rate(low, high, 4),
        "false certificates": float((shrink > norm).sum() + (spread > bound).sum()),
        "rows": float(2 * rhs),
    }
    polynomial = curve(spectrum.tolist(), spread.tolist(), x_label="eigenvalue of A", y_label="|p|: shrink in a step")
    return Found(metrics, {"polynomial": polynomial}, ())


def _shrunk(solver: R2N2, A: Tensor, b: Tensor) -> Tensor:  # (n,)
    """||r_1|| / ||r_0|| of every right-hand side."""
    eq, x0 = linear_batch(A.expand(len(b), -1, -1), b)
    residual = lambda x: length(eq.residual(x))  # type: ignore[arg-type]  # noqa: E731
    return residual(solve(eq, x0, solver, FixedSteps(1)).value) / residual(x0)
