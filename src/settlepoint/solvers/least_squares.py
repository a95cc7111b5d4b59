"""Small least-squares problems, one a row, from their Gram matrices: no row can spoil another."""

import torch
from torch import Tensor

_LAPACK_ROWS = 256  # LAPACK loops over rows: above this many, elimination over all rows at once is faster


def least_squares(gram: Tensor, right: Tensor, ridge: float | None = None) -> Tensor:  # (R, m, m), (R, m) -> (R, m)
    """Coefficients g of (gram + ridge diag(gram)) g = right, zero for empty slots and in rows without an answer.

    ridge: relative to the squared length of every vector; None takes four rounding units. Up to 256 rows the systems go
    through LAPACK, above by elimination over all rows at once.
    """
    ridge = 4 * torch.finfo(gram.dtype).eps if ridge is None else ridge
    square = gram.diagonal(dim1=1, dim2=2)
    system = gram + torch.diag_embed(torch.where(square > 0, ridge * square, 1.0))
    g = torch.linalg.solve_ex(system, right)[0] if len(gram) <= _LAPACK_ROWS else _eliminated(system, right)
    return g.nan_to_num(0.0, 0.0, 0.0)


def _eliminated(a: Tensor, b: Tensor) -> Tensor:
    """The same by Gauss elimination of all rows at once, rows last in memory; pivots lost to rounding give zero."""
    depth, eps = b.shape[1], torch.finfo(b.dtype).eps
    table = torch.cat((a, b[:, :, None]), 2).permute(1, 2, 0).contiguous()  # (m, m + 1, R)
    floor = eps * torch.stack([table[i, i] for i in range(depth)])
    inverses: list[Tensor] = []
    for i in range(depth):
        pivot = table[i, i]
        inverses.append(torch.where(pivot > floor[i], pivot.reciprocal(), 0.0))
        if i + 1 < depth:
            factor = table[i + 1 :, i] * inverses[i]
            table = torch.cat((table[: i + 1], torch.addcmul(table[i + 1 :], factor[:, None], table[i], value=-1)))
    g: list[Tensor] = []
    for i in reversed(range(depth)):
        known = table[i, depth]
        for k, value in enumerate(g):
            known = torch.addcmul(known, table[i, i + 1 + k], value, value=-1)
        g.insert(0, known * inverses[i])
    return torch.stack(g, 1)
