"""Equations as data: families that sample problems and know their reference solutions."""

from collections.abc import Callable

from settlepoint.problems.batch import Batch
from settlepoint.problems.chandrasekhar import Chandrasekhar
from settlepoint.problems.custom import from_callable
from settlepoint.problems.family import Family
from settlepoint.problems.initial_value import InitialValueFamily
from settlepoint.problems.linear import LinearFamily
from settlepoint.problems.matrices import MATRICES
from settlepoint.problems.van_der_pol import VanDerPol

FAMILIES: dict[str, Callable[[], Family]] = {
    family.name: family
    for family in (
        LinearFamily,
        Chandrasekhar,
        VanDerPol,
    )
}

__all__ = [
    "FAMILIES",
    "MATRICES",
    "Batch",
    "Chandrasekhar",
    "Family",
    "InitialValueFamily",
    "LinearFamily",
    "VanDerPol",
    "from_callable",
]
