"""Data sets: names, files and checksums; loaders that verify what they read."""

from settlepoint.data.camvid import camvid
from settlepoint.data.digits import Split, digits
from settlepoint.data.files import FileState, data_dir, fetch, present, states, verified
from settlepoint.data.graph_file import superpixel_graphs, write_graphs
from settlepoint.data.graph_set import UNSCORED, GraphSet
from settlepoint.data.image_graphs import Written, kept_in, new_file, write_image_graphs
from settlepoint.data.pascal import pascal
from settlepoint.data.pictures import Labels, pairs
from settlepoint.data.planetoid import planetoid, planetoid_root
from settlepoint.data.registry import DataError, DataFile, Dataset, dataset, datasets
from settlepoint.data.shortest_paths import shortest_paths
from settlepoint.data.standardisation import standardised
from settlepoint.data.superpixels import ImageGraph, Recipe, image_graph
from settlepoint.data.value_iteration import decision_processes

__all__ = [
    "UNSCORED",
    "DataError",
    "DataFile",
    "Dataset",
    "FileState",
    "GraphSet",
    "ImageGraph",
    "Labels",
    "Recipe",
    "Split",
    "Written",
    "camvid",
    "data_dir",
    "dataset",
    "datasets",
    "decision_processes",
    "digits",
    "fetch",
    "image_graph",
    "kept_in",
    "new_file",
    "pairs",
    "pascal",
    "planetoid",
    "planetoid_root",
    "present",
    "shortest_paths",
    "standardised",
    "states",
    "superpixel_graphs",
    "verified",
    "write_graphs",
    "write_image_graphs",
]
