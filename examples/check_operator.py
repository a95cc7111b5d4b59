"""A network of your own that is applied again and again, under examination:

    settle check examples/check_operator.py:model -o check.html

The operator is T(x, u) = tanh(W x + u), a plain nn.Module. It was made with a spectral radius of about .8 and a norm
well above 1: no theorem about the whole space applies, yet at every sample there is a fixed point, and it is proved.
"""

import torch
from torch import nn

from settlepoint.certify import Subject


class Cell(nn.Module):
    """One step. What differs from sample to sample is an argument, so that samples can be told apart."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.normal_(self.linear.weight, std=0.8 / width**0.5)

    def forward(self, x, u):
        return torch.tanh(self.linear(x) + u)


# A Subject: the operator, then the inputs (x0, u) of 200 samples, and how many steps it was trained with. A score would
# be a function of the state, such as an accuracy: larger is better.
def model():
    torch.manual_seed(0)
    u = torch.randn(200, 32)
    return Subject(Cell(32).eval(), (torch.zeros(200, 32), u), depth=10, name="tanh(W x + u)")
