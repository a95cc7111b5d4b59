"""The Navier-Stokes generator: exact solutions, an energy budget, orders, guards, and a file that survives a kill."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import settlepoint.data.flow_file as flow_file
from settlepoint.cli import app
from settlepoint.data import DataError, Flow, FlowError, Trajectories, frames, initial_vorticity, trajectories
from settlepoint.data.fluid import Fluid
from settlepoint.data.integrators import SCHEMES, Scheme
from settlepoint.data.navier_stokes import _Guard
from settlepoint.data.parts import kept_in, parts_of

TURN = 2 * math.pi


def vortices(size: int, at: tuple[float, float] = (0.0, 0.0)) -> Tensor:  # (1, size, size)
    """Taylor and Green's, which a fluid at rest only damps: lap w = -2 (2 pi)^2 w."""
    x = torch.arange(size, dtype=torch.float64) / size
    return 2 * TURN * torch.outer((TURN * (x - at[0])).cos(), (TURN * (x - at[1])).cos())[None]


def drawn(size: int = 32, count: int = 2, seed: int = 0) -> Tensor:
    return initial_vorticity(count, torch.Generator().manual_seed(seed), size)


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("scheme", ["etdrk4", "ifrk4"])
def test_vortices_at_rest_decay_exactly(scheme: Scheme) -> None:
    flow = Flow(viscosity=1e-2, size=32, dt=0.02, strength=0.0, scheme=scheme)
    found = trajectories(vortices(32), [0.5, 1.0], flow)[0]
    for frame, time in zip(found, (0.5, 1.0), strict=True):
        assert off(frame, vortices(32)[0] * math.exp(-2 * TURN**2 * 1e-2 * time)) < 1e-13


def carried(dt: float, scheme: Scheme) -> float:
    """Error at t = 1 of a tenth of the vortices in a wind of (.3, -.2)."""
    flow = Flow(viscosity=1e-2, size=32, dt=dt, strength=0.0, mean=(0.3, -0.2), scheme=scheme)
    wanted = 0.1 * vortices(32, at=(0.3, -0.2)) * math.exp(-2 * TURN**2 * 1e-2)
    return off(trajectories(0.1 * vortices(32), [1.0], flow)[:, 0], wanted)


@pytest.mark.parametrize(
    ("scheme", "bound"), [("etdrk4", 1e-9), ("ifrk4", 1e-9), ("cn-heun", 1e-4), ("cn-euler", 0.02)]
)
def test_carried_vortices_follow_the_order(scheme: Scheme, bound: float) -> None:
    coarse, fine = carried(0.01, scheme), carried(0.005, scheme)
    order = {"etdrk4": 4, "ifrk4": 4, "cn-heun": 2, "cn-euler": 1}[scheme]
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)
    assert fine < bound


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_a_turbulent_field_converges_at_the_order(scheme: Scheme) -> None:
    """Forced and self-advecting, against the best scheme in small steps."""
    start, order = 5 * drawn(), {"etdrk4": 4, "ifrk4": 4, "cn-heun": 2, "cn-euler": 1}[scheme]
    at = lambda dt, name: trajectories(start, [1.0], Flow(size=32, dt=dt, scheme=name))[:, 0]  # noqa: E731
    best = at(1 / 256, "etdrk4")
    step = 1 / 16 if order > 1 else 1 / 128
    errors = [off(at(dt, scheme), best) for dt in (step, step / 2)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_energy_follows_its_budget() -> None:
    """dE/dt = mean(psi g) - nu mean(w^2), E = mean(psi w) / 2, over t = 5, by Simpson's rule."""
    flow = Flow(size=32, dt=1 / 64, viscosity=2e-3)
    times = [step / 64 for step in range(1, 321)]
    w = torch.cat((drawn(count=1)[0][None], trajectories(drawn(count=1), times, flow)[0]))
    fluid = Fluid(flow, 1, w.device)
    w[0] = fluid.field(fluid.spectrum(w[0]))
    laplacian = -fluid.diffusion / flow.viscosity
    psi = fluid.field(fluid.spectrum(w) / torch.where(laplacian > 0, laplacian, math.inf))
    x = torch.arange(32, dtype=torch.float64) / 32
    phase = TURN * (x[:, None] + x)
    force = 0.1 * (phase.sin() + phase.cos())
    energy = (psi * w).mean((1, 2)) / 2
    power = (psi * force).mean((1, 2)) - flow.viscosity * w.square().mean((1, 2))
    weights = torch.full((321,), 2.0, dtype=torch.float64)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    assert float(energy[-1] - energy[0]) == pytest.approx(float((weights * power).sum() / 192), abs=1e-8)
    assert abs(float(energy[-1] - energy[0])) > 1e-4


def test_agrees_with_the_advective_form_by_complex_transforms() -> None:
    """u w_x + v w_y, products cut at the same wavenumber, by the classical Runge-Kutta method in small steps."""
    n, nu, dt = 32, 1e-2, 1 / 256
    k = torch.fft.fftfreq(n, dtype=torch.float64) * n * TURN
    kx, ky = torch.meshgrid(k, k, indexing="ij")
    square = kx**2 + ky**2
    kept = (kx.abs() <= TURN * 10) & (ky.abs() <= TURN * 10)
    x = torch.arange(n, dtype=torch.float64) / n
    phase = TURN * (x[:, None] + x)
    force = torch.fft.fft2(0.1 * (phase.sin() + phase.cos()))

    def slope(w: Tensor) -> Tensor:
        psi = torch.where(square > 0, w / square.clamp(min=1.0), 0.0)
        u, v, right, up = (torch.fft.ifft2(s).real for s in (1j * ky * psi, -1j * kx * psi, 1j * kx * w, 1j * ky * w))
        return kept * (force - torch.fft.fft2(u * right + v * up)) - nu * square * w

    start = 5 * drawn(count=1)
    w = torch.fft.fft2(start[0]) * kept
    for _ in range(256):
        a = slope(w)
        b = slope(w + dt / 2 * a)
        c = slope(w + dt / 2 * b)
        w = w + dt / 6 * (a + 2 * b + 2 * c + slope(w + dt * c))
    found = trajectories(start, [1.0], Flow(viscosity=nu, size=n, dt=1 / 128))[0, 0]
    assert off(found, torch.fft.ifft2(w).real) < 1e-8


def test_a_field_is_the_same_on_every_grid() -> None:
    coarse, fine = drawn(32), drawn(128)
    below = lambda field, n: torch.fft.rfft2(field)[..., :16] / n**2  # noqa: E731
    ours, theirs = below(coarse, 32), below(fine, 128)
    assert torch.allclose(ours[:, :16], theirs[:, :16], atol=1e-15)
    assert torch.allclose(ours[:, -15:], theirs[:, -15:], atol=1e-15)
    assert coarse.mean((1, 2)).abs().max() < 1e-15


def test_initial_fields_have_the_variance_of_the_generator() -> None:
    k = torch.fft.fftfreq(64, dtype=torch.float64) * 64
    spectrum = 7.0**3 * (4 * math.pi**2 * (k[:, None] ** 2 + k**2) + 49.0) ** -2.5
    spectrum[0, 0] = 0.0
    fields = drawn(64, count=200)
    assert float(fields.square().mean()) == pytest.approx(float(spectrum.sum()), rel=0.1)
    first = (torch.fft.fft2(fields)[:, 1, 0] / 64**2).abs().square().mean()
    assert float(first) == pytest.approx(float(spectrum[1, 0]), rel=0.25)


def test_rows_do_not_mix() -> None:
    start = drawn(count=3)
    together = trajectories(start, [1.0], Flow(size=32))
    for row in range(3):
        assert torch.allclose(trajectories(start[row : row + 1], [1.0], Flow(size=32)), together[row][None], atol=1e-12)


def test_a_courant_number_too_large_is_refused_with_a_step_that_will_do() -> None:
    start = 40 * drawn()
    with pytest.raises(FlowError, match=r"Courant number \d+\.\d+ of row \d passes 4 at t = 0; take dt = 0\.\d+"):
        trajectories(start, [1.0], Flow(size=32, dt=0.1))
    fluid = Fluid(Flow(size=32), 2, start.device)
    dt = 3.2 / (TURN * 10 * float(fluid.velocities(fluid.spectrum(start)).abs().sum(0).max()))
    with pytest.warns(UserWarning, match=r"Courant number 3\.20 of row \d passes 2\.8 at t = 0; take dt = "):
        trajectories(start, [dt], Flow(size=32, dt=dt))


def test_the_step_that_is_named_divides_the_times_and_will_do() -> None:
    start = 40 * drawn()
    with pytest.raises(FlowError) as refused:
        trajectories(start, [0.6, 1.0], Flow(size=32, dt=0.1))
    dt = float(str(refused.value).split("= ")[-1])
    assert 0.2 / dt == pytest.approx(round(0.2 / dt), abs=1e-4)
    exact = 0.2 / round(0.2 / dt)
    trajectories(start[:, ::1], [exact], Flow(size=32, dt=exact))


def test_numbers_that_are_not_finite_on_the_way_are_named() -> None:
    flow = Flow(size=32)
    fluid, guard = Fluid(flow, 2, torch.device("cpu")), _Guard(flow, 0.5)
    w = fluid.spectrum(drawn())
    guard(fluid, w, 2.0)
    w[1, 3, 2] = complex("nan")
    with pytest.raises(FlowError, match=r"row 1 is not finite at t = 3; take dt = 0\.025"):
        guard(fluid, w, 3.0)


def test_a_field_that_blows_up_is_named() -> None:
    start = drawn()
    start[1] *= 1e200
    with pytest.raises(FlowError, match="row 1"):
        trajectories(start, [0.5], Flow(size=32, dt=0.5))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 33}, "size must be an even number of points from 4 on, got 33"),
        ({"size": 2}, "size must be an even"),
        ({"dt": 0.0}, "dt must be above 0, got 0.0"),
        ({"dt": math.nan}, "dt must be above 0"),
        ({"viscosity": -1.0}, "viscosity must be at least 0, got -1.0"),
        ({"strength": math.inf}, "strength and mean must be finite"),
        ({"scheme": "rk4"}, "scheme must be one of etdrk4, ifrk4, cn-heun, cn-euler, got 'rk4'"),
    ],
)
def test_what_is_no_flow(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Flow(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "times", "words"),
    [
        (torch.zeros(2, 16, 16), [1.0], r"start must be \(B, 32, 32\) for this flow, got \(2, 16, 16\)"),
        (torch.full((1, 32, 32), math.nan), [1.0], "start must be finite"),
        (torch.zeros(1, 32, 32, dtype=torch.int64), [1.0], "start must be finite real numbers, got torch.int64"),
        (torch.zeros(1, 32, 32), [1.0, 0.5], "times must rise from 0 in whole steps of dt = 0.05, got 0.5 after 1"),
        (torch.zeros(1, 32, 32), [0.03], "times must rise"),
    ],
)
def test_what_is_no_start(start: Tensor, times: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trajectories(start, times, Flow(size=32))


def wanted(count: int = 10) -> Trajectories:
    return Trajectories(count=count, until=1.0, every=0.5, flow=Flow(size=16, dt=0.1))


def test_the_file_holds_what_was_computed(tmp_path: Path) -> None:
    path = flow_file.write_trajectories(tmp_path / "w.npz", wanted())
    found = frames(path)
    assert found.w.shape == (10, 3, 16, 16)
    assert found.times.tolist() == [0.0, 0.5, 1.0]
    assert found.spec["flow"]["viscosity"] == 1e-3
    again = trajectories(found.w[8:, 0].double(), [0.5, 1.0], wanted().flow)
    assert torch.allclose(found.w[8:, 1:].double(), again, atol=1e-6)
    assert not list(tmp_path.glob("*.parts"))


def test_an_interrupted_file_goes_on_and_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = frames(flow_file.write_trajectories(tmp_path / "whole.npz", wanted())).w
    computed, calls = flow_file._computed, []

    def second_fails(spec: Trajectories, rows: range) -> np.ndarray:
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return computed(spec, rows)

    monkeypatch.setattr(flow_file, "_computed", second_fails)
    with pytest.raises(KeyboardInterrupt):
        flow_file.write_trajectories(tmp_path / "w.npz", wanted())
    assert not (tmp_path / "w.npz").exists()
    found = frames(flow_file.write_trajectories(tmp_path / "w.npz", wanted()))
    assert calls == [range(8), range(8, 10), range(8, 10)]
    assert torch.equal(found.w, whole)


def test_a_trajectory_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = frames(flow_file.write_trajectories(tmp_path / "few.npz", wanted(2))).w
    many = frames(flow_file.write_trajectories(tmp_path / "many.npz", wanted(10))).w
    assert torch.allclose(few, many[:2], atol=1e-6)


@pytest.mark.parametrize("harm", ["cut", "shape", "nan", "other"])
def test_a_part_that_cannot_be_used_is_made_again(harm: str, tmp_path: Path) -> None:
    whole = frames(flow_file.write_trajectories(tmp_path / "whole.npz", wanted())).w
    path = tmp_path / "w.npz"
    folder = kept_in(path)
    folder.mkdir()
    digest = flow_file._digest(replace(wanted(), seed=1) if harm == "other" else wanted())
    part = folder / f"{digest}-0-8.npy"
    shape = (8, 3, 16, 15) if harm == "shape" else (8, 3, 16, 16)
    np.save(part, np.full(shape, np.nan if harm == "nan" else 0, np.float32))
    if harm == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    assert torch.equal(frames(flow_file.write_trajectories(path, wanted())).w, whole)
    assert not folder.exists()


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with parts_of(path), pytest.raises(DataError, match="is being written by process"):
        flow_file.write_trajectories(path, wanted())
    assert frames(flow_file.write_trajectories(path, wanted(1))).w.shape[0] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"every": 0.07, "until": 0.7}, "every must be a multiple of dt = 0.1, got 0.07"),
        ({"every": 0.5, "until": 0.7}, "until must be a multiple of every = 0.5, got 0.7"),
        ({"until": math.inf}, "until and every must be finite"),
        ({"until": math.nan}, "until and every must be finite"),
        ({"flow": Flow(size=512)}, "size must be at most 256"),
        ({"count": 0}, "count must be at least 1"),
    ],
)
def test_what_are_no_trajectories(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(wanted(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["times", "spec"])
def test_the_checksum_is_of_times_and_spec_too(name: str, tmp_path: Path) -> None:
    path = flow_file.write_trajectories(tmp_path / "w.npz", wanted(1))
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = 10 * arrays[name] if name == "times" else np.array("{")
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="SHA-256"):
        frames(path)


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = flow_file.write_trajectories(tmp_path / "w.npz", wanted(1))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut short.*settle data navier-stokes"):
        frames(path)
    with pytest.raises(DataError, match="missing"):
        frames(tmp_path / "none.npz")
    np.savez(path, w=np.zeros(3))
    with pytest.raises(DataError, match="times, spec, sha256 is not there"):
        frames(path)
    np.savez(path, w=np.zeros((1, 2, 4, 4), np.float32), times=np.arange(2.0), spec="{}", sha256="0")
    with pytest.raises(DataError, match="SHA-256"):
        frames(path)


def test_the_command(tmp_path: Path) -> None:
    path, run = tmp_path / "w.npz", CliRunner().invoke
    asked = ["data", "navier-stokes", "--n", "2", "--size", "16", "--time", "1", "-o", str(path), "--json"]
    result = run(app, asked)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["flow"]["size"] == 16
    assert frames(path).w.shape == (2, 2, 16, 16)
    again = run(app, asked)
    assert again.exit_code == 2
    assert "exists already" in again.output
    wrong = run(app, ["data", "navier-stokes", "--size", "15", "-o", str(tmp_path / "x.npz")])
    assert wrong.exit_code == 2
    assert "size must be an even number" in wrong.output
    fast = ["data", "navier-stokes", "--n", "1", "--size", "16", "--dt", "10", "--every", "10", "--viscosity", "0"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused = run(app, [*fast, "--time", "100", "-o", str(tmp_path / "y.npz")])
    assert refused.exit_code == 3
    assert "take dt" in refused.output
