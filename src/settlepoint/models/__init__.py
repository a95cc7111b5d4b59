"""Models as encode, operator and decode; none of them loops."""

from settlepoint.models.equilibrium import EquilibriumClassifier
from settlepoint.models.gcn import GCN
from settlepoint.models.graphs import Graphs
from settlepoint.models.pign import PIGN

__all__ = ["GCN", "PIGN", "EquilibriumClassifier", "Graphs"]
