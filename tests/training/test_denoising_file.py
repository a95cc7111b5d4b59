"""The files of Denoising: what is refused, by name and before anything changes, and what tells runs apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.training.small_denoising import RECIPE, Small, fitting, other, state
from torch import Tensor, nn

from settlepoint.training.checkpoint import read, save, write
from settlepoint.training.denoising import Denoising, noise_error
from settlepoint.training.denoising_file import fingerprint, identity


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
    with pytest.raises(
        ValueError, match="must be a checkpoint of Denoising in the format 'settlepoint denoising 2', got None"
    ):
        fitting().resume(path)
    path.write_bytes(b"\x80\x04 a pickle, or anything")
    with pytest.raises(ValueError, match="is not a whole file of safetensors"):
        fitting().resume(path)
    with pytest.raises(FileNotFoundError):
        fitting().resume(tmp_path / "absent.safetensors")


def saved(path: Path) -> Path:
    fit = fitting()
    fit.advance(2)
    fit.save(path / "fit.safetensors")
    return path / "fit.safetensors"


def refused(path: Path, words: str, fit: Denoising) -> None:
    """The file is refused, and the fit is bit for bit as it was."""
    fit.advance(1)
    before = [v.clone() for v in state(fit)]
    with pytest.raises(ValueError, match=words):
        fit.resume(path)
    assert all(torch.equal(a, b) for a, b in zip(before, state(fit), strict=True))


CHANGES = {
    "a weight gone": ({"model.net.3.bias": None}, r"does not fit this model: model\.net\.3\.bias is missing"),
    "average": ({"average.net.3.bias": torch.zeros(9)}, r"average\.net\.3\.bias: \(9,\) float32 there"),
    "moment": (
        {"optimizer.net.0.weight.exp_avg": torch.zeros(2, 2)},
        r"exp_avg: \(2, 2\) float32 there, \(6, 5\) float",
    ),
    "double": ({"model.calls": torch.zeros((), dtype=torch.float64)}, r"calls: \(\) float64 there, \(\) float32 here"),
    "half a moment": ({"optimizer.net.0.weight.exp_avg": None}, r"optimizer\.net\.0\.weight\.exp_avg is missing"),
    "extra": ({"model.more": torch.zeros(1)}, r"model\.more is not known here"),
    "generator": ({"generator": None}, "generator is missing"),
    "chance": ({"generator": torch.zeros(5056, dtype=torch.uint8)}, "holds no state of a generator"),
    "losses": ({"losses": torch.zeros(2, 1)}, r"losses: \(2, 1\) float32 there, \(steps,\) float64 here"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_refused_file_leaves_the_fit_as_it_was(tmp_path: Path, case: str) -> None:
    path, (changes, words) = saved(tmp_path), CHANGES[case]
    tensors, note = read(path)
    changed = {name: value for name, value in (tensors | changes).items() if value is not None}
    write(changed, path, note)
    refused(path, words, fitting(seed=3))


def test_a_file_of_a_wider_model_leaves_the_fit_as_it_was(tmp_path: Path) -> None:
    refused(
        saved(tmp_path), r"does not fit this model: model\.net\.0\.weight: \(6, 5\) float32 there", fitting(width=7)
    )


@dataclass(frozen=True)
class Weighted:
    weight: float

    def __call__(self, model: nn.Module, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.weight * noise_error(model, x, t, noise)


def test_other_images_schedules_and_objectives_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    refused(path, r"another run: images: '\(20, 1, 2, 2\) float32 \w+' there", other(torch.zeros(20, 1, 2, 2)))
    refused(path, r"another run: alphas_cumprod: '\(3,\) ", other(abar=torch.tensor([0.9, 0.4, 0.1])))
    refused(path, "objective: '<function noise_error>' there, 'Weighted", other(objective=Weighted(1.0)))
    part = partial(noise_error)
    refused(path, r"here$", other(objective=part))
    fit = other(objective=Weighted(1.0))
    fit.save(path)
    other(objective=Weighted(1.0)).resume(path)
    refused(
        path,
        r"objective: 'Weighted\(weight=1\.0\)' there, 'Weighted\(weight=2\.0\)' here",
        other(objective=Weighted(2.0)),
    )


def test_an_objective_is_known_again_wherever_it_lies_in_memory() -> None:
    def made() -> Callable[..., Tensor]:
        def loss(model: nn.Module, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            return noise_error(model, x, t, noise)

        return loss

    first, second = made(), made()
    assert identity(first) == identity(second) != identity(noise_error)
    assert identity(partial(first, t=1)) == identity(partial(second, t=1)) != identity(partial(first, t=2))
    assert "0x" not in identity(first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_fingerprint_tells_one_bit(dtype: torch.dtype) -> None:
    x = torch.linspace(0, 1, 12).to(dtype).view(3, 4)
    y = x.clone()
    y[2, 3] = -0.5
    assert fingerprint(x) == fingerprint(x.clone()) == fingerprint(x.T.contiguous().T)
    assert len({fingerprint(z) for z in (x, y, x.view(4, 3), x.T)}) == 4


def test_tensors_and_their_note_come_back(tmp_path: Path) -> None:
    write({"a": torch.arange(3), "b": torch.ones(2, 3).T}, tmp_path / "x.safetensors", {"who": "me"})
    tensors, note = read(tmp_path / "x.safetensors")
    assert note == {"who": "me"}
    assert tensors["a"].tolist() == [0, 1, 2]
    assert tensors["b"].shape == (3, 2)
