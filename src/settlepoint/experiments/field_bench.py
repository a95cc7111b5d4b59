"""What fields cost: the fluid's generator and iterated transformers, as rows of the target table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from settlepoint import Anderson, FixedSteps, Implicit, Picard, Tolerance, Unrolled
from settlepoint.data.fluid import Flow, Fluid
from settlepoint.data.integrators import ETDRK4
from settlepoint.data.navier_stokes import initial_vorticity
from settlepoint.experiments.measuring import Measure, alone, cpu_seconds, peak
from settlepoint.models import FieldTransformer
from settlepoint.runs import generator_from

FLOW, BATCH, COUNTED, TIMED = Flow(size=64, dt=0.05), 8, 500, 40
KEPT = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}


class PlainFluid:
    """The same equation as it is usually solved: complex transforms, u, v, w_x and w_y back, u . grad w forth."""

    def __init__(self, flow: Flow):
        n = flow.size
        k = 2 * torch.pi * n * torch.fft.fftfreq(n, dtype=torch.float64)
        self.kx, self.ky = 1j * k[:, None].expand(n, n), 1j * k[None, :].expand(n, n)
        square = k[:, None] ** 2 + k[None, :] ** 2
        self.inverse = torch.where(square > 0, 1 / square, 0.0)
        self.kept = (self.kx.imag.abs().maximum(self.ky.imag.abs()) < 2 * torch.pi * (flow.kept + 0.5)).double()
        self.diffusion = -flow.viscosity * square * self.kept
        at = torch.arange(n, dtype=torch.float64) * (2 * torch.pi / n)
        phase = at[:, None] + at[None, :]
        self.forcing = torch.fft.fft2(flow.strength * (phase.sin() + phase.cos()))

    def spectrum(self, field: Tensor) -> Tensor:
        """All wavenumbers, those that are not kept as zeros."""
        return torch.fft.fft2(field) * self.kept

    def rate(self, w: Tensor) -> Tensor:
        """g - u . grad w."""
        psi = w * self.inverse
        u, v, across, along = (
            torch.fft.ifft2(part).real for part in (self.ky * psi, -self.kx * psi, self.kx * w, self.ky * w)
        )
        return self.forcing - torch.fft.fft2(u * across + v * along) * self.kept


@torch.no_grad()
def generator(repeats: int) -> tuple[float, float]:
    """Trajectories of 500 steps in a CPU minute, 64 x 64, batch 8: ours, and the plain solver beside it."""
    ours, plain = _stepped(repeats)
    return ours, plain


@torch.no_grad()
def generator_ratio(repeats: int) -> tuple[float, float]:
    """Ours over the plain solver."""
    ours, plain = _stepped(repeats)
    return ours / plain, 1.0


@functools.cache
def _stepped(repeats: int) -> tuple[float, float]:
    start = initial_vorticity(BATCH, generator_from("bench", "flow"), FLOW.size)
    variants = {}
    for name, fluid in {"ours": Fluid(FLOW, BATCH, start.device), "peer": PlainFluid(FLOW)}.items():
        variants[name] = functools.partial(_course, fluid, ETDRK4(fluid.diffusion, FLOW.dt), fluid.spectrum(start))
    seconds = cpu_seconds(variants, repeats)
    return tuple(60 * BATCH * TIMED / (COUNTED * seconds[name]) for name in ("ours", "peer"))  # type: ignore[return-value]


def _course(fluid: Fluid | PlainFluid, integrator: ETDRK4, w: Tensor) -> None:
    for _ in range(TIMED):
        w = integrator.step(w, fluid.rate, fluid.rate(w))


SIZES = {"cpu": (10, 16, 48, 4, 1, 4, 25), "paper": (25, 64, 192, 6, 4, 8, 4)}
"""Of table2: frames, grid, width, heads, blocks, patch; samples of a batch here."""


def transformer(size: str, steps: int, *, settles: bool = False) -> tuple[FieldTransformer, Tensor]:
    """A model of table2 and a batch for it. settles: with T(x, f) behind a layer norm, whose fresh weights settle."""
    torch.manual_seed(0)
    frames, grid, width, heads, depth, patch, rows = SIZES[size]
    model = FieldTransformer(
        (frames, frames), (grid, grid), width, heads, depth, patch=(patch, patch), bounded=settles,
        form="input" if settles else "picard", solver=Picard(0.5), stop=FixedSteps(steps),
    )  # fmt: skip
    return model.eval(), torch.randn(rows, frames, grid, grid, generator=generator_from("bench", "frames"))


def iterated(size: str) -> Measure:
    """Process time of 24 iterations over 24 calls of the blocks; a plain loop with the same update beside it."""

    def measure(repeats: int) -> tuple[float, float]:
        seconds = alone(_iterated, size, repeats, **KEPT)
        return seconds["ours"] / seconds["bare"], seconds["peer"] / seconds["bare"]

    return measure


@torch.no_grad()
def _iterated(size: str, repeats: int) -> Mapping[str, float]:
    model, u = transformer(size, 24)
    f, blocks = model.encode(u), model.operator.blocks

    def bare() -> None:
        x = f
        for _ in range(24):
            x = blocks(x)

    def plain() -> None:
        x = f
        for _ in range(24):
            x = 0.5 * (x + blocks(x) + f)

    return cpu_seconds({"ours": lambda: model.settle(f, f), "peer": plain, "bare": bare}, repeats)


def growth(repeats: int) -> tuple[float, float]:
    """MB by which the peak of a forward and backward pass grows from 2 to 24 iterations: implicit, and unrolled."""
    del repeats
    found = []
    for name in ("implicit", "unrolled"):
        few, many = (alone(_peak, name, steps, MALLOC_MMAP_THRESHOLD_=2**16) for steps in (2, 24))
        found.append(many - few)
    return found[0], found[1]


def _peak(name: str, steps: int) -> float:
    model, u = transformer("cpu", steps, settles=True)
    backward = Implicit(Anderson(5), Tolerance(atol=0.0, rtol=1e-4, max_steps=100))
    model.settle.adjoint = Unrolled() if name == "unrolled" else backward
    call: Callable[[], None] = lambda: model(u).square().mean().backward()  # noqa: E731
    call()
    model.zero_grad()
    return peak(call)


FIELDS: Mapping[str, tuple[Measure, float | None, str, str]] = {
    "fluid, 500 steps on 64 x 64, trajectories a CPU minute": (
        generator, 400, "plain solver, complex transforms", "high",
    ),
    "fluid, ours / plain solver in speed": (generator_ratio, None, "parity", "high"),
    "iterated transformer over its blocks, cpu": (iterated("cpu"), 1.03, "plain loop with the same update", "low"),
    "iterated transformer over its blocks, paper": (iterated("paper"), 1.03, "plain loop with the same update", "low"),
    "transformer backward memory, 24 over 2 steps, MB": (growth, 1, "our Unrolled", "low"),
}  # fmt: skip
"""Name to measure, target, peer and the better side."""
