"""The rows of Table 5: how each model is built, and which settings it may choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from settlepoint.models import APPNP, GAT, GCN, DeepGCN, IterGNN
from settlepoint.training.presets import Backbone, convolution, published, settled

Channels = tuple[int, int, int]
Settings = Mapping[str, Any]
TRAINED = (
    {"lr": 0.01, "weight_decay": 5e-4},
    {"lr": 0.01, "weight_decay": 5e-2},
    {"lr": 0.002, "weight_decay": 0.0},
)
"""How every model may be trained; with its own two settings: six candidates each."""


@dataclass(frozen=True)
class Row:
    """A model of the table. build(channels, copies, inputs, **settings); inputs: share of the features dropped.

    own: the two settings of its own that it may choose from; a row without any is trained with `fixed` everywhere.
    """

    build: Callable[..., nn.Module]
    own: tuple[Settings, Settings] | None = None
    fixed: Settings = field(default_factory=dict)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """What the row may choose from, the same number for every row that chooses."""
        return [{**trained, **own} for own in self.own or () for trained in TRAINED]

    def model(self, channels: Channels, copies: int, inputs: float, settings: Settings) -> nn.Module:
        """The model with the settings that are not the optimiser's."""
        ours = {name: value for name, value in settings.items() if name not in ("lr", "weight_decay")}
        return self.build(channels, copies, inputs, **ours)


def _gcn(channels: Channels, copies: int, inputs: float, hidden: int = 16, center: bool = False) -> nn.Module:
    features, _, classes = channels
    return GCN(features, hidden, classes, inputs=inputs, normalize=False, center=center, copies=copies)


def _gat(channels: Channels, copies: int, inputs: float, attention: float = 0.6, center: bool = False) -> nn.Module:
    features, _, classes = channels
    dropped = 0.6 if inputs else 0.0  # as published: features, hidden layer and attention alike
    return GAT(features, 8, classes, inputs=dropped, attention=attention, center=center, copies=copies)


def _deep(channels: Channels, copies: int, inputs: float, layers: int = 10, damping: float = 0.7) -> nn.Module:
    return DeepGCN(channels, layers, damping=damping, inputs=inputs, normalize=False, copies=copies)


def _appnp(channels: Channels, copies: int, inputs: float, center: bool = False) -> nn.Module:
    return APPNP(channels, inputs=inputs, center=center, copies=copies)


def _published(
    channels: Channels, copies: int, inputs: float, backbone: Backbone = "gcn", steps: int = 10
) -> nn.Module:
    return published(channels, steps=steps, normalize=False, backbone=backbone, copies=copies)


def _settled(channels: Channels, copies: int, inputs: float, **settings: Any) -> nn.Module:
    return settled(channels, dropout=inputs, normalize=False, copies=copies, **settings)


def _iterated(
    channels: Channels, copies: int, inputs: float, backbone: Backbone, fork: bool, steps: int = 10
) -> nn.Module:
    conv = convolution(backbone, channels[1], copies, normalize=False, bias=True)
    variant = IterGNN.fork if fork else IterGNN
    model = variant(conv, channels, steps=steps, copies=copies)
    model.encoder.dropout = inputs
    return model


_SETTLES = (
    {"injection": 0.1, "damping": 0.0, "steps": 10, "center": False},
    {"injection": 0.0, "damping": 0.3, "steps": 20, "center": True},
)
_GCN, _GAT = {"lr": 0.01, "weight_decay": 5e-4}, {"lr": 0.005, "weight_decay": 5e-4}
_STEPS = ({"steps": 10}, {"steps": 20})
_HIDDEN, _ATTENTION = ({"hidden": 16}, {"hidden": 64}), ({"attention": 0.6}, {"attention": 0.0})

ROWS: dict[str, Row] = {
    "mlp": Row(partial(_settled, steps=0, injection=0.0), ({"center": False}, {"center": True})),
    "sgc": Row(partial(_settled, injection=0.0), ({"steps": 2, "center": False}, {"steps": 20, "center": True})),
    "gcn": Row(_gcn, fixed=_GCN),
    "gcn tuned": Row(_gcn, _HIDDEN),
    "gcn centred": Row(partial(_gcn, center=True), _HIDDEN),
    "gat": Row(_gat, fixed=_GAT),
    "gat tuned": Row(_gat, _ATTENTION),
    "gat centred": Row(partial(_gat, center=True), _ATTENTION),
    "untied gcn": Row(_deep, ({"damping": 0.7}, {"damping": 0.0})),
    "appnp": Row(_appnp, ({"center": False}, {"center": True})),
    "itergnn gcn": Row(partial(_iterated, backbone="gcn", fork=False), _STEPS),
    "itergnn gat": Row(partial(_iterated, backbone="gat", fork=False), _STEPS),
    "fork gcn": Row(partial(_iterated, backbone="gcn", fork=True), fixed=_GCN),
    "fork gat": Row(partial(_iterated, backbone="gat", fork=True), fixed=_GCN),
    "pign-gcn published": Row(_published, fixed=_GCN),
    "pign-gat published": Row(partial(_published, backbone="gat"), fixed=_GCN),
    "pign-gcn settled": Row(_settled, _SETTLES),
    "pign-gat settled": Row(partial(_settled, backbone="gat"), _SETTLES),
}
"""By name, in the order of the table."""
