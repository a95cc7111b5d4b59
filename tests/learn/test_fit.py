"""fit: against scipy.optimize on the polynomial of a linear problem, and against losses summed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import R2N2, Anderson, FirstStep, FixedSteps, Picard, Safeguarded, solve
from settlepoint.learn import Digits, LevenbergMarquardt, Residuals, Trajectories, fit, order_conditions
from settlepoint.problems import Batch, Chandrasekhar, LinearFamily, VanDerPol, from_callable
from settlepoint.solvers.tableaus import KUTTA3

FEW = LevenbergMarquardt(starts=3, iterations=8)


def quick(solver=None, family=None, iterations=2, trainer=FEW, samples: int | Batch = 40, **named):
    return fit(solver or R2N2(2), family or LinearFamily(), iterations, trainer=trainer, samples=samples, **named)


def summed(solver, family: LinearFamily, batch: Batch, weights: list[float]) -> float:
    """sum_k w_k mean |A x_k - b|^2, by numpy, with iterates of `solve`."""
    A, b, loss = family.dense.numpy(), batch.parameters["b"].numpy(), 0.0
    for k, w in enumerate(weights, 1):
        with torch.no_grad():
            x = solve(family.equation(batch), batch.x0, solver, FixedSteps(k)).value.numpy()
        loss += w * float(np.mean(np.sum((x @ A.T - b) ** 2, 1)))
    return loss


def linear_optimum(A: Tensor, b: Tensor, stages: int, iterations: int) -> float:
    """min sum_k 4^k mean |p(-A)^k b|^2 over p(t) = 1 + z_1 t + ... + z_n t^n, by scipy.optimize.least_squares.

    For symmetric A: sum_k 4^k sum_m c_m p(-lambda_m)^2k, c_m the mean squares of b along the eigenvectors.
    """
    lam, vectors = np.linalg.eigh(A.numpy())
    c = np.mean((b.numpy() @ vectors) ** 2, 0)
    powers = (-lam[:, None]) ** np.arange(1, stages + 1)

    def errors(z):
        p = 1 + powers @ z
        return np.concatenate([2.0**k * np.sqrt(c) * p**k for k in range(1, iterations + 1)])

    roots = np.quantile(lam, (np.arange(stages) + 0.5) / stages)  # start: the p that vanishes at quantiles of lambda
    start = np.poly1d([1.0])
    for root in roots:
        start = start * np.poly1d([1 / root, 1.0])
    starts = [start.coeffs[::-1][1:], *np.random.default_rng(0).normal(size=(20, stages))]
    found = [scipy.optimize.least_squares(errors, z, method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15) for z in starts]
    return min(2 * f.cost for f in found)


# ---- the optimum --------------------------------------------------------------------------------------------------


def test_linear_optimum_from_every_start():
    """R2N2 Fig 5, n = 4, T = 3: within 1.001 of SciPy's optimum from 12 starts of 12, and never below it."""
    family = LinearFamily()
    batch = family.sample(60, torch.Generator().manual_seed(11))
    train, _ = batch.split()
    best = linear_optimum(family.dense, train.parameters["b"], 4, 3)
    found = fit(R2N2(4), family, 3, samples=batch, trainer=LevenbergMarquardt(keep=1.0))
    assert (1 - 1e-9) * best <= found.loss <= 1.001 * best
    assert found.losses.shape == (12,)
    assert float(found.losses.max()) <= 1.001 * best


def test_linear_optimum_by_default():
    """The default trainer, which drops half of its starts on the way."""
    family = LinearFamily("A2")
    found = quick(R2N2(2), family, 2, trainer=None, samples=100)
    train, _ = family.sample(100, torch.Generator().manual_seed(0)).split()
    assert found.loss <= 1.001 * linear_optimum(family.dense, train.parameters["b"], 2, 2)


def test_one_evaluation_has_a_closed_form():
    """n = 1, T = 1: p(t) = 1 + z t, z = sum c lambda / sum c lambda^2 with c_m the mean squares of b."""
    family = LinearFamily()
    batch = family.sample(40, torch.Generator().manual_seed(5))
    lam, vectors = np.linalg.eigh(family.dense.numpy())
    c = np.mean((batch.split()[0].parameters["b"].numpy() @ vectors) ** 2, 0)
    found = quick(R2N2(1), family, 1, samples=batch, trainer=LevenbergMarquardt(starts=2, gain=1e-12))
    assert float(found.solver.theta) == pytest.approx(np.sum(c * lam) / np.sum(c * lam**2), rel=1e-6)


@pytest.mark.slow
def test_van_der_pol_beats_kutta():
    """Issue 3: loss <= .07 at p = 3, and at least 85 % of held-out samples better than Kutta-3 after one step."""
    family = VanDerPol()
    found = fit(R2N2(3), family, 1)
    assert found.loss <= 0.07
    batch = family.sample(500, torch.Generator().manual_seed(99))
    exact, errors = family.reference(batch), []
    for solver in (found.solver, R2N2.from_tableau(KUTTA3)):
        with torch.no_grad():
            x = solve(family.equation(batch), batch.x0, solver, FixedSteps(1)).value
        errors.append((x - exact).norm(dim=1))
    assert float((errors[0] < errors[1]).double().mean()) >= 0.85


@pytest.mark.slow
def test_chandrasekhar_reaches_the_paper():
    """Issue 3: mean residual <= .015 / 5e-4 / 1e-9 after 1, 2, 7 iterations of three evaluations."""
    family = Chandrasekhar()
    found = fit(R2N2(3), family, 2, samples=1002)
    batch = family.sample(300, torch.Generator().manual_seed(7))
    for k, room in ((1, 0.015), (2, 5e-4), (7, 1e-9)):
        with torch.no_grad():
            sol = solve(family.equation(batch), batch.x0, found.solver, FixedSteps(k, check=True))
        assert float(sol.residual.mean()) <= room


@pytest.mark.parametrize("c", [0.9, 0.99])
def test_learned_mixing_is_no_worse_than_anderson(c):
    """b_k of an Anderson(2) trained on the last residual: below that of b = 1, from which it starts."""
    family = Chandrasekhar(m=10, c=(c,))
    solver = R2N2(1, output="least_squares", per_iteration=4, carry=2)
    found = quick(solver, family, 4, weight=Residuals(lambda k: float(k == 4)))
    train, _ = family.sample(40, torch.Generator().manual_seed(0)).split()
    with torch.no_grad():
        sol = solve(family.equation(train), train.x0, Anderson(2), FixedSteps(4, check=True))
    assert found.loss < 0.9 * float(sol.residual.square().mean())


# ---- what a Fit says ----------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_formula():
    """On the 70 % that train and the 30 % that do not, by numpy: w_k = 4^k by default, or as given."""
    family = LinearFamily()
    batch = family.sample(40, torch.Generator().manual_seed(1))
    train, test = batch.split()
    assert (len(train), len(test)) == (28, 12)
    for weight, values in ((None, [4.0, 16.0]), (lambda k: float(k == 2), [0.0, 1.0])):
        found = quick(samples=batch, weight=weight)
        assert found.loss == pytest.approx(summed(found.solver, family, train, values), rel=1e-10)
        assert found.test_loss == pytest.approx(summed(found.solver, family, test, values), rel=1e-10)
        assert found.loss == float(found.losses.min())
        assert found.losses.shape == (3,)


def test_history_goes_down_and_progress_tells_it():
    told = []
    found = quick(progress=lambda *said: told.append(said))
    losses = [entry["loss"] for entry in found.history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == found.loss
    assert [(k, of) for k, of, _ in told] == [(i + 1, 8) for i in range(len(losses))]
    assert [loss for _, _, loss in told] == losses


def test_the_same_seed_gives_the_same_bits():
    a, b, c = quick(seed=3), quick(seed=3), quick(seed=4)
    assert torch.equal(a.solver.theta, b.solver.theta)
    assert torch.equal(a.losses, b.losses)
    assert a.history == b.history
    assert a.test_loss == b.test_loss
    assert not torch.equal(a.solver.theta, c.solver.theta)


def test_leaves_the_given_solver_and_the_global_generator_alone():
    solver, theta = R2N2(2), R2N2(2).theta
    state = torch.get_rng_state()
    found = quick(solver)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(solver.theta, theta)
    assert found.solver is not solver
    assert all(p.grad is None for p in (*solver.parameters(), *found.solver.parameters()))


def test_works_where_gradients_are_switched_off():
    with torch.no_grad():
        inside = quick()
    assert torch.equal(inside.solver.theta, quick().solver.theta)


def test_frozen_weights_stay():
    solver = R2N2(3)
    solver.inner.requires_grad_(False)
    found = quick(solver)
    assert torch.equal(found.solver.inner, solver.inner)
    assert not torch.equal(found.solver.output, solver.output)
    assert not found.solver.inner.requires_grad


def test_trains_what_lies_inside_another_solver():
    solver = FirstStep(R2N2(2, theta=[1.0, 0.3, 0.3]), 1, coefficients=[0.5, 0.1, 0.1], low=[0, 0], high=[3, 3])
    before = quick(solver, Chandrasekhar(m=5), trainer=LevenbergMarquardt(1, 0))
    found = quick(solver, Chandrasekhar(m=5))
    assert isinstance(found.solver, FirstStep)
    assert found.loss < 0.5 * before.loss
    for name, p in solver.named_parameters():
        if p.numel():
            assert not torch.equal(p, found.solver.get_parameter(name)), name


@pytest.mark.parametrize("inner", [R2N2(2), R2N2(1, output="least_squares", carry=1)], ids=["weights", "mixing"])
def test_trains_a_guarded_solver(inner):
    """Safeguarded branches on rows, not on the host: it trains in one vectorised program too."""
    found = quick(Safeguarded(inner, Picard()), Chandrasekhar(m=5))
    assert isinstance(found.solver, Safeguarded)
    assert found.loss < quick(Safeguarded(inner, Picard()), Chandrasekhar(m=5), trainer=LevenbergMarquardt(1, 0)).loss


@pytest.mark.parametrize("layer", ["evaluation", "forward_difference", "jvp"])
@pytest.mark.parametrize("output", ["weights", "least_squares"])
def test_every_layer_and_output_trains(layer, output):
    solver = R2N2(2, layer, output, 2, carry=1)
    before = quick(solver, Chandrasekhar(m=5), trainer=LevenbergMarquardt(1, 0))
    after = quick(solver, Chandrasekhar(m=5), trainer=LevenbergMarquardt(2, 5))
    assert after.loss < 0.9 * before.loss
    assert after.solver.theta.isfinite().all()


# ---- penalties ----------------------------------------------------------------------------------------------------


def test_penalty_is_a_vector_whose_square_is_added():
    """Loss of the formula, plus |penalty|^2 at the weights found; the held-out loss has no penalty."""
    family = LinearFamily()
    batch = family.sample(40, torch.Generator().manual_seed(1))
    train, test = batch.split()
    penalty = lambda solver: 3 * torch.stack((solver.output[0] - 2, solver.inner[0] + 1))  # noqa: E731
    found = quick(samples=batch, penalty=penalty)
    extra = float(penalty(found.solver).detach().square().sum())
    assert extra > 1e-3
    assert found.loss == pytest.approx(summed(found.solver, family, train, [4.0, 16.0]) + extra, rel=1e-10)
    assert found.test_loss == pytest.approx(summed(found.solver, family, test, [4.0, 16.0]), rel=1e-10)


def test_order_conditions_as_a_penalty():
    """With a weight large enough the integrator that comes out has order 2, also beyond its family: error ~ h^3."""
    found = quick(
        R2N2(3), VanDerPol(), 1, penalty=lambda s: 1e4 * order_conditions(s, 2), trainer=LevenbergMarquardt(3, 40)
    )
    left = order_conditions(found.solver, 2).detach()
    assert float(left.abs().max()) <= 1e-5  # the loss pulls with 1e-8 of the penalty's weight
    sines, errors = lambda x: torch.stack((x[:, 1], -x[:, 0]), 1), []
    for h in (0.2, 0.1):
        family = from_callable(
            lambda x, p: sines(x),
            lambda n, g, h=h: {"x0": torch.eye(2, dtype=DOUBLE), "h": torch.full((2,), h, dtype=DOUBLE)},
            form="rhs",
        )
        batch = family.sample(2, torch.Generator())
        with torch.no_grad():
            x = solve(family.equation(batch), batch.x0, found.solver, FixedSteps(1)).value
        c, s = math.cos(h), math.sin(h)
        errors.append(float((x - torch.tensor([[c, -s], [s, c]], dtype=DOUBLE)).norm()))
    assert errors[0] / errors[1] >= 2**2.9


# ---- objectives by default ----------------------------------------------------------------------------------------


def test_initial_value_families_train_on_their_trajectories():
    """sum_k mean |x_k - x*_k|^2 / h^p, p = n, x* by the family's SciPy integrator: by hand in numpy."""
    family = VanDerPol()
    batch = family.sample(20, torch.Generator().manual_seed(2))
    train, _ = batch.split()
    still = LevenbergMarquardt(1, 0)
    for weight, p, w in ((None, 3, (1, 1)), (lambda k: 3.0**k, 3, (3, 9)), (Trajectories(8), 8, (1, 1))):
        found = quick(R2N2.from_tableau(KUTTA3), family, 2, samples=batch, trainer=still, weight=weight)
        path, x, loss = family.trajectory(train, 2).numpy(), train.x0, 0.0
        assert train.h is not None
        for k in range(2):
            with torch.no_grad():
                x = solve(family.equation(train), x, R2N2.from_tableau(KUTTA3), FixedSteps(1)).value
            gap = np.sum((x.numpy() - path[:, k]) ** 2, 1)
            loss += w[k] * float(np.mean(gap / train.h.numpy() ** p))
        assert found.loss == pytest.approx(loss, rel=1e-6)


def test_digits_count_decades():
    """mean (log10 |r| / tolerance + reserve)^2 of the last residual, by numpy."""
    family = Chandrasekhar(m=5)
    batch = family.sample(20, torch.Generator().manual_seed(2))
    train, _ = batch.split()
    found = quick(R2N2(2), family, 2, samples=batch, trainer=LevenbergMarquardt(1, 0), weight=Digits(1e-8, 3.0))
    with torch.no_grad():
        r = solve(family.equation(train), train.x0, R2N2(2), FixedSteps(2, check=True)).residual.numpy()
    assert found.loss == pytest.approx(np.mean((np.log10(r / 1e-8) + 3) ** 2), rel=1e-9)


# ---- refusals -----------------------------------------------------------------------------------------------------


def hopeless(value: float):
    """A family whose operator gives `value` as soon as x leaves its start."""
    return from_callable(
        lambda x, p: torch.where(x == 0, x + 1, value),
        lambda n, g: {"x0": torch.zeros(n, 2, dtype=DOUBLE), "parameters": {"a": torch.rand(n, dtype=DOUBLE)}},
    )


@pytest.mark.parametrize("iterations", [0, -1, 1.5, True])
def test_refuses_iterations(iterations):
    with pytest.raises(ValueError, match=f"iterations must be an integer >= 1, got {iterations}"):
        quick(iterations=iterations)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_every_start_failing_is_an_error(value):
    with pytest.raises(ValueError, match=r"all 3 starts .* not finite; try fewer iterations than 2"):
        quick(family=hopeless(value))


def test_refuses_what_cannot_be_trained():
    with pytest.raises(ValueError, match=r"solver must have trainable weights, Picard\(damping=0.0\) has none"):
        quick(Picard())
    with pytest.raises(ValueError, match="trainable weights"):
        quick(R2N2(2).requires_grad_(False))


def test_refuses_trajectories_without_steps():
    with pytest.raises((ValueError, TypeError), match="trajector"):
        quick(weight=Trajectories(3))


@pytest.mark.parametrize("samples", [0, -3])
def test_refuses_an_empty_family(samples):
    with pytest.raises(ValueError, match=f"got {samples}"):
        quick(samples=samples)


def test_refuses_too_few_samples_to_split():
    with pytest.raises(ValueError, match="1"):
        quick(samples=1)


@pytest.mark.parametrize("singular", [((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (0.0, 0.0))])
def test_a_singular_matrix_trains_to_what_can_be_had(singular):
    """The part of b outside the range stays: loss >= its square, nothing crashes."""
    family = LinearFamily(singular, shift=(1.0, 2.0))
    batch = family.sample(40, torch.Generator().manual_seed(1))
    b = batch.split()[0].parameters["b"]
    lost = b[:, 1:] if singular[0][0] else b
    least = (4 + 16) * float(lost.square().sum(1).mean())
    found = quick(family=family, samples=batch)
    assert found.loss == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"solver": None}, TypeError, "solver must be a Solver, got NoneType"),
        ({"family": None}, TypeError, "family must be a Family, got NoneType"),
        ({"weight": 3.0}, TypeError, "weight must be a function of k .* got 3.0"),
        ({"weight": lambda k: -1.0}, ValueError, "weight must be >= 0 and finite, got -1.0 at k = 1"),
        ({"weight": lambda k: math.nan}, ValueError, "weight must be >= 0 and finite, got nan at k = 1"),
        ({"trainer": LevenbergMarquardt}, TypeError, "trainer must be a Trainer, got the class LevenbergMarquardt"),
        ({"penalty": 1.0}, TypeError, "penalty must be a function of the solver, got float"),
        ({"penalty": lambda s: 1.0}, TypeError, "penalty must return a tensor, .* got 1.0"),
    ],
)
def test_refuses_arguments_of_another_kind(changes, error, text):
    options = {"solver": R2N2(2), "family": LinearFamily("A1"), "iterations": 2, "samples": 10, **changes}
    with pytest.raises(error, match=text):
        fit(**options)
