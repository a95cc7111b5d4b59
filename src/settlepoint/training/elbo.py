"""Elbo: what a variational autoencoder is trained by."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from settlepoint.models.autoencoder import VAE


@dataclass(frozen=True, kw_only=True)
class Elbo:
    """||y - D(z)||^2 / 2 s^2 + beta KL(q(z | x) || N(0, 1)),  z ~ q(z | x),  mean over the rows

    The negative evidence lower bound, up to a constant, of pixels with a Gaussian error of deviation s (Kingma and
    Welling 2014; beta: Higgins et al. 2017). beta = 0: a plain autoencoder, z = m(x). noise: deviation of what is added
    to x before it is encoded; y is not touched, so that T learns to take it away (Vincent et al. 2008). generator
    draws, on the CPU. An objective of training.fit. Raises ValueError for targets outside [0, 1].
    """

    beta: float = 1.0
    deviation: float = 0.15
    noise: float = 0.0
    generator: torch.Generator = field(default_factory=torch.Generator)

    def __post_init__(self):
        if self.beta < 0 or self.noise < 0:
            raise ValueError(f"beta and noise must be at least 0, got {self.beta} and {self.noise}")
        if not self.deviation > 0:
            raise ValueError(f"deviation must be above 0, got {self.deviation}")

    def __call__(self, model: VAE, x: Tensor, y: Tensor) -> Tensor:
        if not bool(((y >= 0) & (y <= 1)).all()):
            raise ValueError(f"y must be pixels in [0, 1], got {float(y.min())} to {float(y.max())}")
        mean, log_variance = model.encode(x + self.noise * self._normal(x) if self.noise else x)
        z = mean + (0.5 * log_variance).exp() * self._normal(mean) if self.beta else mean
        error = (y - model.decode(z)).square().sum(1) / (2 * self.deviation**2)
        if not self.beta:
            return error.mean()
        apart = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return (error + self.beta * apart).mean()

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator).to(like.device)
