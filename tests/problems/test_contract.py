"""The contract of every family. A new family joins by ONE line in CASES."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from settlepoint import Anderson, Picard, Solver, Tolerance, problems, solve
from settlepoint.problems import FAMILIES, Batch, Family, from_callable
from settlepoint.problems.custom import CustomFixedPoint, CustomInitialValue

DOUBLE = torch.float64


@dataclass(frozen=True)
class Case:
    """A family, its number of unknowns, and a solver that finds the solution that the reference is."""

    make: Callable[[], Any]
    width: int
    solver: Callable[[], Solver] = Anderson
    distance: float = 1e-7  # from the reference, at a residual of 1e-10

    def __str__(self) -> str:
        return repr(self.make())[:60]


def kepler(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["M"] + p["e"] * torch.sin(x)


def cube(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    return x * x * x + x - p["M"]


def pendulum(x: Tensor, p: dict[str, Tensor]) -> Tensor:
    return torch.stack((x[:, 1], -p["k"] * x[:, 0].sin()), 1)


def forced(x: Tensor, p: dict[str, Tensor], t: Tensor) -> Tensor:
    return -p["k"][:, None] * (x - t.cos()[:, None])


def orbits(n: int, generator: torch.Generator) -> dict:
    draw = torch.rand(2, n, 1, generator=generator, dtype=DOUBLE)
    return {"x0": draw[0], "parameters": {"M": draw[0], "e": 0.8 * draw[1]}}


def steps(n: int, generator: torch.Generator) -> dict:
    x, k, h = (
        torch.rand(n, 2, generator=generator),
        torch.rand(n, generator=generator),
        torch.rand(n, generator=generator),
    )
    return {"x0": x, "parameters": {"k": 1 + k}, "h": 0.1 + 0.1 * h}


CASES = (
    Case(problems.LinearFamily, 5),
    Case(lambda: problems.LinearFamily("A8", spread=5.0, shift=False), 5),
    Case(lambda: problems.LinearFamily(((0.5, 0.2), (-0.3, 0.8)), shift=(1.0, 2.0)), 2),
    Case(lambda: problems.LinearFamily("A2").embedded(12, torch.Generator().manual_seed(3)), 12),
    Case(problems.Chandrasekhar, 20),
    Case(lambda: problems.Chandrasekhar(m=(5, 10, 20), c=(0.85, 0.99), mean=5.0, variance=0.5), 20, Picard),
    Case(lambda: problems.Chandrasekhar(m=100, c=0.9), 100),
    Case(problems.VanDerPol, 2),
    Case(problems.Bratu, 100),
    Case(lambda: problems.ConvectionDiffusion(size=8), 64),
    Case(lambda: problems.HeatImplicit(size=8), 64),
    Case(lambda: problems.ReactionImplicit(size=8), 64),
    Case(problems.Eigenvector, 10, Picard),  # others may settle on another eigenvector
    Case(problems.NeumannSeries, 10),
    Case(problems.SmallSystems, 20),
    Case(lambda: from_callable(kepler, orbits), 1),
    Case(lambda: from_callable(cube, orbits, form="root"), 1, lambda: Anderson(3)),
    Case(lambda: from_callable(pendulum, steps, form="rhs"), 2),
    Case(lambda: from_callable(forced, steps, form="rhs", timed=True), 3),
)
ROWS = 24


def sampled(family: Family, seed: int = 0, rows: int = ROWS) -> Batch:
    return family.sample(rows, torch.Generator().manual_seed(seed))


def tensors(batch: Batch) -> list[Tensor]:
    return [batch.x0, *batch.parameters.values(), *([] if batch.h is None else [batch.h])]


def test_the_table_holds_every_family() -> None:
    assert set(FAMILIES) <= {case.make().name for case in CASES}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_names_of_the_program_make_families(name: str) -> None:
    family = FAMILIES[name]()
    assert isinstance(family, Family)
    assert family.name == name


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryFamily:
    """What every family has to hold."""

    def test_samples_have_the_shapes(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        assert batch.x0.shape == (ROWS, case.width)
        assert all(len(t) == ROWS and t.dtype == DOUBLE for t in tensors(batch))
        assert all(bool(torch.isfinite(t).all()) for t in tensors(batch))
        assert (batch.h is not None) == (family.form == "rhs")
        assert len(sampled(family, rows=1)) == 1

    def test_the_seed_decides_every_bit(self, case: Case) -> None:
        family = case.make()
        state = torch.random.get_rng_state()
        first, again, other = (tensors(sampled(family, seed)) for seed in (1, 1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
        assert torch.equal(state, torch.random.get_rng_state())

    def test_the_reference_solves_the_equation(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        reference = family.reference(batch)
        assert reference.shape == batch.x0.shape
        if family.form == "rhs":
            assert torch.equal(reference, family.trajectory(batch, 1)[:, 0])
            return
        gap = family.equation(batch).residual(reference).abs().amax(1)
        assert bool((gap <= 1e-10 * (1 + reference.abs().amax(1))).all())  # as Family.reference states

    def test_a_solver_finds_the_reference(self, case: Case) -> None:
        family = case.make()
        if family.form == "rhs":
            return
        batch = sampled(family)
        found = solve(family.equation(batch), batch.x0, case.solver(), Tolerance(1e-10, max_steps=1000)).require()
        assert float((found.value - family.reference(batch)).abs().max()) <= case.distance

    def test_rows_are_gathered(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        if family.form == "rhs":
            batch = replace(batch, x0=batch.x0 / 100, h=batch.h / 100)  # type: ignore[operator]
        whole, some = family.equation(batch).at(batch.x0), torch.tensor([5, 3, 17])
        part = whole.rows(some).image(batch.x0[some])
        assert torch.allclose(part, whole.image(batch.x0)[some], rtol=1e-13, atol=1e-14)
        assert torch.allclose(part, family.equation(batch.rows(some)).image(batch.x0[some]), rtol=1e-13, atol=1e-14)

    def test_a_solve_is_compacted(self, case: Case) -> None:
        family = case.make()
        if family.form == "rhs":
            return
        batch = sampled(family)
        reference = family.reference(batch)
        nearly = torch.arange(ROWS)[:, None] % 2 == 0  # half of the rows start at the solution and leave at once
        found = solve(family.equation(batch), torch.where(nearly, reference, batch.x0), case.solver(), Tolerance(1e-9))
        assert found.notes == ()
        assert found.work < ROWS * int(found.evals.max())

    def test_single_precision_stays_single(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        single = batch.to(torch.float32)
        image = family.equation(single).image(single.x0)
        assert image.dtype == torch.float32
        assert torch.allclose(image.to(DOUBLE), family.equation(batch).image(batch.x0), rtol=1e-4, atol=1e-4)
        assert family.reference(single).dtype == torch.float32

    @pytest.mark.gpu
    def test_equations_work_where_their_batch_is(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        there = batch.to(device="cuda")
        image = family.equation(there).image(there.x0)
        assert image.device == there.x0.device
        assert torch.allclose(image.cpu(), family.equation(batch).image(batch.x0), rtol=1e-12, atol=1e-13)
        assert family.reference(there).device == there.x0.device

    def test_vmap_and_jvp(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family)
        P = family.equation(batch).image
        x = batch.x0 + 1e-3 * torch.randn(3, *batch.x0.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
        v = torch.randn(x.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(6))
        images, slopes = torch.func.vmap(lambda a, b: torch.func.jvp(P, (a,), (b,)))(x, v)  # type: ignore[arg-type]
        for a, b, image, slope in zip(x, v, images, slopes, strict=True):
            assert torch.allclose(image, P(a), rtol=1e-12, atol=1e-13)  # type: ignore[arg-type]
            eps = 1e-6
            central = (P(a + eps * b) - P(a - eps * b)) / (2 * eps)  # type: ignore[operator]
            assert torch.allclose(slope, central, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))

    def test_the_interval_holds_the_spectrum(self, case: Case) -> None:
        family = case.make()
        if family.interval is None or getattr(family, "frame", None) is not None:  # with a frame: see test_linear
            return
        low, high = family.interval
        batch = sampled(family, rows=4)
        for i in range(4):
            one = batch.rows(slice(i, i + 1))
            P = family.equation(one).image
            J = torch.func.jacfwd(lambda x, P=P: P(x[None])[0])(one.x0[0])
            spectrum = torch.linalg.eigvals(J)
            assert float(spectrum.imag.abs().max()) < 1e-10
            assert low - 1e-12 <= float(spectrum.real.min())
            assert float(spectrum.real.max()) <= high + 1e-12

    def test_settings_are_json(self, case: Case) -> None:
        family = case.make()
        settings = json.loads(json.dumps(family.settings()))
        assert settings["name"] == family.name

    def test_the_repr_makes_the_family(self, case: Case) -> None:
        family = case.make()
        if not isinstance(family, CustomFixedPoint | CustomInitialValue):  # functions have no such repr
            assert eval(repr(family), vars(problems)) == family

    @pytest.mark.parametrize("n", [0, -1, 2.0, True, "3"])
    def test_a_wrong_number_is_refused(self, case: Case, n: Any) -> None:
        with pytest.raises(ValueError, match="n must be an integer >= 1, got"):
            case.make().sample(n, torch.Generator())

    def test_a_seed_is_no_generator(self, case: Case) -> None:
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
            case.make().sample(3, 0)  # type: ignore[arg-type]

    def test_trajectories_belong_to_initial_values(self, case: Case) -> None:
        family = case.make()
        batch = sampled(family, rows=3)
        if family.form == "rhs":
            assert family.trajectory(batch, 4).shape == (3, 4, case.width)
        else:
            with pytest.raises(TypeError, match="form 'rhs'"):
                family.trajectory(batch, 4)
