"""torch-geometric's layers, imported when they are used and not before."""

from __future__ import annotations

from types import ModuleType


def pyg() -> ModuleType:
    """The module torch_geometric.nn. Raises ImportError, naming the extra, when it is not installed."""
    try:
        import torch_geometric.nn
    except ImportError:
        raise ImportError('graph layers need PyTorch Geometric: pip install "settlepoint[graphs]"') from None
    return torch_geometric.nn
