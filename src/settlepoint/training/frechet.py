"""The Frechet distance of two sets of images, on features that its name must say."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}) of features (N, D) and (M, D)     (Dowson and Landau 1982)

    The distance of Wasserstein between the two normal distributions; the FID where the features are those of Inception.
    In float64, the root by symmetric eigenvalues. Raises ValueError for fewer than two rows, features of different
    width, and features that are not finite.
    """
    for name, value in (("a", a), ("b", b)):
        if value.ndim != 2 or len(value) < 2 or not bool(value.isfinite().all()):
            raise ValueError(f"{name} must be at least two rows of finite features, got {tuple(value.shape)}")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b must have the {a.shape[1]} features of a, got {b.shape[1]}")
    a, b = a.double(), b.double()
    first, second = a.T.cov().reshape(a.shape[1], -1), b.T.cov().reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return max(0.0, float(apart + first.trace() + second.trace() - 2 * overlap))


class Principal:
    """The leading principal components of a set of images, as features: FD-PCA, comparable with nothing but itself."""

    def __init__(self, images: Tensor, count: int = 64):
        flat = images.flatten(1).double()
        if not 1 <= count <= min(flat.shape):
            raise ValueError(f"count must lie in [1, {min(flat.shape)}], got {count}")
        self.mean = flat.mean(0)
        centred = flat - self.mean
        if len(flat) < flat.shape[1]:
            self.axes = torch.linalg.svd(centred, full_matrices=False).Vh[:count].T
        else:
            self.axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -count:].flip(1)

    def __call__(self, images: Tensor) -> Tensor:  # (N, ...) -> (N, count)
        """The features of images."""
        return (images.flatten(1).double() - self.mean) @ self.axes
