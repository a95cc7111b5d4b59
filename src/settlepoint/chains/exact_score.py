"""The denoiser that needs no training: the exact score of the kernel density of given images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Prediction:
    """What a denoiser returns, as diffusers' models do: sample (M, C, H, W), the predicted noise."""

    sample: Tensor


class ExactScore(nn.Module):
    """epsilon(x, t) = -sqrt(1 - a) grad log p_t(x), a = alphas_cumprod[t], for the density of N images

        p_t(x) = mean_i N(x; sqrt(a) images_i, v I),  v = 1 - a + a bandwidth^2
        epsilon(x, t) = sqrt(1 - a) (x - sqrt(a) sum_i w_i images_i) / v,  w = softmax_i(-|x - sqrt(a) images_i|^2 / 2v)

    That is the minimiser of the noise-prediction loss over all functions (Vincent 2011), so samples differ from the
    images only by what the sampler does; with bandwidth 0 an exact sampler returns the images themselves.

    images: (N, C, H, W). alphas_cumprod: (T,), in (0, 1). bandwidth: standard deviation of the kernel, >= 0. Follow
    the module's dtype with `.to`: below v = 1e-3 float32 rounds the weights of near images by some percent, float64
    does not. Memory of a call: M * N weights. Raises ValueError for shapes, ranges or NaN that do not fit.
    """

    images: Tensor
    alphas_cumprod: Tensor

    def __init__(self, images: Tensor, alphas_cumprod: Tensor, bandwidth: float = 0.0):
        super().__init__()
        if images.ndim != 4 or not len(images):
            raise ValueError(f"images must be (N, C, H, W) with N >= 1, got {tuple(images.shape)}")
        if not bool(torch.isfinite(images).all()):
            raise ValueError("images must be finite, got NaN or Inf")
        inside = alphas_cumprod.ndim == 1 and bool(((alphas_cumprod > 0) & (alphas_cumprod < 1)).all())
        if not inside or not len(alphas_cumprod):
            raise ValueError(f"alphas_cumprod must be a vector in (0, 1), got {alphas_cumprod}")
        if not 0 <= bandwidth < math.inf:
            raise ValueError(f"bandwidth must be a finite number >= 0, got {bandwidth}")
        self.bandwidth = float(bandwidth)
        self.register_buffer("images", images.detach().clone())
        self.register_buffer("alphas_cumprod", alphas_cumprod.detach().to(images).clone())

    def extra_repr(self) -> str:
        return f"images={tuple(self.images.shape)}, T={len(self.alphas_cumprod)}, bandwidth={self.bandwidth}"

    def denoised(self, x: Tensor, t: Tensor) -> Tensor:  # (M, C, H, W), (M,) -> (M, C, H, W)
        """E[x_0 | x_t = x], the clean image that the exact denoiser expects."""
        a = self._signal(x, t)
        k = self.bandwidth**2
        v = 1 - a + a * k
        return ((1 - a) * self._mean(x, a, v) + a.sqrt() * k * x) / v

    def epsilon(self, x: Tensor, t: Tensor) -> Tensor:  # (M, C, H, W), (M,) -> (M, C, H, W)
        """The expected noise in x at the integer training timesteps t."""
        a = self._signal(x, t)
        v = 1 - a + a * self.bandwidth**2
        return (1 - a).sqrt() * (x - a.sqrt() * self._mean(x, a, v)) / v

    def forward(self, sample: Tensor, timestep: Tensor | int, return_dict: bool = True) -> Prediction | tuple[Tensor]:
        """`epsilon` with the call of diffusers' models: timestep is a number for all samples or one for each."""
        t = torch.as_tensor(timestep, device=sample.device).expand(len(sample))
        predicted = self.epsilon(sample, t)
        return Prediction(predicted) if return_dict else (predicted,)

    def _signal(self, x: Tensor, t: Tensor) -> Tensor:
        if x.shape[1:] != self.images.shape[1:] or t.shape != x.shape[:1]:
            shape = tuple(self.images.shape[1:])
            raise ValueError(f"x must be (M, {shape}) and t (M,), got {tuple(x.shape)} and {tuple(t.shape)}")
        if t.is_floating_point():
            raise ValueError(f"t must hold integer timesteps, got {t.dtype}")
        if len(t) and not 0 <= int(t.min()) <= int(t.max()) < len(self.alphas_cumprod):
            raise ValueError(f"t must lie in [0, {len(self.alphas_cumprod)}), got {int(t.min())} to {int(t.max())}")
        return self.alphas_cumprod[t].reshape(-1, 1, 1, 1)

    def _mean(self, x: Tensor, a: Tensor, v: Tensor) -> Tensor:
        """sum_i w_i images_i; |x|^2 is the same for all i and left out."""
        points, a, v = self.images.flatten(1), a.flatten(1), v.flatten(1)
        logits = (a.sqrt() * (x.flatten(1) @ points.T) - a * points.square().sum(1) / 2) / v
        return (torch.softmax(logits, 1) @ points).reshape(x.shape)
