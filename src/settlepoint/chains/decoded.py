"""Decoded: the entries of a discrete chain, and how they were found."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from settlepoint.solution import Status


@dataclass(frozen=True)
class Decoded:
    """B rows of n entries, found in S sweeps.

    tokens: (B, n); behind the length of a row, a filling. lengths: (B,), entries of a row, its end token among them.
    status: (B,), CONVERGED, or NONFINITE for a row whose logits became NaN or inf: its first `lengths` entries hold.
    sweeps: (B,), those in which the row took part. calls: of the model. evaluations: entries which the model was
    given, summed over rows, those before the chain (a prompt) included. settled: (S, B), entries known to be right
    after each sweep.
    divergence: with monitor, (S, B), the mean of KL(p_k || p_{k-1}) over the entries that were open in sweeps k - 1 and
    k; NaN where there are none. states: with trace, (S + 1, B, n), the start and what each sweep made of it.
    """

    tokens: Tensor
    lengths: Tensor
    status: Tensor
    sweeps: Tensor
    calls: int
    evaluations: int
    settled: Tensor
    divergence: Tensor | None = None
    states: Tensor | None = None

    @property
    def converged(self) -> Tensor:  # (B,) bool
        """Which rows are the fixed point."""
        return self.status == int(Status.CONVERGED)

    @property
    def per_sweep(self) -> Tensor:  # (B,)
        """Entries settled a sweep; 1 is what decoding one after the other does."""
        return self.lengths / self.sweeps
