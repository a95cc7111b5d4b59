"""The step of a diffusion as features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """W_2 silu(W_1 [cos(w_i s), sin(w_i s)]),  s = 1000 t / T,  w_i = 10000^(-i / half)     (Vaswani et al. 2017)

    t: (B,), from 0 to steps - 1; result (B, width). steps: T. Raises ValueError for an odd width.
    """

    def __init__(self, width: int, steps: int):
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width must be even, got {width}")
        if steps < 2:
            raise ValueError(f"steps must be at least 2, got {steps}")
        self.steps = steps
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * torch.arange(width // 2) / (width // 2)))
        self.net = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    frequencies: Tensor

    def forward(self, t: Tensor) -> Tensor:
        phase = 1000 / self.steps * t.to(self.frequencies)[:, None] * self.frequencies
        return self.net(torch.cat((phase.cos(), phase.sin()), 1))
