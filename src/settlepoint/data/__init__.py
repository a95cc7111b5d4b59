"""Data sets: names, files and checksums; loaders that verify what they read."""

from settlepoint.data.burgers import Burgers, Velocities, burgers, burgers_file
from settlepoint.data.camvid import camvid
from settlepoint.data.characters import Characters, characters
from settlepoint.data.cifar import Images, cifar10
from settlepoint.data.darcy import Darcy, Fields, darcy, darcy_file
from settlepoint.data.digits import Split, digits
from settlepoint.data.files import FileState, data_dir, fetch, present, sha256, states, verified
from settlepoint.data.flow_file import Frames, Trajectories, frames, write_trajectories
from settlepoint.data.fluid import Flow
from settlepoint.data.graph_file import superpixel_graphs, write_graphs
from settlepoint.data.graph_set import UNSCORED, GraphSet
from settlepoint.data.image_graphs import Written, write_image_graphs
from settlepoint.data.navier_stokes import FlowError, initial_vorticity, trajectories
from settlepoint.data.parts import kept_in, new_file
from settlepoint.data.pascal import pascal
from settlepoint.data.pictures import Labels, pairs
from settlepoint.data.pixel_dropout import dropped, painted
from settlepoint.data.planetoid import planetoid, planetoid_root
from settlepoint.data.registry import DataError, DataFile, Dataset, dataset, datasets
from settlepoint.data.shortest_paths import shortest_paths
from settlepoint.data.standardisation import standardised
from settlepoint.data.superpixels import ImageGraph, Recipe, image_graph
from settlepoint.data.tensor_file import load_tensors
from settlepoint.data.value_iteration import decision_processes

__all__ = [
    "UNSCORED",
    "Burgers",
    "Characters",
    "Darcy",
    "DataError",
    "DataFile",
    "Dataset",
    "Fields",
    "FileState",
    "Flow",
    "FlowError",
    "Frames",
    "GraphSet",
    "ImageGraph",
    "Images",
    "Labels",
    "Recipe",
    "Split",
    "Trajectories",
    "Velocities",
    "Written",
    "burgers",
    "burgers_file",
    "camvid",
    "characters",
    "cifar10",
    "darcy",
    "darcy_file",
    "data_dir",
    "dataset",
    "datasets",
    "decision_processes",
    "digits",
    "dropped",
    "fetch",
    "frames",
    "image_graph",
    "initial_vorticity",
    "kept_in",
    "load_tensors",
    "new_file",
    "painted",
    "pairs",
    "pascal",
    "planetoid",
    "planetoid_root",
    "present",
    "sha256",
    "shortest_paths",
    "standardised",
    "states",
    "superpixel_graphs",
    "trajectories",
    "verified",
    "write_graphs",
    "write_image_graphs",
    "write_trajectories",
]
