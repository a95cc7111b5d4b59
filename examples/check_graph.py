"""A graph convolution of torch-geometric that is iterated until it settles, under examination:

    settle check examples/check_graph.py:model -o check.html

T(h, u) = .9 conv(h) + .1 u, a graph a row. The convolution by the normalised adjacency does not expand, so that T
contracts by .9 whatever the graph is: the certificate holds for all h, and its radius is a proof.
pip install "settlepoint[graphs]"
"""

import torch
from torch_geometric.nn import GCNConv

from settlepoint.certify import Blend, Subject, project_


class Convolution(torch.nn.Module):
    """A ring of nodes with chords, the same for all samples; conv sees (samples, nodes, features)."""

    def __init__(self, nodes, features):
        super().__init__()
        ring = torch.arange(nodes)
        ends = torch.stack((ring, (ring + 1) % nodes)), torch.stack((ring, (ring + 7) % nodes))
        links = torch.cat(ends, 1)
        self.register_buffer("edges", torch.cat((links, links.flip(0)), 1))
        self.conv = GCNConv(features, features)
        project_(self.conv, 1.0)  # ||W|| <= 1: one line after every step of an optimiser keeps it so

    def forward(self, h):
        return torch.relu(self.conv(h, self.edges))


def model():
    torch.manual_seed(0)
    u = torch.randn(20, 60, 16)  # 20 samples, 60 nodes, 16 features
    return Subject(
        Blend(Convolution(60, 16), share=0.1).eval(), (torch.zeros_like(u), u), depth=10, name="PIGN by hand"
    )
