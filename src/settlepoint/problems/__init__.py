"""Equations as data: families that sample problems and know their reference solutions."""

from collections.abc import Callable

from settlepoint.problems.batch import Batch
from settlepoint.problems.bratu import Bratu
from settlepoint.problems.chandrasekhar import Chandrasekhar
from settlepoint.problems.convection import ConvectionDiffusion
from settlepoint.problems.custom import from_callable
from settlepoint.problems.eigenvector import Eigenvector
from settlepoint.problems.family import Family
from settlepoint.problems.heat import HeatImplicit
from settlepoint.problems.initial_value import InitialValueFamily
from settlepoint.problems.linear import LinearFamily
from settlepoint.problems.matrices import MATRICES
from settlepoint.problems.neumann import NeumannSeries
from settlepoint.problems.reaction import ReactionImplicit
from settlepoint.problems.small_systems import SmallSystems
from settlepoint.problems.van_der_pol import VanDerPol

FAMILIES: dict[str, Callable[[], Family]] = {
    family.name: family
    for family in (
        LinearFamily,
        Chandrasekhar,
        VanDerPol,
        Bratu,
        ConvectionDiffusion,
        HeatImplicit,
        ReactionImplicit,
        Eigenvector,
        NeumannSeries,
        SmallSystems,
    )
}

__all__ = [
    "FAMILIES",
    "MATRICES",
    "Batch",
    "Bratu",
    "Chandrasekhar",
    "ConvectionDiffusion",
    "Eigenvector",
    "Family",
    "HeatImplicit",
    "InitialValueFamily",
    "LinearFamily",
    "NeumannSeries",
    "ReactionImplicit",
    "SmallSystems",
    "VanDerPol",
    "from_callable",
]
