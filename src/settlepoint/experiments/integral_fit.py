"""Adam on batches of functions, and their relative errors."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from settlepoint import Tolerance
from settlepoint.experiments import darcy_task

TRAINED = Tolerance(0.0, 1e-6, max_steps=50, growth=1e6)
"""When a solve inside of training ends."""


def fit(
    loss: Callable[[Tensor], Tensor],
    model: nn.Module,
    count: int,
    *,
    steps: int,
    batch: int,
    lr: float,
    draw: torch.Generator,
) -> float:
    """Steps of Adam on the loss of batches out of count rows, from lr down to 0 along a cosine; CPU seconds."""
    began = time.process_time()
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for _ in range(steps):
        rows = torch.randperm(count, generator=draw)[:batch]
        optimiser.zero_grad()
        loss(rows).backward()
        optimiser.step()
        schedule.step()
    return time.process_time() - began


def relative(found: Tensor, y: Tensor) -> float:
    """Mean over functions of 100 ||found - y|| / ||y||, over times and components."""
    return 100 * float(darcy_task.relative(found, y))
