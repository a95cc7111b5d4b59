"""Train a layer that is solved until it settles on handwritten digits, and see how each image settled. Ten seconds.

pip install "settlepoint[data]"
"""

import torch

import settlepoint as sp
from settlepoint.data import digits
from settlepoint.layers import TanhCell, linear
from settlepoint.models import EquilibriumClassifier
from settlepoint.training import Hooks, Recipe, accuracy, fit

generator = torch.Generator().manual_seed(0)
data = digits(torch.float64)

cell = TanhCell(100, generator=generator, dtype=torch.float64)  # T(z, u) = tanh(W z + u)
settle = sp.FixedPoint(cell, sp.Picard(), sp.Tolerance(atol=1e-4, max_steps=200), inject="input")
encoder, decoder = linear(64, 100, generator=generator), linear(100, 10, generator=generator)
model = EquilibriumClassifier(encoder, settle, decoder).double()

recipe = Recipe(epochs=8, clip=1.0)
bounded = Hooks(after_step=lambda: cell.project_(1.0))  # ||W|| <= 1: every image has one fixed point
fit(model, (data.train_x, data.train_y), recipe, generator=generator, hooks=bounded)

settle.stop = sp.Tolerance(atol=1e-6, max_steps=1000)  # serve more exactly than was trained
with torch.no_grad():
    scores = model(data.test_x)
print(f"accuracy {accuracy(scores, data.test_y):.1f} %")
print(f"rows by status {settle.last.counts()}")
print(f"evaluations an image: median {settle.last.evals.median()}, largest {settle.last.evals.max()}")
print(f"largest residual {settle.last.residual.max():.1e}")
