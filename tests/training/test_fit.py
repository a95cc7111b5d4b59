"""The fit loop: it learns, it is repeatable, and what stands around it holds; checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from settlepoint.layers import linear
from settlepoint.training import Hooks, Recipe, accuracy, fit, load, majority, save
from settlepoint.training.fit import _schedule


def samples(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Two clouds that a line separates."""
    y = torch.arange(60) % 2
    return torch.randn(60, 2, generator=generator) + 6 * y[:, None], y


def fitted(recipe: Recipe, seed: int = 0, hooks: Hooks | None = None) -> tuple[nn.Module, list[float]]:
    gen = torch.Generator().manual_seed(seed)
    x, y = samples(gen)
    model = linear(2, 2, generator=gen)
    return model, fit(model, (x, y), recipe, generator=gen, hooks=hooks).loss


def test_it_learns_and_leaves_the_model_in_evaluation() -> None:
    model, loss = fitted(Recipe(epochs=20, batch=16, lr=0.1))
    x, y = samples(torch.Generator().manual_seed(0))
    assert loss[-1] < 0.2 * loss[0]
    assert accuracy(model(x), y) == 100.0
    assert not model.training


def test_the_same_generator_gives_the_same_weights() -> None:
    recipe = Recipe(epochs=2, batch=16, schedule="constant")
    (a, first), (b, second) = fitted(recipe), fitted(recipe)
    assert first == second
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def rates(recipe: Recipe) -> list[float]:
    """The learning rate of every step."""
    optimizer = torch.optim.SGD(linear(2, 2).parameters(), recipe.lr)
    schedule, found = _schedule(optimizer, recipe, steps=recipe.epochs), []
    for _ in range(recipe.epochs):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_and_falls_along_a_cosine() -> None:
    found = rates(Recipe(epochs=12, lr=2.0, warmup=4))
    assert found[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert found[8] == pytest.approx(1.0)
    assert found[4:] == sorted(found[4:], reverse=True)
    assert rates(Recipe(epochs=6, lr=2.0, warmup=2, schedule="constant")) == pytest.approx([1.0, 2, 2, 2, 2, 2])
    plain = rates(Recipe(epochs=8, lr=2.0))
    assert plain == pytest.approx([1 + math.cos(math.pi * k / 8) for k in range(8)])


def test_hooks_see_every_step_and_epoch() -> None:
    steps: list[int] = []
    epochs: list[tuple[int, float]] = []
    hooks = Hooks(after_step=lambda: steps.append(1), after_epoch=lambda e, loss: epochs.append((e, loss)))
    _, loss = fitted(Recipe(epochs=3, batch=16), hooks=hooks)
    assert len(steps) == 3 * 4
    assert epochs == list(enumerate(loss))


def test_clip_bounds_the_first_step() -> None:
    """Adam forgets the length of a constant gradient, so that the gradient itself is looked at."""
    seen: list[float] = []
    gen = torch.Generator().manual_seed(0)
    x, y = samples(gen)
    model = linear(2, 2, generator=gen)

    def look() -> None:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        seen.append(float(torch.cat([g.flatten() for g in grads]).norm()))

    fit(model, (x, y), Recipe(epochs=1, clip=1e-3), generator=gen, hooks=Hooks(after_step=look))
    assert max(seen) <= 1e-3 * (1 + 1e-5)


@pytest.mark.parametrize(
    ("field", "message"),
    [({"epochs": 0}, "epochs.*got 0"), ({"epochs": 1, "batch": 0}, "batch.*got 0"),
     ({"epochs": 1, "warmup": -1}, "warmup must be at least 0, got -1"),
     ({"epochs": 1, "schedule": "step"}, "schedule.*got 'step'")],
)  # fmt: skip
def test_wrong_recipes_are_refused(field: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**field)


def test_unequal_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="got 3 and 2"):
        fit(linear(1, 2), (torch.ones(3, 1), torch.zeros(2).long()), Recipe(epochs=1))


@pytest.mark.parametrize("name", ["inputs", "targets"])
def test_samples_that_are_not_finite_are_refused(name: str) -> None:
    given = {"inputs": torch.ones(3, 1), "targets": torch.ones(3, 1)} | {name: torch.full((3, 1), math.nan)}
    with pytest.raises(ValueError, match=f"samples must be finite, got NaN or Inf in the {name}"):
        fit(linear(1, 1), (given["inputs"], given["targets"]), Recipe(epochs=1), loss=nn.functional.mse_loss)


def test_a_loss_that_is_not_finite_ends_the_fit_before_it_spoils_the_weights() -> None:
    model = linear(1, 1)
    x = torch.full((4, 1), 1e30)
    with pytest.raises(FloatingPointError, match="loss must stay finite, got inf in epoch 0; lower lr or clip"):
        fit(model, (x, x), Recipe(epochs=1), loss=nn.functional.mse_loss)
    assert not model.training
    assert all(bool(p.isfinite().all()) for p in model.parameters())


class Root(nn.Module):
    """A finite value whose gradient is not: the root of 0."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor, t: torch.Tensor | None = None) -> torch.Tensor:
        return x + (self.w * 0).abs().sqrt().sum()


def test_a_gradient_that_is_not_finite_does_too() -> None:
    model, x = Root(), torch.ones(4, 1)
    with pytest.raises(FloatingPointError, match="gradient must stay finite, got nan in epoch 0; lower lr or clip"):
        fit(model, (x, x), Recipe(epochs=1), loss=nn.functional.mse_loss)
    assert model.w.tolist() == [1.0, 1.0]


def test_the_majority_is_that_of_the_training_set() -> None:
    assert majority(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0, 1])) == 25.0


def test_a_checkpoint_returns_bit_for_bit(tmp_path: Path) -> None:
    model, other = linear(3, 2), linear(3, 2)
    save(model, tmp_path / "m.safetensors", {"epoch": "7"})
    assert load(other, tmp_path / "m.safetensors") == {"epoch": "7"}
    assert torch.equal(model.weight, other.weight)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"m.safetensors does not fit this model(?s:.*)bias"):
        load(linear(3, 2), tmp_path / "m.safetensors")
