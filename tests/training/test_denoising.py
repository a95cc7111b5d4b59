"""Denoising: resumed equals uninterrupted bit for bit, rates and averages by hand or by diffusers, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from settlepoint.training.checkpoint import read, save, write
from settlepoint.training.denoising import Denoising, DenoisingRecipe, smoothed

RECIPE = DenoisingRecipe(steps=12, batch=8, lr=1e-2, warm_up=3, decay=0.9)
ABAR = torch.tensor([0.9, 0.5, 0.1])


class Small(nn.Module):
    """A perceptron of the image and the time, with a buffer."""

    def __init__(self, width: int = 6, dropout: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 4))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.net(torch.cat((x.flatten(1), t[:, None].to(x)), 1)).view_as(x)


def fitting(recipe: DenoisingRecipe = RECIPE, *, seed: int = 0, width: int = 6, name: str = "") -> Denoising:
    torch.manual_seed(seed)
    images = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(seed)
    return Denoising(Small(width), images, ABAR, recipe, generator=draw, name=name)


def state(fit: Denoising) -> list[Tensor]:
    return [*fit.model.state_dict().values(), *fit.average.state_dict().values()]


@pytest.mark.parametrize("stops", [(5,), (1, 2, 8)])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = fitting()
    whole.advance()
    part = fitting()
    for stop in stops:
        part.advance(stop - part.step)
        part.save(tmp_path / "fit.safetensors")
        part = fitting(seed=7)  # other weights, another generator: all must come from the file
        part.resume(tmp_path / "fit.safetensors")
        assert part.step == stop
    part.advance()
    assert part.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(state(part), state(whole), strict=True))
    assert torch.equal(part.generator.get_state(), whole.generator.get_state())
    assert [p.name for p in tmp_path.iterdir()] == ["fit.safetensors"]


def test_a_unet_resumes_bit_for_bit_too(tmp_path: Path) -> None:
    from settlepoint.chains import linear_schedule, unet

    def make(seed: int) -> Denoising:
        torch.manual_seed(seed)
        net = unet(8, 1, (8, 16), layers=1, down=(2,), up=(1,))
        images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        recipe = DenoisingRecipe(steps=4, batch=4, lr=1e-3, warm_up=1)
        levels = linear_schedule(10).alphas_cumprod
        return Denoising(net, images, levels, recipe, generator=torch.Generator().manual_seed(seed))

    whole, part, other = make(0), make(0), make(1)
    whole.advance()
    part.advance(2)
    part.save(tmp_path / "unet.safetensors")
    other.resume(tmp_path / "unet.safetensors")
    other.advance()
    assert other.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(state(other), state(whole), strict=True))


def test_the_rate_is_that_of_diffusers() -> None:
    from diffusers.optimization import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], RECIPE.lr)
    theirs = get_cosine_schedule_with_warmup(optimizer, RECIPE.warm_up, RECIPE.steps)
    for step in range(RECIPE.steps):
        assert RECIPE.rate(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_the_average_follows_by_hand() -> None:
    fit = fitting()
    wanted = [p.detach().clone() for p in fit.model.parameters()]
    for step in range(1, 4):
        fit.advance(1)
        kept = min(0.9, (1 + step) / (10 + step))
        wanted = [kept * a + (1 - kept) * p.detach() for a, p in zip(wanted, fit.model.parameters(), strict=True)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(wanted, fit.average.parameters(), strict=True))
    assert fit.average.calls == fit.model.calls


def test_a_fit_learns_the_noise_of_one_image() -> None:
    """All images equal c: the noise is (x_t - sqrt(abar) c) / sqrt(1 - abar), a linear map of x_t for one t."""

    class Linear(nn.Linear):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x)

    recipe = DenoisingRecipe(steps=600, batch=64, lr=5e-2, warm_up=10)
    fit = Denoising(Linear(2, 2), torch.full((4, 2), 0.5), torch.tensor([0.6]), recipe, generator=torch.Generator())
    fit.advance()
    assert torch.allclose(fit.model.weight, torch.eye(2) / 0.4**0.5, atol=1e-2)
    assert torch.allclose(fit.model.bias, torch.full((2,), -(0.6**0.5) * 0.5 / 0.4**0.5), atol=1e-2)


def test_progress_and_more_steps_than_are_left() -> None:
    seen = []
    fit = fitting()
    fit.advance(5, lambda step, loss: seen.append(step))
    fit.advance(100, lambda step, loss: seen.append(step))
    assert seen == list(range(1, 13))
    assert not fit.model.training


def test_another_objective() -> None:
    seen = []

    def zero(model: nn.Module, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        seen.append((x.shape, t.max().item() < 3, noise.shape))
        return model(x, t).square().mean()

    fit = Denoising(Small(), torch.zeros(9, 1, 2, 2), ABAR, RECIPE, objective=zero)
    fit.advance(1)
    assert seen == [(torch.Size([8, 1, 2, 2]), True, torch.Size([8, 1, 2, 2]))]


def test_files_of_another_run_or_model_or_kind(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    first = fitting(name="fixed")
    first.advance(2)
    first.save(path)
    with pytest.raises(ValueError, match="belongs to another run: name: 'fixed' there, 'rescaled' here"):
        fitting(name="rescaled").resume(path)
    with pytest.raises(ValueError, match=r"another run: lr: 0\.01 there, 0\.5 here"):
        fitting(replace(RECIPE, lr=0.5), name="fixed").resume(path)
    with pytest.raises(ValueError, match="does not fit this model"):
        fitting(name="fixed", width=7).resume(path)
    save(Small(), path)
    with pytest.raises(ValueError, match="must be a checkpoint of Denoising, got the format None"):
        fitting().resume(path)
    path.write_bytes(b"\x80\x04 a pickle, or anything")
    with pytest.raises(ValueError, match="is not a whole file of safetensors"):
        fitting().resume(path)
    with pytest.raises(FileNotFoundError):
        fitting().resume(tmp_path / "absent.safetensors")


def test_tensors_and_their_note_come_back(tmp_path: Path) -> None:
    write({"a": torch.arange(3), "b": torch.ones(2, 3).T}, tmp_path / "x.safetensors", {"who": "me"})
    tensors, note = read(tmp_path / "x.safetensors")
    assert note == {"who": "me"}
    assert tensors["a"].tolist() == [0, 1, 2]
    assert tensors["b"].shape == (3, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"warm_up": 12}, r"warm_up must lie in \[0, steps = 12\), got 12"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_recipes(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(RECIPE, **change)


def test_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="model must be without dropout"):
        Denoising(Small(dropout=0.1), torch.zeros(4, 1, 2, 2), ABAR, RECIPE)


def test_smoothing_by_hand() -> None:
    assert smoothed([]) == []
    assert smoothed([2.0, 1.0, 1.0], 0.5) == [2.0, 1.5, 1.25]
