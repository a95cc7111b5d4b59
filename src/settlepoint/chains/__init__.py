"""What iterates along a chain: of noise levels, of time steps, of tokens, of recycles."""

from settlepoint.chains.langevin import Annealing, Denoised, ladder, langevin
from settlepoint.chains.reverse_sde import printed_drift, reverse_drift, reversed_sde

__all__ = ["Annealing", "Denoised", "ladder", "langevin", "printed_drift", "reverse_drift", "reversed_sde"]
