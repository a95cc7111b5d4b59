"""Models as encode, operator and decode; none of them loops."""

from settlepoint.models.appnp import APPNP
from settlepoint.models.cgs import CGS
from settlepoint.models.eignn import EIGNN
from settlepoint.models.equilibrium import EquilibriumClassifier
from settlepoint.models.field_transformer import FieldTransformer
from settlepoint.models.gcn import GAT, GCN, DeepGCN
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.models.graphs import Graphs
from settlepoint.models.ignn import IGNN
from settlepoint.models.itergnn import IterGNN
from settlepoint.models.nide import NIDE
from settlepoint.models.nie import NIE
from settlepoint.models.pign import PIGN

__all__ = [
    "APPNP",
    "CGS",
    "EIGNN",
    "GAT",
    "GCN",
    "IGNN",
    "NIDE",
    "NIE",
    "PIGN",
    "DeepGCN",
    "EquilibriumClassifier",
    "FieldTransformer",
    "GraphEquilibrium",
    "Graphs",
    "IterGNN",
]
