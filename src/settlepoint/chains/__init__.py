"""What iterates along a chain: triangular fixed points, parallel sampling, recycling, decoding."""

from settlepoint.chains.ancestral import ancestral
from settlepoint.chains.carried import Carried, budget
from settlepoint.chains.exact_score import ExactScore
from settlepoint.chains.schedules import Schedule, linear
from settlepoint.chains.unet import UNet, unet

__all__ = [
    "Carried",
    "ExactScore",
    "Schedule",
    "UNet",
    "ancestral",
    "budget",
    "linear",
    "unet",
]
