"""Sweeps over any autoregressive function: exact for every one, sampled from the right distribution, rows alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from settlepoint import Status
from settlepoint.chains import jacobi_sample
from settlepoint.chains.noise import GumbelNoise

V = 7


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


class Autoregressive:
    """Entry i's logits hash all entries before it: no contraction, and no entry can be left out."""

    def __init__(self, n: int, seed: int, memory: int = 1 << 20):
        draw = seeded(seed)
        self.first = torch.randn(n, V, generator=draw, dtype=torch.float64)
        self.weights = torch.randint(1, 50, (n, n), generator=draw)
        self.weights = self.weights.tril(-1).triu(-memory)
        self.calls = 0

    def __call__(self, y: torch.Tensor) -> torch.Tensor:  # (R, n) -> (R, n, V)
        self.calls += 1
        phase = (y.double() @ self.weights.T.double())[:, :, None]
        return self.first + 3 * torch.sin(phase * torch.arange(1, V + 1))


def one_by_one(logits, rows: int, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
    y = torch.zeros(rows, n, dtype=torch.int64)
    for i in range(n):
        z = logits(y)[:, i]
        if generator is not None:
            z = z - torch.empty_like(z).exponential_(generator=generator).log()
        y[:, i] = z.argmax(-1)
    return y


@settings(max_examples=40)
@given(n=st.integers(1, 12), rows=st.integers(1, 4), seed=st.integers(0, 999), block=st.none() | st.integers(1, 12))
def test_any_chain_is_exact_within_n_sweeps(n: int, rows: int, seed: int, block: int | None) -> None:
    chain = Autoregressive(n, seed)
    start = torch.randint(V, (rows, n), generator=seeded(seed))
    found = jacobi_sample(chain, start, generator=seeded(seed), block=block)
    assert found.calls == chain.calls <= n
    assert torch.equal(found.tokens, one_by_one(chain, rows, n, seeded(seed)))
    assert found.status.tolist() == [Status.CONVERGED] * rows
    assert torch.allclose(found.per_sweep * found.sweeps, torch.tensor(float(n)))


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_the_greedy_answer_is_a_fixed_point(seed: int) -> None:
    chain = Autoregressive(9, seed)
    found = jacobi_sample(chain, torch.zeros(3, 9, dtype=torch.int64), do_sample=False)
    assert torch.equal(chain(found.tokens).argmax(-1), found.tokens)


def test_a_chain_without_memory_takes_two_sweeps_and_one_with_the_right_start() -> None:
    """A sweep that changes entries cannot know that they depend on nothing; the next one confirms it."""
    chain = Autoregressive(8, 0, memory=0)
    first = jacobi_sample(chain, torch.zeros(2, 8, dtype=torch.int64), do_sample=False)
    assert first.sweeps.tolist() == [2, 2]
    assert jacobi_sample(chain, first.tokens, do_sample=False).sweeps.tolist() == [1, 1]


def test_the_start_and_the_block_change_no_sample() -> None:
    chain = Autoregressive(10, 1)
    starts = [torch.zeros(4, 10, dtype=torch.int64), torch.randint(V, (4, 10), generator=seeded(0))]
    samples = [
        jacobi_sample(chain, start, generator=seeded(5), block=block).tokens for start in starts for block in (None, 3)
    ]
    assert all(torch.equal(samples[0], other) for other in samples[1:])


def test_samples_follow_the_softmax() -> None:
    """4,000 draws of one entry, chi-square of 6 degrees of freedom: 22.5 is passed once in a thousand."""
    logits = torch.linspace(-1, 1, V, dtype=torch.float64)
    found = jacobi_sample(
        lambda y: logits.expand(len(y), 1, V), torch.zeros(4000, 1, dtype=torch.int64), temperature=0.5,
        generator=seeded(0),
    )  # fmt: skip
    wanted = 4000 * (logits / 0.5).softmax(0)
    statistic = ((found.tokens.flatten().bincount(minlength=V) - wanted).square() / wanted).sum()
    assert float(statistic) < 22.5


def test_noise_does_not_depend_on_the_windows_asked_for() -> None:
    like = torch.zeros(3, V, dtype=torch.float64)
    whole = GumbelNoise(3, seeded(2)).window(0, 6, like)
    parts = GumbelNoise(3, seeded(2))
    assert torch.equal(parts.window(0, 2, like), whole[:, :2])
    assert torch.equal(parts.window(1, 5, like), whole[:, 1:5])
    assert torch.equal(parts.window(5, 6, like), whole[:, 5:])
    assert len(parts._kept) == 1  # what lies before is let go
    assert float(whole.mean()) == pytest.approx(0.5772, abs=0.4)  # Euler's constant, 126 draws


def table(rows: dict[int, list[float]]):
    """Logits of an entry by the entry before it, those of the first by entry 0."""
    weight = torch.full((V, V), -1.0, dtype=torch.float64)
    for v in range(V):
        weight[v, (v + 1) % V] = 1.0
    for v, logits in rows.items():
        weight[v] = torch.tensor(logits, dtype=torch.float64)
    return lambda y: weight[torch.cat((torch.zeros_like(y[:, :1]), y[:, :-1]), 1)]


def test_a_nan_ends_a_row_where_the_answer_meets_it_and_not_where_a_guess_does() -> None:
    chain = table({4: [math.nan] * V})
    found = jacobi_sample(chain, torch.full((1, 6), 4), do_sample=False)
    assert found.tokens.tolist() == [[1, 2, 3, 4, 0, 0]]
    assert found.lengths.tolist() == [4]
    assert found.status.tolist() == [Status.NONFINITE]
    whole = jacobi_sample(chain, torch.full((1, 4), 4), do_sample=False)
    assert whole.status.tolist() == [Status.CONVERGED]


def test_minus_infinity_forbids_and_infinity_is_not_finite() -> None:
    forbids = jacobi_sample(
        table({1: [-math.inf, -math.inf, -math.inf, 0.0, -math.inf, -math.inf, -math.inf]}),
        torch.zeros(1, 3, dtype=torch.int64), generator=seeded(0), monitor=True,
    )  # fmt: skip
    assert int(forbids.tokens[0, 1]) == 3 or int(forbids.tokens[0, 0]) != 1
    assert forbids.divergence is not None
    assert not bool(forbids.divergence[1:2].isinf().any())
    infinite = jacobi_sample(table({1: [math.inf] * V}), torch.zeros(1, 3, dtype=torch.int64), do_sample=False)
    assert infinite.status.tolist() == [Status.NONFINITE]


def test_rows_stop_on_their_own() -> None:
    """Two rows of one batch that start right and wrong: one sweep and six."""
    chain = table({})
    start = torch.tensor([[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]])
    found = jacobi_sample(chain, start, do_sample=False, trace=True)
    assert found.sweeps.tolist() == [1, 6]
    assert found.evaluations == 6 * 7
    assert found.states is not None
    assert found.states.shape == (7, 2, 6)
    assert torch.equal(found.states[0], start)


@pytest.mark.parametrize(
    "start", [torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3), torch.zeros(2, 0, dtype=torch.int64)]
)
def test_starts_that_are_refused(start: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"start must be \(B, n\) int64 with B, n >= 1, got"):
        jacobi_sample(lambda y: torch.zeros(*y.shape, V), start)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits must be \(\*\(2, 3\), V\) for these entries, got \(2, 7, 3\)"):
        jacobi_sample(lambda y: torch.zeros(2, V, 3), torch.zeros(2, 3, dtype=torch.int64))
