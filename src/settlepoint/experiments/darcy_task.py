"""The task of fno-deq-darcy: fields with and without noise, its measure of error, and predictors that learn little."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from settlepoint.data import Darcy, Fields, darcy
from settlepoint.runs import generator_from

RIDGES = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Task:
    """Fields with one channel, x and y (N, 1, n, n); y in units of `size`, the standard deviation of the training y."""

    train: Fields
    val: Fields
    test: Fields
    fine: Fields


def task(folder: Path | None, *, train: int, val: int, noise: float, seed: int, device: str = "cpu") -> Task:
    """The first `train` of the 1,000 samples in an order fixed for all seeds, the last `val` of it, and both test sets.

    x is -1 or 1, whose standard deviation is 1, plus noise * N(0, 1), drawn once for each sample and point.
    """
    data = loaded(folder)
    if train < 1 or val < 1 or train + val > len(data.train):
        raise ValueError(
            f"train and val must be at least 1 and together at most {len(data.train)}, got {train} and {val}"
        )
    order = torch.randperm(len(data.train), generator=generator_from("fno-deq-darcy", "split"))
    parts = (data.train[order[:train]], data.train[order[len(order) - val :]], data.test, data.fine)
    draw, size = generator_from("fno-deq-darcy", "noise", seed), parts[0].y.std()
    return Task(*(_seen(part, noise, draw, size, device) for part in parts))


@cache
def loaded(folder: Path | None) -> Darcy:
    """The verified files, read once."""
    return darcy(folder)


def _seen(part: Fields, noise: float, draw: torch.Generator, size: Tensor, device: str) -> Fields:
    x = 2 * part.x.float() - 1
    x = x + noise * torch.randn(x.shape, generator=draw)
    return Fields(x[:, None].to(device), (part.y / size)[:, None].to(device))


def relative(found: Tensor, y: Tensor) -> Tensor:
    """The mean over samples of ||found - y|| / ||y||, in the 2-norm of the grid.

    >>> relative(torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]]))
    tensor(0.8000)
    """
    norm = lambda z: torch.linalg.vector_norm(z.flatten(1), dim=1)  # noqa: E731
    return (norm(found - y) / norm(y)).mean()


def refined(y: Tensor) -> Tensor:  # (N, 1, n, n) -> (N, 1, 2n, 2n)
    """y between its points, linearly; 0 on the edge behind the last ones.

    >>> refined(torch.tensor([[[[0.0, 0.0], [0.0, 4.0]]]]))[0, 0, 2]
    tensor([0., 2., 4., 2.])
    """
    n = y.shape[-1]
    whole = torch.nn.functional.pad(y, (0, 1, 0, 1))
    return torch.nn.functional.interpolate(whole, (2 * n + 1, 2 * n + 1), mode="bilinear", align_corners=True)[
        ..., : 2 * n, : 2 * n
    ]


def mean_errors(data: Task) -> dict[str, float]:
    """Errors in per cent, on both grids, of the mean of the training solutions."""
    return _errors(data, lambda x: data.train.y.mean(0, keepdim=True).expand(len(x), -1, -1, -1))


def ridge_errors(data: Task) -> dict[str, float]:
    """Errors in per cent of the linear map from x to y on 16 x 16 points, its ridge chosen on validation.

    On the finer grid: of every other point, and linear in between.
    """
    maps = [_ridge(data.train, ridge) for ridge in RIDGES]
    best = min(maps, key=lambda weight: float(relative(_applied(weight, data.val.x), data.val.y)))
    return _errors(data, lambda x: _applied(best, x))


def _errors(data: Task, predict) -> dict[str, float]:
    coarse, fine = predict(data.test.x), refined(predict(data.fine.x[..., ::2, ::2]))
    found = {"val": relative(predict(data.val.x), data.val.y), "16": relative(coarse, data.test.y)}
    return {name: 100.0 * float(error) for name, error in {**found, "32": relative(fine, data.fine.y)}.items()}


def _ridge(train: Fields, ridge: float) -> Tensor:
    """W of y = W (x, 1), argmin ||y - W (x, 1)||^2 + ridge ||W||^2."""
    x, y = _with_one(train.x), train.y.flatten(1).double()
    return torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device), x.T @ y)


def _applied(weight: Tensor, x: Tensor) -> Tensor:
    return (_with_one(x) @ weight).reshape(x.shape).to(x.dtype)


def _with_one(x: Tensor) -> Tensor:
    return torch.nn.functional.pad(x.flatten(1).double(), (0, 1), value=1.0)
