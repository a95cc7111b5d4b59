"""What iterates along a chain or in cycles: recycled structure predictors."""

from settlepoint.chains.structures import Superposition, gdt_ts, kabsch

__all__ = ["Superposition", "gdt_ts", "kabsch"]
