"""jacobi, jacobi-consistency and pixelcnn, small: what they count by hand, and a run of every kind of cell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from settlepoint.chains import Decoded, jacobi_decode
from settlepoint.experiments import REGISTRY, character_model, jacobi_consistency, pixelcnn
from settlepoint.experiments.character_model import (
    SMALL,
    CharacterScale,
    distinct,
    held_out_loss,
    network,
    ratio,
    texts,
    trained,
    wall_ms,
)
from settlepoint.experiments.experiment import Context
from settlepoint.experiments.jacobi import EXPERIMENT as JACOBI
from settlepoint.experiments.jacobi import evaluated
from settlepoint.experiments.jacobi_consistency import CONSISTENT, GUESSES, chosen, sweeps
from settlepoint.experiments.jacobi_consistency import EXPERIMENT as CONSISTENCY
from settlepoint.experiments.pixelcnn import EXPERIMENT as PIXELCNN

SCALE = CharacterScale(**SMALL)


@pytest.mark.parametrize("block", [None, 5])
def test_tokens_evaluated_alone(block: int | None) -> None:
    """Oracle: the count of the decoder itself, one prompt at a time."""
    model = network(SCALE, "test").double()
    prompts = torch.randint(97, (5, 6), generator=torch.Generator().manual_seed(0))
    batch = jacobi_decode(model, prompts, 12, block=block, do_sample=True, generator=torch.Generator().manual_seed(1))
    one = jacobi_decode(model, prompts, 12, block=block)
    alone = [jacobi_decode(model, row[None], 12, block=block).evaluations for row in prompts]
    assert evaluated(one, 6, block) == pytest.approx(sum(alone) / 5)
    assert evaluated(batch, 6, block) <= batch.evaluations / 5


def test_ratio_and_distinct_by_hand() -> None:
    model = network(SCALE, "test").double()
    found = jacobi_decode(model, torch.ones(2, 3, dtype=torch.int64), 6)
    weighed = replace(found, lengths=torch.tensor([6, 6]), sweeps=torch.tensor([1, 5]))
    assert ratio(weighed) == 2.0
    assert distinct(torch.tensor([[1, 1, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6]])) == pytest.approx((1 / 3 + 1) / 2)


def test_a_trained_model_is_a_copy_and_the_same_for_all_cells() -> None:
    context = Context(scale=SCALE)
    first, history = trained(context, 0)
    with torch.no_grad():
        for p in first.parameters():
            p.zero_()
    second, again = trained(context, 0)
    assert again is history
    assert held_out_loss(second, SCALE) < math.log(97)
    assert held_out_loss(network(SCALE, 0), SCALE) > held_out_loss(second, SCALE)


def test_the_trivial_loss_is_below_uniform() -> None:
    assert 2.5 < character_model.trivial_loss() < math.log(97)


def test_sweeps_to_train_on_end_in_greedy_tokens() -> None:
    scale = CONSISTENCY.scales["smoke"]
    model, _ = trained(Context(scale=scale), 0)
    found = sweeps(model, scale, torch.Generator().manual_seed(0))
    assert found.answers.shape == (scale.chains, scale.behind)
    assert torch.equal(jacobi_decode(model, found.prompts, scale.behind, block=1).tokens, found.answers)
    assert bool((found.states[0] == 96).all())


def test_every_cell_of_jacobi() -> None:
    scale = JACOBI.scales["smoke"]
    for cell in JACOBI.cells(scale):
        found = JACOBI.run(cell, 0, Context(scale=scale))
        assert all(math.isfinite(value) for value in found["metrics"].values())
        assert found["metrics"]["equal"] == 100.0
        assert found["curves"]["settled"]["y"][-1] == scale.tokens


def test_a_cell_of_jacobi_consistency() -> None:
    scale = CONSISTENCY.scales["smoke"]
    found = CONSISTENCY.run(CONSISTENT, 0, Context(scale=scale))["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["equal"] == 100.0
    before = CONSISTENCY.run("before", 0, Context(scale=scale))["metrics"]
    assert before["change"] == 0.0
    assert before["same"] == 100.0


def test_the_guess_is_chosen_on_training_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt that is decoded for the choice stands in the training text, and the fewest sweeps win."""
    scale = replace(CONSISTENCY.scales["smoke"], choosing=3)
    model, seen = network(scale, "test"), {}
    text = bytes(texts()[0].tolist())

    def decoded(model: object, prompts: torch.Tensor, n: int, *, guess: int | None) -> Decoded:
        assert all(bytes(row) in text for row in prompts.tolist())
        seen[guess] = jacobi_decode(model, prompts, n, guess=guess)  # type: ignore[arg-type]
        return seen[guess]

    monkeypatch.setattr(jacobi_consistency, "jacobi_decode", decoded)
    name = chosen(model, scale)
    assert {len(found.tokens) for found in seen.values()} == {3}
    assert ratio(seen[GUESSES[name]]) == max(ratio(found) for found in seen.values())


def test_a_cell_measures_its_one_guess_and_nothing_it_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of the table are decoded twice, greedily and sampled, and not once a guess."""
    scale, sizes = CONSISTENCY.scales["smoke"], []

    def decoded(model: object, prompts: torch.Tensor, n: int, **options: object) -> Decoded:
        sizes.append(len(prompts))
        return jacobi_decode(model, prompts, n, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(jacobi_consistency, "jacobi_decode", decoded)
    CONSISTENCY.run("before", 0, Context(scale=scale))
    assert sizes.count(scale.prompts) == 2
    assert sizes.count(scale.choosing) == len(GUESSES)


def test_wall_times_with_and_without_blocks_of_1() -> None:
    model, prompts = network(SCALE, "test"), torch.ones(2, 3, dtype=torch.int64)
    assert set(wall_ms(model, prompts, 4, block=None, guess=None)) == {"generate", "jacobi", "block of 1"}
    assert set(wall_ms(model, prompts, 4, block=None, guess=None, one=False)) == {"generate", "jacobi"}


def test_bits_by_hand() -> None:
    train = torch.tensor([[0, 16], [0, 3]]).repeat(1, 32)
    counts = {0: 3 / 19, 16: 2 / 19, 5: 1 / 19}  # one added to each of 17
    x = torch.tensor([[0, 5]]).repeat(1, 32)
    wanted = -(math.log2(counts[0]) + math.log2(counts[5])) / 2
    assert pixelcnn.histogram_bits(train, x) == pytest.approx(wanted, rel=1e-6)
    uniform = lambda y: torch.zeros(*y.shape, 17)  # noqa: E731
    assert pixelcnn.bits(uniform, x) == pytest.approx(math.log2(17), rel=1e-6)  # type: ignore[arg-type]
    assert pixelcnn.levels(torch.tensor([0.0, 1.0, 0.4375])).tolist() == [0, 16, 7]


@pytest.mark.parametrize("cell", ["one by one", "mean image", "random image", "untrained"])
def test_cells_of_pixelcnn(cell: str) -> None:
    scale = replace(PIXELCNN.scales["smoke"], images=2)
    found = PIXELCNN.run(cell, 0, Context(scale=scale))["metrics"]
    assert all(math.isfinite(value) for value in found.values())
    assert found["equal"] == 100.0
    assert found["sweeps"] <= 64


@pytest.mark.parametrize("name", ["jacobi", "jacobi-consistency", "pixelcnn"])
def test_they_are_known_to_the_program(name: str) -> None:
    assert REGISTRY.load(name).id == name
