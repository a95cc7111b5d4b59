"""jacobi_decode: equal to transformers' own generate and to a plain loop, in at most n sweeps; what it refuses."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chains.causal_models import VOCABULARY, gemma3, gpt2, llama, mistral, one_by_one
from torch import nn

from settlepoint import Status
from settlepoint.chains import jacobi_decode

MAKERS = [gpt2, llama, mistral, gemma3]
N = 24


@pytest.fixture(params=MAKERS, ids=[make.__name__ for make in MAKERS])
def model(request: pytest.FixtureRequest):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return request.param()


@pytest.fixture
def prompts(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(VOCABULARY, (100, 5), generator=generator)


@pytest.fixture(scope="module")
def small():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return gpt2()


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_a_hundred_prompts_decode_as_generate_does(model, prompts: torch.Tensor) -> None:
    """Oracles: transformers' generate, and a loop of argmax without a cache."""
    found = jacobi_decode(model, prompts, N)
    wanted = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=N)
    assert torch.equal(found.tokens, wanted[:, 5:])
    assert torch.equal(found.tokens, one_by_one(model, prompts, N))
    assert found.status.tolist() == [Status.CONVERGED] * 100
    assert int(found.sweeps.max()) == found.calls <= N
    assert len(found.tokens.unique(dim=0)) > 20  # the prompts matter


def test_one_prompt_after_the_other_gives_the_batch(model, prompts: torch.Tensor) -> None:
    """Rows do not talk: neither tokens nor sweeps of a row depend on the others, with blocks or without."""
    for block in (None, 5):
        batch = jacobi_decode(model, prompts[:6], 16, block=block)
        for k in range(6):
            alone = jacobi_decode(model, prompts[k : k + 1], 16, block=block)
            assert torch.equal(alone.tokens[0], batch.tokens[k])
            assert int(alone.sweeps) == int(batch.sweeps[k])


def test_rows_in_another_order(small, prompts: torch.Tensor, generator: torch.Generator) -> None:
    order = torch.randperm(100, generator=generator)
    found, moved = jacobi_decode(small, prompts, N), jacobi_decode(small, prompts[order], N)
    assert torch.equal(found.tokens[order], moved.tokens)
    assert torch.equal(found.sweeps[order], moved.sweeps)


def test_the_cache_changes_no_sweep_and_saves_evaluations(model, prompts: torch.Tensor) -> None:
    kept = jacobi_decode(model, prompts[:20], N, trace=True)
    anew = jacobi_decode(model, prompts[:20], N, trace=True, cached=False)
    assert torch.equal(kept.states, anew.states)
    assert torch.equal(kept.settled, anew.settled)
    assert kept.evaluations < anew.evaluations


def test_every_sweep_settles_one_more_and_is_right(model, prompts: torch.Tensor) -> None:
    found = jacobi_decode(model, prompts[:20], N, trace=True)
    steps = found.settled.diff(dim=0, prepend=torch.zeros(1, 20, dtype=torch.int64))
    working = torch.arange(found.calls)[:, None] < found.sweeps
    assert bool((steps[working] >= 1).all())
    for state, settled in zip(found.states[1:], found.settled, strict=True):
        right = torch.arange(N) < settled[:, None]
        assert torch.equal(state[right], found.tokens[right])


@settings(max_examples=25)
@given(block=st.integers(1, 30), n=st.integers(1, 20), seed=st.integers(0, 1000))
def test_any_block_and_any_guess_give_the_same_tokens(small, block: int, n: int, seed: int) -> None:
    draw = seeded(seed)
    prompt = torch.randint(VOCABULARY, (3, 4), generator=draw)
    guess = torch.randint(VOCABULARY, (3, n), generator=draw)
    found = jacobi_decode(small, prompt, n, block=block, guess=guess)
    assert torch.equal(found.tokens, one_by_one(small, prompt, n))
    assert int(found.sweeps.max()) <= n
    assert int(found.settled.diff(dim=0).max() if found.calls > 1 else 0) <= block


def test_the_right_guess_takes_one_sweep_and_a_block_of_one_takes_n(small, prompts: torch.Tensor) -> None:
    found = jacobi_decode(small, prompts, N)
    again = jacobi_decode(small, prompts, N, guess=found.tokens)
    assert again.sweeps.tolist() == [1] * 100
    assert again.evaluations == 100 * (5 + N - 1)
    one = jacobi_decode(small, prompts, N, block=1)
    assert one.sweeps.tolist() == [N] * 100
    assert one.evaluations == 100 * (5 + N - 1)  # what generate evaluates
    assert one.per_sweep.tolist() == [1.0] * 100


def test_a_model_that_counts_takes_all_sweeps() -> None:
    """No sweep can skip: token i + 1 is the successor of token i, and all guesses are wrong. The bound n is reached."""
    model = gpt2(n_layer=1, tie_word_embeddings=False, n_embd=VOCABULARY + 1, n_head=1)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.transformer.wte.weight.copy_(8 * torch.eye(VOCABULARY, VOCABULARY + 1))
        model.transformer.ln_f.weight.fill_(1.0)
        model.lm_head.weight.copy_(torch.eye(VOCABULARY, VOCABULARY + 1).roll(1, 0))
    found = jacobi_decode(model, torch.tensor([[2]]), 10, guess=0)
    assert found.tokens.tolist() == [list(range(3, 13))]
    assert found.sweeps.tolist() == [10]


@pytest.mark.parametrize("block", [None, 4])
@pytest.mark.parametrize("temperature", [0.7, 3.0])
def test_sampling_is_that_of_one_token_after_the_other(model, prompts, block: int | None, temperature: float) -> None:
    found = jacobi_decode(model, prompts, N, do_sample=True, temperature=temperature, generator=seeded(7), block=block)
    wanted = one_by_one(model, prompts, N, temperature=temperature, generator=seeded(7))
    assert torch.equal(found.tokens, wanted)
    assert int(found.sweeps.max()) <= N


def test_sampling_takes_torchs_generator_when_none_is_given(small, prompts: torch.Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = jacobi_decode(small, prompts, 6, do_sample=True)
        second = jacobi_decode(small, prompts, 6, do_sample=True)
        torch.manual_seed(1)
        again = jacobi_decode(small, prompts, 6, do_sample=True)
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, second.tokens)


def test_ties_go_to_the_first_maximum(prompts: torch.Tensor) -> None:
    model = gpt2(tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[[9, 4, 17], 0] = 1.0  # one feature alone, so that no sum rounds
        model.lm_head.weight[3, 0] = -1.0
    found = jacobi_decode(model, prompts, N)
    wanted = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=N)
    assert torch.equal(found.tokens, wanted[:, 5:])
    assert set(found.tokens.unique().tolist()) <= {3, 4}


def ending(tokens: torch.Tensor) -> int:
    """The token that appears in the most rows, not in all."""
    rows = [int((tokens == v).any(1).sum()) for v in range(VOCABULARY)]
    return max(range(VOCABULARY), key=lambda v: rows[v] if rows[v] < len(tokens) else -1)


def test_rows_stop_behind_their_end_token_as_generate_does(model, prompts: torch.Tensor) -> None:
    end = ending(one_by_one(model, prompts, N))
    model.config.eos_token_id = model.generation_config.eos_token_id = end
    model.config.pad_token_id = model.generation_config.pad_token_id = 0
    found = jacobi_decode(model, prompts, N, eos=True)
    wanted = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=N)[:, 5:]
    assert torch.equal(found.tokens[:, : wanted.shape[1]], wanted)
    assert bool((found.tokens[:, wanted.shape[1] :] == 0).all())
    assert 1 < len(found.lengths.unique())
    assert found.status.tolist() == [Status.CONVERGED] * 100
    for row, length in zip(found.tokens, found.lengths, strict=True):
        assert (row[:length] == end).sum() == (length < N or row[-1] == end)
    both = jacobi_decode(model, prompts, N, eos=(end, 1))
    assert bool((both.lengths <= found.lengths).all())
    assert jacobi_decode(model, prompts, N, eos=end).evaluations == found.evaluations
    assert found.evaluations < jacobi_decode(model, prompts, N).evaluations


def test_the_end_tokens_are_those_of_generate(model, prompts: torch.Tensor) -> None:
    """Chat models list several in generation_config, and one or none in config."""
    end = ending(one_by_one(model, prompts, N))
    model.config.get_text_config().eos_token_id = (end + 1) % VOCABULARY
    model.generation_config.eos_token_id = [end, 0]
    wanted = model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=N)[:, 5:]
    found = jacobi_decode(model, prompts, N, eos=True)
    assert torch.equal(found.tokens[:, : wanted.shape[1]], wanted)
    assert torch.equal(found.lengths, jacobi_decode(model, prompts, N, eos=(end, 0)).lengths)
    model.generation_config.eos_token_id = None
    alone = jacobi_decode(model, prompts, N, eos=True)
    assert torch.equal(alone.tokens, jacobi_decode(model, prompts, N, eos=(end + 1) % VOCABULARY).tokens)


def test_the_monitor_by_hand(small, prompts: torch.Tensor) -> None:
    """Oracle: two full evaluations of the states of the trace, and KL by its definition."""
    found = jacobi_decode(small, prompts[:6], N, monitor=True, trace=True)
    assert found.divergence.shape == (found.calls, 6)
    assert bool(found.divergence[0].isnan().all())
    with torch.no_grad():
        logits = [
            small(input_ids=torch.cat((prompts[:6], y[:, :-1]), 1)).logits[:, 4:].float() for y in found.states[:2]
        ]
    before, now = (z.log_softmax(-1) for z in logits)
    each = (now.exp() * (now - before)).sum(-1)
    for row in range(6):
        opened = each[row, int(found.settled[0, row]) :]
        assert float(found.divergence[1, row]) == pytest.approx(float(opened.mean()), rel=1e-4)
    measured = found.divergence[~found.divergence.isnan()]
    assert bool((measured >= -1e-6).all())
    assert jacobi_decode(small, prompts[:6], N).divergence is None


def test_a_monitored_window_measures_only_what_both_sweeps_saw(small, prompts: torch.Tensor) -> None:
    found = jacobi_decode(small, prompts[:6], N, block=1, monitor=True)
    assert bool(found.divergence.isnan().all())  # with a block of one no entry is open twice
    wide = jacobi_decode(small, prompts[:6], N, block=4, monitor=True, do_sample=True, generator=seeded(0))
    assert bool((~wide.divergence.isnan()).any())


def test_a_model_that_gives_nan_ends_at_once(prompts: torch.Tensor) -> None:
    model = gpt2()
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = math.nan
    found = jacobi_decode(model, prompts[:4], N)
    assert found.status.tolist() == [Status.NONFINITE] * 4
    assert found.lengths.tolist() == [0] * 4
    assert found.calls == 1


def test_integers_of_any_width_and_a_row_alone(small) -> None:
    wide = jacobi_decode(small, torch.tensor([[1, 2]]), 3)
    assert torch.equal(jacobi_decode(small, torch.tensor([[1, 2]], dtype=torch.int32), 3).tokens, wide.tokens)
    assert wide.tokens.dtype == torch.int64
    with pytest.raises(FrozenInstanceError):
        wide.calls = 3  # type: ignore[misc]


def test_the_last_position_of_the_model_is_used(small) -> None:
    found = jacobi_decode(small, torch.ones(1, 4, dtype=torch.int64), 61)
    assert found.tokens.shape == (1, 61)
    with pytest.raises(ValueError, match=r"prompt and n need 4 \+ 62 - 1 positions, the model has 64"):
        jacobi_decode(small, torch.ones(1, 4, dtype=torch.int64), 62)


PROMPT = torch.ones(2, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ([[1, 2]], TypeError, "prompt must be a tensor of token numbers, got list"),
        (torch.ones(2, 3), ValueError, r"prompt must hold whole numbers, got torch\.float32"),
        (torch.ones(2, 3, dtype=torch.bool), ValueError, r"prompt must hold whole numbers, got torch\.bool"),
        (torch.ones(2, 0, dtype=torch.int64), ValueError, r"prompt must be \(B, L\) with B, L >= 1, got \(2, 0\)"),
        (torch.ones(3, dtype=torch.int64), ValueError, r"prompt must be \(B, L\) with B, L >= 1, got \(3,\)"),
        (torch.tensor([[1, 23]]), ValueError, r"prompt must lie in \[0, 23\), the vocabulary, got 23"),
        (torch.tensor([[-1, 2]]), ValueError, r"prompt must lie in \[0, 23\), the vocabulary, got -1"),
    ],
)
def test_prompts_that_are_refused(small, prompt, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        jacobi_decode(small, prompt, 4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"block": 0}, "block must be a whole number of at least 1, got 0"),
        ({"block": 2.5}, r"block must be a whole number of at least 1, got 2\.5"),
        ({"block": True}, "block must be a whole number of at least 1, got True"),
        ({"do_sample": True, "temperature": 0.0}, "temperature must be finite and above 0, got 0.0"),
        ({"temperature": math.nan}, "temperature must be finite and above 0, got nan"),
        ({"guess": 23}, r"guess must lie in \[0, 23\), the vocabulary, got 23"),
        ({"guess": torch.ones(2, 3, dtype=torch.int64)}, r"guess must be a token or \(B, n\) = \(2, 4\), got \(2, 3\)"),
        ({"eos": True}, "eos=True needs an end token, and eos_token_id of GPT2LMHeadModel's generation_config and"),
        ({"eos": 23}, r"eos must lie in \[0, 23\), the vocabulary, got 23"),
        ({"eos": ()}, r"eos must lie in \[0, 23\), the vocabulary, got \(\)"),
    ],
)
def test_settings_that_are_refused(small, asked: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jacobi_decode(small, PROMPT, 4, **asked)


@pytest.mark.parametrize("eos", ["x", b"x", 2.0, None, [True], (1, 2.0)])
def test_end_tokens_that_are_none(small, eos) -> None:
    with pytest.raises(TypeError, match=f"eos must be True, False, a token or several.*got {re.escape(repr(eos))}"):
        jacobi_decode(small, PROMPT, 4, eos=eos)


@pytest.mark.parametrize("guess", [True, 1.0, "x", [1, 2]])
def test_guesses_that_are_none(small, guess) -> None:
    with pytest.raises(TypeError, match=f"guess must be a token or a tensor of tokens, got {re.escape(repr(guess))}"):
        jacobi_decode(small, PROMPT, 4, guess=guess)


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_lengths_that_are_refused(small, n) -> None:
    with pytest.raises(ValueError, match=f"n must be a whole number of at least 1, got {n}"):
        jacobi_decode(small, PROMPT, n)


def test_an_end_token_outside_the_vocabulary(small) -> None:
    """GPT-2's default end token is 50256, whatever the vocabulary."""
    model = gpt2()
    model.config.eos_token_id = 50256
    with pytest.raises(ValueError, match=r"the model's end token must lie in \[0, 23\), the vocabulary, got 50256"):
        jacobi_decode(model, PROMPT, 4, eos=True)


def test_models_that_are_refused(small) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    with pytest.raises(
        TypeError, match="model must be a causal model of transformers such as GPT2LMHeadModel, got Lin"
    ):
        jacobi_decode(nn.Linear(2, 2), PROMPT, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="such as GPT2LMHeadModel, got GPT2Model"):
        jacobi_decode(small.transformer, PROMPT, 4)
    config = T5Config(vocab_size=23, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(TypeError, match="model must be causal, without an encoder, got T5ForConditionalGeneration"):
        jacobi_decode(T5ForConditionalGeneration(config), PROMPT, 4)


def test_dropout_is_refused() -> None:
    model = gpt2()
    model.train()
    with pytest.raises(ValueError, match=r"model must be in evaluation mode.*call model.eval\(\); got training mode"):
        jacobi_decode(model, PROMPT, 4)
    model.eval()
    model.transformer.drop.train()
    with pytest.raises(ValueError, match="model must be in evaluation mode"):
        jacobi_decode(model, PROMPT, 4)


def test_a_model_without_a_cache_of_keys_and_values(prompts: torch.Tensor) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=8, state_size=4, num_hidden_layers=1)
    model = MambaForCausalLM(config).double().eval()
    with pytest.raises(
        ValueError, match="MambaForCausalLM has no cache of keys and values to cut back; pass cached=False"
    ):
        jacobi_decode(model, PROMPT, 4)
    found = jacobi_decode(model, prompts[:5], 8, cached=False)
    assert torch.equal(found.tokens, one_by_one(model, prompts[:5], 8))
