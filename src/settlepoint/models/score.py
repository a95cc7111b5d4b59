"""Scores grad log p_sigma of images under Gaussian noise: a network, and two that are known in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KernelScore(nn.Module):
    """s(x, sigma) = (sum_i w_i x_i - x) / sigma^2,  w = softmax(-||x - x_i||^2 / 2 sigma^2)

    The exact score of the images themselves under noise: of the kernel density, the mean of N(x_i, sigma^2) over all
    images. x + sigma^2 s(x, sigma) is the step of mean shift (Fukunaga and Hostetler 1975), whose fixed points are the
    modes of that density and its other stationary points; it samples nothing but the images it was given.

    images: (N, D). x: (B, D); sigma: 0-d or (B,). Rows of x do not mix. A call takes B N D multiplications.
    """

    images: Tensor

    def __init__(self, images: Tensor):
        super().__init__()
        self.register_buffer("images", checked(images))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = column(sigma, x)
        apart = x @ self.images.T - 0.5 * self.images.square().sum(1)  # -||x - x_i||^2 / 2, up to what all i share
        return ((apart / sigma**2).softmax(1) @ self.images - x) / sigma**2


class GaussianScore(nn.Module):
    """s(x, sigma) = -(C + sigma^2)^{-1} (x - m) with m, C of the images: the least that a network must beat.

    x + sigma^2 s contracts to m, its only fixed point, by the largest eigenvalue of C (C + sigma^2)^{-1}.
    """

    mean: Tensor
    values: Tensor
    axes: Tensor

    def __init__(self, images: Tensor):
        super().__init__()
        values, axes = torch.linalg.eigh(checked(images).T.cov())
        for name, value in (("mean", images.mean(0)), ("values", values.clamp(min=0)), ("axes", axes)):
            self.register_buffer(name, value)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        along = (x - self.mean) @ self.axes
        return -(along / (self.values + column(sigma, x) ** 2)) @ self.axes.T


class ScoreNet(nn.Module):
    """s(x, sigma) = (D(x, sigma) - x) / sigma^2,  D = m + (c^2 e + sigma c sqrt(v) F(e / sqrt(v), log sigma)) / v

    e = x - m, v = sigma^2 + c^2, m and c: mean and deviation of the images, F a perceptron with two hidden layers. What
    F is asked for has unit size at every level (Karras et al. 2022); F = 0 is the score of N(m, c^2).

    images: (N, D), of which only m and c are kept. x: (B, D); sigma: 0-d or (B,).
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, images: Tensor, hidden: int = 256):
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        mean, width = checked(images).mean(0), images.shape[1]
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", (images - mean).square().mean().sqrt())
        sizes = ((width + 1, hidden), (hidden, hidden))
        body = [part for pair in sizes for part in (nn.Linear(*pair), nn.SiLU())]
        self.net = nn.Sequential(*body, nn.Linear(hidden, width))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma, e, c = column(sigma, x), x - self.mean, self.deviation
        v = sigma**2 + c**2
        told = torch.cat((e / v.sqrt(), (0.25 * sigma.log()).expand(len(x), 1)), 1)
        return c * self.net(told) / (sigma * v.sqrt()) - e / v  # (D - x) / sigma^2


def checked(images: Tensor) -> Tensor:
    """images, or ValueError: at least two flat images of finite pixels."""
    if images.ndim != 2 or len(images) < 2 or not bool(images.isfinite().all()):
        raise ValueError(f"images must be at least two finite rows (N, D), got {tuple(images.shape)}")
    return images


def column(sigma: Tensor, x: Tensor) -> Tensor:  # () or (B,) -> (1, 1) or (B, 1)
    """sigma against the rows of x."""
    if sigma.ndim > 1 or (sigma.ndim and len(sigma) != len(x)):
        raise ValueError(f"sigma must be one number or one for each of {len(x)} rows, got {tuple(sigma.shape)}")
    return sigma.reshape(-1, 1)
