"""Trainers on functions of their own: SciPy's Levenberg-Marquardt, numpy's lstsq, torch's optimisers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from tests.cells import DOUBLE
from torch import Tensor

from settlepoint import R2N2
from settlepoint.learn import LBFGS, Adam, LeastSquares, LevenbergMarquardt, Trainer, fit
from settlepoint.problems import Chandrasekhar, LinearFamily, VanDerPol
from settlepoint.solvers.tableaus import KUTTA3


def silent(iteration: int, of: int, loss: float) -> None:
    """No report."""


def rosenbrock(t: Tensor) -> Tensor:
    """Minimum 0 at (1, 1)."""
    return torch.stack((10 * (t[1] - t[0] ** 2), 1 - t[0]))


def curve(t: Tensor) -> Tensor:
    """a exp(b s) + c against noisy data: a nonlinear fit whose minimum is not 0."""
    s = torch.linspace(0, 1, 20, dtype=t.dtype)
    data = 2 * torch.exp(-1.5 * s) + 0.5 + 0.05 * torch.cos(37 * s)
    return t[0] * torch.exp(t[1] * s) + t[2] - data


def scattered(trainer: Trainer, theta: list[float], seed: int = 0) -> Tensor:
    return trainer.scattered(torch.tensor(theta, dtype=DOUBLE), torch.Generator().manual_seed(seed))


EVERY = [
    LevenbergMarquardt(4, 30),
    LevenbergMarquardt(4, 30, jacobian="difference"),
    Adam(4, 80, 2e-2),
    LBFGS(3, 20, 0.3),
]


@pytest.mark.parametrize("trainer", EVERY, ids=repr)
class TestEveryTrainer:
    def test_losses_are_those_of_the_weights(self, trainer):
        """And none is above that of its start."""
        starts = scattered(trainer, [0.5, 0.5, 0.5])
        done = trainer.train(curve, starts, silent)
        assert done.theta.shape == starts.shape
        for start, theta, loss in zip(starts, done.theta, done.loss, strict=True):
            assert float(loss) == pytest.approx(float(curve(theta).square().sum()), rel=1e-12)
            assert loss < curve(start).square().sum()

    def test_does_not_overwrite_its_starts(self, trainer):
        starts = scattered(trainer, [0.5, 0.5, 0.5])
        kept = starts.clone()
        trainer.train(curve, starts, silent)
        assert torch.equal(starts, kept)

    def test_starts_do_not_talk(self, trainer):
        """The first start alone comes to the same as among others; room: vmap over 1 or 4 sums differently."""
        starts = scattered(trainer, [0.5, 0.5, 0.5])
        rule = replace(trainer, keep=1.0) if isinstance(trainer, LevenbergMarquardt) else trainer  # thinning compares
        together, alone = rule.train(curve, starts, silent), rule.train(curve, starts[:1], silent)
        assert float((together.theta[0] - alone.theta[0]).abs().max()) <= 1e-6

    def test_a_start_that_is_not_finite_spoils_no_other(self, trainer):
        """sqrt of a negative number at the second start."""
        starts = torch.tensor([[1.0, 0.5], [-4.0, 0.5], [2.0, 0.5]], dtype=DOUBLE)
        errors = lambda t: torch.stack((torch.sqrt(t[0]) - 1.2, t[1] - t[0]))  # noqa: E731
        done = trainer.train(errors, starts, silent)
        assert torch.isfinite(done.loss).tolist() == [True, False, True]
        assert float(done.loss[0]) < 0.1

    def test_history_never_goes_up(self, trainer):
        told = []
        done = trainer.train(curve, scattered(trainer, [0.5, 0.5, 0.5]), lambda *said: told.append(said))
        losses = [entry["loss"] for entry in done.history]
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] == float(done.loss.min())
        assert told
        assert told[-1][2] == losses[-1]

    def test_first_start_is_the_given_one(self, trainer):
        starts = scattered(trainer, [1.0, -2.0])
        assert starts[0].tolist() == [1.0, -2.0]
        assert len({tuple(s.tolist()) for s in starts}) == trainer.starts
        assert torch.equal(starts, scattered(trainer, [1.0, -2.0]))


@pytest.mark.parametrize("jacobian", ["forward", "difference"])
def test_levenberg_marquardt_finds_the_minima_scipy_finds(jacobian):
    rule = LevenbergMarquardt(3, 200, gain=1e-10, keep=1.0, jacobian=jacobian)
    for errors, start in ((rosenbrock, [-1.2, 1.0]), (curve, [1.0, 0.0, 0.0])):
        oracle = scipy.optimize.least_squares(
            lambda t, errors=errors: errors(torch.from_numpy(t)).numpy(), start, method="lm", xtol=1e-14
        )
        done = rule.train(errors, scattered(rule, start), silent)
        best = done.theta[int(done.loss.argmin())]
        assert np.abs(best.numpy() - oracle.x).max() <= 1e-4
        assert float(done.loss.min()) <= 2 * oracle.cost * (1 + 1e-8) + 1e-12


def test_jacobians_by_differences_train_solvers_alike():
    """The same optimum to 1e-6, without forward derivatives through the operator."""
    losses = [
        fit(R2N2(2), Chandrasekhar(m=5), 1, samples=30, trainer=LevenbergMarquardt(3, 40, jacobian=jacobian)).loss
        for jacobian in ("forward", "difference")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_levenberg_marquardt_with_a_singular_jacobian():
    """Only the sum of the two weights counts: J^T J is singular everywhere."""
    rule = LevenbergMarquardt(3, 30)
    done = rule.train(lambda t: (t[0] + t[1] - 3)[None], scattered(rule, [0.0, 0.0]), silent)
    assert float(done.loss.min()) <= 1e-12


def test_levenberg_marquardt_with_a_weight_of_no_effect():
    rule = LevenbergMarquardt(2, 30)
    done = rule.train(lambda t: (t[0] - 3)[None] + 0 * t[1], scattered(rule, [0.0, 0.0]), silent)
    assert float(done.loss.min()) <= 1e-12


def test_thinning_lets_the_best_starts_go_on():
    """After the trial exactly the best quarter moves, and the losses of all starts are reported."""
    starts = scattered(LevenbergMarquardt(8, spread=2.0), [-1.2, 1.0])
    run = lambda steps, keep: LevenbergMarquardt(8, steps, keep=keep, trial=3).train(rosenbrock, starts, silent)  # noqa: E731
    trial, thinned, whole = run(3, 1.0), run(9, 0.25), run(9, 1.0)
    assert bool((trial.loss > 0).all())
    best = set(trial.loss.argsort()[:2].tolist())
    assert {i for i in range(8) if thinned.loss[i] < trial.loss[i]} == best
    assert all(float(thinned.loss[i]) == pytest.approx(float(whole.loss[i]), rel=1e-6) for i in best)
    assert thinned.history[-1]["calls"] < whole.history[-1]["calls"]


def test_no_iterations_change_nothing():
    rule = LevenbergMarquardt(2, 0)
    starts = scattered(rule, [-1.2, 1.0])
    done = rule.train(rosenbrock, starts, silent)
    assert torch.equal(done.theta, starts)
    assert done.history == []


# ---- gradient trainers --------------------------------------------------------------------------------------------


def test_adam_is_torch_adam_on_every_start():
    """Weights after each epoch by torch.optim.Adam on one start at a time; the best of them is returned."""
    rule = Adam(3, 40, 0.4)  # so large that it overshoots: the last weights are not the best
    starts = scattered(rule, [0.5, 0.5, 0.5])
    done = rule.train(curve, starts, silent)
    for start, theta, loss in zip(starts, done.theta, done.loss, strict=True):
        t = start.clone().requires_grad_()
        optimiser, seen = torch.optim.Adam([t], lr=0.4), []
        for _ in range(41):
            value = curve(t).square().sum()
            seen.append((value.item(), t.detach().clone()))
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        best = min(seen, key=lambda pair: pair[0])
        assert best[0] < 0.9 * seen[-1][0]
        assert float(loss) == pytest.approx(best[0], rel=1e-9)
        assert float((theta - best[1]).abs().max()) <= 1e-9


def test_lbfgs_with_full_steps_finds_the_minimum():
    rule = LBFGS(1, 200, 1.0)
    done = rule.train(curve, scattered(rule, [1.0, -1.0, 0.0]), silent)
    oracle = scipy.optimize.least_squares(lambda t: curve(torch.from_numpy(t)).numpy(), [1.0, -1, 0], method="lm")
    assert float(done.loss.min()) == pytest.approx(2 * oracle.cost, rel=1e-6)


@pytest.mark.parametrize("trainer", [Adam(2, 150, 1e-2), LBFGS(1, 40, 0.1)], ids=repr)
def test_gradient_trainers_lower_the_loss_of_a_solver(trainer):
    still = fit(R2N2(2), LinearFamily(), 2, samples=30, trainer=LevenbergMarquardt(1, 0))
    found = fit(R2N2(2), LinearFamily(), 2, samples=30, trainer=trainer)
    assert found.loss < 0.5 * still.loss
    assert found.losses.shape == (trainer.starts,)


@pytest.mark.slow
def test_papers_settings_of_lbfgs_reach_the_optimum_of_a_small_problem():
    """lr .01, 5,000 epochs, against Levenberg-Marquardt."""
    best = fit(R2N2(2), LinearFamily(), 2, samples=30)
    found = fit(R2N2(2), LinearFamily(), 2, samples=30, trainer=LBFGS())
    assert found.loss <= 1.01 * best.loss


# ---- least squares ------------------------------------------------------------------------------------------------


def test_least_squares_is_numpy_lstsq(generator):
    J = torch.randn(12, 4, dtype=DOUBLE, generator=generator)
    c = torch.randn(12, dtype=DOUBLE, generator=generator)
    rule = LeastSquares()
    done = rule.train(lambda t: J @ t - c, scattered(rule, [1.0, 2.0, 3.0, 4.0]), silent)
    exact, squares, *_ = np.linalg.lstsq(J.numpy(), c.numpy(), rcond=None)
    assert np.abs(done.theta[0].numpy() - exact).max() <= 1e-12
    assert float(done.loss[0]) == pytest.approx(float(squares[0]), rel=1e-10)


def test_least_squares_with_too_few_equations(generator):
    """Rank 2 of 4: the residual vanishes, nothing blows up."""
    J = torch.randn(2, 4, dtype=DOUBLE, generator=generator)
    rule = LeastSquares()
    done = rule.train(lambda t: J @ t - 1, scattered(rule, [0.0] * 4), silent)
    assert float(done.loss[0]) <= 1e-24


@pytest.mark.parametrize("family", [LinearFamily(), VanDerPol()], ids=lambda f: f.name)
def test_least_squares_trains_output_weights_in_one_step(family):
    """One iteration with frozen inner weights: what Levenberg-Marquardt needs many steps for, never worse."""
    solver = R2N2.from_tableau(KUTTA3)
    solver.inner.requires_grad_(False)
    once = fit(solver, family, 1, samples=50, trainer=LeastSquares())
    many = fit(solver, family, 1, samples=50, trainer=LevenbergMarquardt(2, 60, gain=1e-12))
    assert once.loss <= many.loss * (1 + 1e-6)
    assert many.loss == pytest.approx(once.loss, rel=1e-3)
    assert torch.equal(once.solver.inner, solver.inner)


def test_least_squares_refuses_curved_errors():
    with pytest.raises(ValueError, match=r"curved by .* freeze the inner weights"):
        fit(R2N2(3), LinearFamily(), 1, samples=20, trainer=LeastSquares())


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LevenbergMarquardt(0), "starts must be an integer >= 1, got 0"),
        (lambda: LevenbergMarquardt(True), "starts must be an integer >= 1, got True"),
        (lambda: LevenbergMarquardt(iterations=-1), "iterations must be an integer >= 0, got -1"),
        (lambda: LevenbergMarquardt(spread=-0.1), "spread must be >= 0, got -0.1"),
        (lambda: LevenbergMarquardt(spread=float("nan")), "spread must be >= 0, got nan"),
        (lambda: LevenbergMarquardt(keep=0.0), r"keep must lie in \(0, 1\], got 0.0"),
        (lambda: LevenbergMarquardt(jacobian="reverse"), "jacobian must be 'forward' or 'difference', got 'reverse'"),
        (lambda: Adam(epochs=-1), "epochs must be an integer >= 0, got -1"),
        (lambda: Adam(learning_rate=0.0), "learning_rate must be > 0, got 0.0"),
        (lambda: Adam(starts=0), "starts must be an integer >= 1, got 0"),
        (lambda: LBFGS(epochs=1.5), "epochs must be an integer >= 0, got 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: LBFGS(learning_rate=-1.0), "learning_rate must be > 0, got -1.0"),
        (lambda: LeastSquares(0), "starts must be an integer >= 1, got 0"),
    ],
)
def test_refusals(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("rule", [LevenbergMarquardt, Adam, LBFGS, LeastSquares])
def test_refuses_unknown_options(rule):
    with pytest.raises(TypeError, match="epocs"):
        rule(epocs=3)


def test_papers_settings_are_the_defaults():
    """R2N2, Sec. 4: Adam lr .001 for 25,000 epochs, L-BFGS lr .01 for 5,000."""
    assert (Adam().learning_rate, Adam().epochs) == (1e-3, 25_000)
    assert (LBFGS().learning_rate, LBFGS().epochs) == (1e-2, 5_000)
