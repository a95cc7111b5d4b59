"""The normalised adjacency of one graph as a sparse matrix, made once instead of in every convolution."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def adjacency(
    edges: Tensor, nodes: int, dtype: torch.dtype | None = None, weights: Tensor | None = None
) -> Tensor:  # (2, E) -> sparse (N, N)
    """A = D^{-1/2} (L + I) D^{-1/2}        (Kipf and Welling 2017), L the links without loops, D the degrees of L + I

    In CSR form, for GCNConv(normalize=False), which multiplies by it: on Cora a fifth of the time, forward and back, of
    messages along edges. edges must hold both directions of every link, since A is taken for symmetric. weights: (E,),
    positive, the entries of L where they are not 1, the same in both directions.
    """
    dtype, apart = dtype or torch.get_default_dtype(), edges[0] != edges[1]
    links = torch.ones(edges.shape[1], dtype=dtype, device=edges.device) if weights is None else weights.to(dtype)
    loops = torch.arange(nodes, device=edges.device)
    index = torch.cat((edges[:, apart], loops.expand(2, nodes)), 1)
    entries = torch.cat((links[apart], torch.ones(nodes, dtype=dtype, device=edges.device)))
    degree = torch.zeros(nodes, dtype=dtype, device=edges.device).index_add(0, index[1], entries)
    values = entries * degree.rsqrt()[index].prod(0)
    matrix = torch.sparse_coo_tensor(index, values, (nodes, nodes), check_invariants=False)
    with warnings.catch_warnings():  # torch calls CSR a beta; it is what sparse products are made of
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return matrix.to_sparse_csr()
