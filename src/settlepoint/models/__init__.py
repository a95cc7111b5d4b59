"""Models as encode, operator and decode; none of them loops."""

from settlepoint.models.anie import ANIE, Faults
from settlepoint.models.appnp import APPNP
from settlepoint.models.autoencoder import VAE
from settlepoint.models.cgs import CGS
from settlepoint.models.eignn import EIGNN
from settlepoint.models.equilibrium import EquilibriumClassifier
from settlepoint.models.field_transformer import FieldTransformer
from settlepoint.models.fixed_point_denoiser import FixedPointDenoiser
from settlepoint.models.fno import FNO
from settlepoint.models.fno_deq import FNODEQ
from settlepoint.models.gcn import GAT, GCN, DeepGCN
from settlepoint.models.graph_equilibrium import GraphEquilibrium
from settlepoint.models.graphs import Graphs
from settlepoint.models.ignn import IGNN
from settlepoint.models.image_transformer import ImageNet, ImageTransformer
from settlepoint.models.itergnn import IterGNN
from settlepoint.models.nide import NIDE
from settlepoint.models.nie import NIE
from settlepoint.models.pign import PIGN
from settlepoint.models.pixelcnn import PixelCNN
from settlepoint.models.score import GaussianScore, KernelScore, ScoreNet

__all__ = [
    "ANIE",
    "APPNP",
    "CGS",
    "EIGNN",
    "FNO",
    "FNODEQ",
    "GAT",
    "GCN",
    "IGNN",
    "NIDE",
    "NIE",
    "PIGN",
    "VAE",
    "DeepGCN",
    "EquilibriumClassifier",
    "Faults",
    "FieldTransformer",
    "FixedPointDenoiser",
    "GaussianScore",
    "GraphEquilibrium",
    "Graphs",
    "ImageNet",
    "ImageTransformer",
    "IterGNN",
    "KernelScore",
    "PixelCNN",
    "ScoreNet",
]
