"""One graph convolution iterated on the Cora citation graph: python examples/cora.py DATA_FOLDER. Ten seconds.

pip install "settlepoint[graphs]"; `settle data list` says which files DATA_FOLDER must hold.
"""

import sys

import torch

import settlepoint as sp
from settlepoint.data import planetoid
from settlepoint.layers import adjacency
from settlepoint.models import Graphs
from settlepoint.training import NodeTask, fit_nodes, presets

torch.manual_seed(0)
data = planetoid(sys.argv[1] if len(sys.argv) > 1 else None, "Cora")
features = (data.x / data.x.sum(1, keepdim=True).clamp(min=1)).to_sparse()
graphs = Graphs.one(adjacency(data.edge_index, len(data.y)), len(data.y))
task = NodeTask(features, data.y, graphs, data.train_mask, data.val_mask, data.test_mask)

model = presets.settled((features.shape[1], 64, 7), normalize=False)  # h = .9 A h + .1 u, ten times
history = fit_nodes(model, task, presets.recipe())
print(f"test accuracy {history.test[history.chosen]:.1f} %, epoch {history.chosen} chosen on validation")

model.settle.solver, model.settle.stop = sp.Anderson(5), sp.Tolerance(atol=0, rtol=1e-5)  # to the end, and measured
with torch.no_grad():
    model(task.x, graphs)
print(f"{model.settle.last.counts()} after {int(model.settle.last.evals)} evaluations")
