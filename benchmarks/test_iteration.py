"""Time of one iteration by solver and shape, with pytest-benchmark: `pytest benchmarks --benchmark-only`.

Fifty iterations of a cheap operator that nobody finishes; divide by fifty. The bare operator stands beside the solvers.
"""

import pytest
import torch

from settlepoint import Aitken, Anderson, Broyden, Equation, FixedSteps, NewtonKrylov, Picard, Solver, Tolerance, solve

SHAPES = [(1, 64), (64, 64), (1024, 64), (64, 512)]
STOP = Tolerance(1e-300, max_steps=50, window=1000)


def operator(x: torch.Tensor) -> torch.Tensor:
    return 0.999 * x.roll(1, 1) + 1


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "solver", [Picard(), Aitken(), Anderson(), Broyden(), NewtonKrylov()], ids=lambda s: type(s).__name__
)
def test_tolerance(benchmark, solver: Solver, shape):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        benchmark.pedantic(solve, (Equation(operator), x0, solver, STOP), rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fixed_steps(benchmark, shape):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        benchmark.pedantic(solve, (Equation(operator), x0, Picard(), FixedSteps(50)), rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bare_operator(benchmark, shape):
    x0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def loop() -> None:
        x = x0
        for _ in range(50):
            x = operator(x)

    with torch.no_grad():
        benchmark.pedantic(loop, rounds=10, warmup_rounds=1)
