"""Recycles of a random ESMFold: the tracer changes nothing, the operator is the model's cycle, folders of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import settlepoint as sp
from settlepoint.chains import Cycle, EsmRecycle, RecycleTracer, Taps, esm_taps, esmfold, recycled, trace_metrics
from settlepoint.chains.recycling import sites
from settlepoint.experiments.random_esmfold import random_esmfold, sequences

N, K = 12, 4


@pytest.fixture(scope="module")
def model():
    """Random weights, about 300,000 of them."""
    return random_esmfold(0)


@pytest.fixture(scope="module")
def traced(model):
    """(what the model gives, its cycles) of two sequences and four recycles."""
    with RecycleTracer(model) as tracer, torch.no_grad():
        made = model(sequences(2, N, 0), num_recycles=K)
    return made, tracer.cycles


def test_a_traced_model_gives_what_it_gives(model, traced) -> None:
    made, _ = traced
    with torch.no_grad():
        plain = model(sequences(2, N, 0), num_recycles=K)
    assert all(torch.equal(made[name], plain[name]) for name in ("positions", "s_s", "s_z", "plddt"))
    assert not model._forward_pre_hooks
    assert not any(m._forward_hooks for m in model.trunk.modules())


def test_k_recycles_are_k_plus_one_cycles_and_none_are_max_recycles(model, traced) -> None:
    made, cycles = traced
    assert len(cycles) == K + 1
    last = cycles[-1]
    assert torch.equal(last.coordinates, made.positions[-1, :, :, 1])
    assert torch.equal(last.single, made.s_s)
    assert torch.equal(last.pair, made.s_z)
    assert torch.equal(last.frames, made.frames)
    assert torch.equal(last.blocks, made.positions[:, :, :, 1])
    assert torch.allclose(last.confidence, made.plddt[..., 1], atol=1e-6)
    with RecycleTracer(model) as tracer, torch.no_grad():
        model(sequences(2, N, 0))
        assert len(tracer.cycles) == model.config.esmfold_config.trunk.max_recycles
        model(sequences(1, N, 1), num_recycles=0)
    assert [tuple(c.coordinates.shape) for c in tracer.cycles] == [(1, N, 3)]


def test_cycles_of_a_trace_are_the_last_cycles_of_shorter_runs(model, traced) -> None:
    _, cycles = traced
    for k in (0, 2):
        with torch.no_grad():
            short = model(sequences(2, N, 0), num_recycles=k)
        assert torch.equal(cycles[k].coordinates, short.positions[-1, :, :, 1])


def test_pairs_can_be_left_out(model) -> None:
    with RecycleTracer(model, esm_taps(model, pair=False)) as tracer, torch.no_grad():
        model(sequences(1, N, 0), num_recycles=1)
    assert all(c.pair is None and c.single is not None for c in tracer.cycles)
    assert trace_metrics(tracer.cycles).pair is None


def test_cycles_hold_no_graph(model) -> None:
    with RecycleTracer(model) as tracer:
        made = model(sequences(1, N, 0), num_recycles=1)
    assert made.positions.requires_grad
    assert not any(t.requires_grad for t in vars(tracer.cycles[-1]).values())


def test_the_operator_is_the_cycle_of_the_model(model, traced) -> None:
    """Against transformers itself, padding included."""
    made, cycles = traced
    operator = EsmRecycle(model)
    start, context = operator.of(sequences(2, N, 0))
    found = recycled(operator, start, stop=sp.FixedSteps(K + 1), context=context, trace=True)
    assert torch.equal(found.value[0], made.s_s)
    assert torch.equal(found.value[1], made.s_z)
    for state, cycle in zip(found.states[1:], cycles, strict=True):
        assert torch.equal(state[2].unflatten(-1, (3, 3))[:, :, 1], cycle.coordinates)


def test_padding_reaches_the_operator(model) -> None:
    ids, mask = sequences(2, N, 0), torch.ones(2, N, dtype=torch.long)
    mask[1, 8:] = 0
    operator = EsmRecycle(model)
    start, context = operator.of(ids, mask)
    with torch.no_grad():
        made = model(ids, attention_mask=mask, num_recycles=1)
    assert torch.equal(recycled(operator, start, stop=sp.FixedSteps(2), context=context).value[0], made.s_s)


@pytest.mark.parametrize("solver", [sp.Picard(), sp.Picard(0.5), sp.Anderson(3)])
def test_solvers_recycle_a_model_and_chains_stop_on_their_own(model, solver: sp.Solver) -> None:
    operator = EsmRecycle(model)
    start, context = operator.of(sequences(2, N, 0))
    found = recycled(operator, start, solver, sp.Tolerance(atol=1.0, max_steps=6), context=context).solution
    assert found.evals.max() <= 7  # one more for the check of compaction
    assert found.residual.isfinite().all()
    assert ((found.residual <= 1.0) == found.converged).all()


class Halving(nn.Module):
    """A predictor of three lines: four cycles of x <- x / 2 + 1, through two modules."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Identity(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = self.outer(self.inner(x) / 2 + 1)
        return x


def test_any_model_with_taps() -> None:
    model, x = Halving(), torch.randn(2, 5, 3)
    taps = Taps(model.inner, model.outer, lambda s, y: (s, y), lambda kept: Cycle(kept[1], single=kept[0]))
    with RecycleTracer(model, taps) as tracer:
        made = model(x)
    assert torch.equal(tracer.cycles[-1].coordinates, made)
    assert torch.equal(tracer.cycles[0].single, x)
    assert trace_metrics(tracer.cycles, made).step.shape == (3, 2)


def test_a_tracer_refuses_what_it_does_not_know(model) -> None:
    with pytest.raises(TypeError, match="model must be EsmForProteinFolding or come with taps, got Linear"):
        RecycleTracer(nn.Linear(2, 2))
    with RecycleTracer(model) as tracer, pytest.raises(RuntimeError, match="already recording"):
        tracer.__enter__()


def test_hooks_go_when_the_model_raises(model) -> None:
    with pytest.raises(ValueError, match="must not be negative"), RecycleTracer(model):
        model(sequences(1, N, 0), num_recycles=-2)
    assert not model._forward_pre_hooks


def test_a_tolerance_for_coordinates_is_in_angstrom() -> None:
    x = torch.zeros(1, 7, 3, dtype=torch.float64)
    found = recycled(lambda y: y + torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64), x, stop=sp.FixedSteps(1, True))
    assert float(found.solution.residual) == pytest.approx(5.0)
    space = sites((torch.zeros(2, 4, 3), torch.zeros(2, 4, 4, 5))).weights
    assert isinstance(space, tuple)
    assert [float(w) for w in space] == [1 / 4, 1 / 16]
    with pytest.raises(ValueError, match=r"state must hold tensors \(B, sites, c\), got \[\(4, 3\)\]"):
        recycled(lambda y: y, torch.zeros(4, 3))


def test_weights_of_a_folder(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "weights")
    again = esmfold(tmp_path / "weights")
    assert not again.training
    with torch.no_grad():
        a, b = (m(sequences(1, N, 0), num_recycles=1).positions for m in (model, again))
    assert torch.equal(a, b)


def test_folders_of_weights_that_are_refused(model, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"path must be a folder with config.json and .safetensors weights, got f"
    ):
        esmfold("facebook/esmfold_v1")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"path must hold weights as .safetensors, got none in"):
        esmfold(tmp_path)
    for name in ("pytorch_model.bin", "esmfold.pt"):
        (tmp_path / name).write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"got only pickles \(esmfold.pt, pytorch_model.bin\), which run code"):
        esmfold(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"path must hold config.json beside the weights, got model.safetensors"):
        esmfold(other)


def test_broken_weights_are_refused_with_their_path(model, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    for content in (b"", b"no safetensors at all", file.read_bytes()[:-100]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"path must hold weights that can be read, got {file}: "):
            esmfold(tmp_path)


def test_weights_of_half_a_model_are_refused(model, tmp_path: Path) -> None:
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("lddt_head")}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        ValueError, match=r"path must hold all weights of ESMFold, 8 are missing, the first is lddt_head"
    ):
        esmfold(tmp_path)
