"""The consistency objective by hand, what its gradient reaches, and what training by it does to a small model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from settlepoint.chains import jacobi_decode
from settlepoint.training.consistency import Consistency, Trajectories, token_loss
from settlepoint.training.fit import Recipe, fit

V = 5


class Bigram(nn.Module):
    """Logits of a token by the token before it, called as models of transformers are."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, V, generator=generator))

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        return SimpleNamespace(logits=self.table[input_ids])


@pytest.fixture
def model(generator: torch.Generator) -> Bigram:
    return Bigram(generator)


def test_token_loss_by_hand(model: Bigram) -> None:
    text = torch.tensor([[0, 3, 1]])
    log = model.table.detach().log_softmax(-1)
    assert token_loss(model, text).item() == pytest.approx(float(-(log[0, 3] + log[3, 1]) / 2))


def test_the_distance_by_hand(model: Bigram) -> None:
    """Prompt (2, 0), iterate (4, 1), answer (3, 2): entry 1 is predicted behind 0 for both, entry 2 behind 4 or 3."""
    chains = torch.tensor([[2, 0, 4, 1, 3, 2]])
    log = model.table.detach().log_softmax(-1)
    hard = Consistency(given=2).distance(model, chains)
    assert hard.item() == pytest.approx(float(-(log[0, 3] + log[4, 2]) / 2))
    soft = Consistency(given=2, hard=False).distance(model, chains)
    assert soft.item() == pytest.approx(float((log[3].exp() * (log[3] - log[4])).sum() / 2), rel=1e-5)


def test_the_answers_own_prediction_is_held_still(model: Bigram) -> None:
    chains = torch.tensor([[2, 0, 4, 1, 3, 2]])
    Consistency(given=2, hard=False).distance(model, chains).backward()
    assert model.table.grad is not None
    moved = model.table.grad.abs().sum(1) > 1e-7
    assert moved.tolist() == [False, False, False, False, True]


def test_the_distance_is_0_at_the_answer(model: Bigram) -> None:
    chains = torch.tensor([[1, 2, 3, 4, 2, 3, 4]])
    assert Consistency(given=1, hard=False).distance(model, chains).item() == pytest.approx(0.0, abs=1e-6)


def test_the_sum_of_both(model: Bigram, generator: torch.Generator) -> None:
    text = torch.randint(V, (3, 6), generator=generator)
    chains = torch.randint(V, (3, 8), generator=generator)
    both = Consistency(given=2, weight=0.3)
    wanted = token_loss(model, text) + 0.3 * both.distance(model, chains)
    assert both(model, text, chains).item() == pytest.approx(wanted.item())
    assert torch.equal(Consistency(given=2, weight=0.0)(model, text, chains), token_loss(model, text))


def test_draws_are_iterates_on_their_way(generator: torch.Generator) -> None:
    """Never the answer itself, unless it was the guess; every other iterate comes up."""
    answers = torch.tensor([[1, 2, 3], [4, 4, 4]])
    states = torch.stack((torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[1, 2, 0], [4, 4, 4]]), answers))
    states[0, 1] = 4
    found = Trajectories(torch.tensor([[7], [8]]), states, answers).drawn(200, generator)
    assert found.shape == (200, 7)
    rows = {tuple(row) for row in found.tolist()}
    assert rows == {(7, 0, 0, 0, 1, 2, 3), (7, 1, 2, 0, 1, 2, 3), (8, 4, 4, 4, 4, 4, 4)}


def test_joining_keeps_the_ends() -> None:
    short = Trajectories(torch.zeros(1, 2), torch.tensor([[[1, 1]], [[2, 2]]]), torch.tensor([[2, 2]]))
    long = Trajectories(torch.ones(1, 2), torch.tensor([[[0, 0]], [[3, 0]], [[3, 3]]]), torch.tensor([[3, 3]]))
    both = Trajectories.joined([short, long])
    assert both.states.shape == (3, 2, 2)
    assert torch.equal(both.states[2], both.answers)
    assert both.prompts.tolist() == [[0, 0], [1, 1]]


def test_what_is_refused(model: Bigram) -> None:
    with pytest.raises(ValueError, match=r"given must be at least 1 and weight at least 0, got 0 and 1\.0"):
        Consistency(given=0)
    with pytest.raises(ValueError, match=r"got 1 and -1\.0"):
        Consistency(given=1, weight=-1.0)
    with pytest.raises(ValueError, match=r"chains must be \(N, 2 \+ 2 n\), got \(1, 5\)"):
        Consistency(given=2).distance(model, torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"states must be \(S \+ 1, 2, 3\), as answers are, got \(4, 2, 2\)"):
        Trajectories(torch.zeros(2, 1), torch.zeros(4, 2, 2), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"prompts must be \(2, L\), got \(3, 1\)"):
        Trajectories(torch.zeros(3, 1), torch.zeros(4, 2, 3), torch.zeros(2, 3))


def test_training_by_it_saves_sweeps(generator: torch.Generator) -> None:
    """A tiny GPT-2 that overfits its own sweeps needs fewer of them for the same prompts, and learns its answers."""
    from tests.chains.causal_models import VOCABULARY, gpt2

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0).float()
    prompts = torch.randint(VOCABULARY, (6, 4), generator=generator)
    before = jacobi_decode(model, prompts, 8, trace=True)
    assert before.states is not None
    chains = Trajectories(prompts, before.states, before.tokens).drawn(1200, generator)
    text = torch.cat((prompts, before.tokens), 1).repeat(200, 1)
    fit(model, (text, chains), Recipe(epochs=1, batch=8, lr=1e-2), generator=generator, objective=Consistency(given=4))
    after = jacobi_decode(model, prompts, 8)
    assert float((after.tokens == before.tokens).double().mean()) > 0.9
    assert int(after.sweeps.sum()) < 0.6 * int(before.sweeps.sum())
