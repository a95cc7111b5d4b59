"""scikit-learn's handwritten digits with one fixed split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.data.registry import DataError

TRAIN = 1400


@dataclass(frozen=True)
class Split:
    """Training and test samples. x: (N, D) in [0, 1]; y: (N,) class numbers."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


def digits(dtype: torch.dtype = torch.float32) -> Split:
    """The 1,797 images of 8 x 8 pixels as (N, 64): 1,400 to train, 397 to test, shuffled once with a fixed seed.

    They come with scikit-learn; no file and no network is needed. Raises DataError, naming the extra, without it.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError('the digits come with scikit-learn: pip install "settlepoint[data]"') from None
    pixels, numbers = load_digits(return_X_y=True)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))
    x = torch.as_tensor(pixels, dtype=dtype)[order] / 16.0  # pixels are counts from 0 to 16
    y = torch.as_tensor(numbers, dtype=torch.int64)[order]
    return Split(x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:])
