"""Models as encode, operator and decode; none of them loops."""

from settlepoint.models.equilibrium import EquilibriumClassifier

__all__ = ["EquilibriumClassifier"]
