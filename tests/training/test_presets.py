"""Transformers of fields as they were published, and so that they settle."""

from __future__ import annotations

import torch

from settlepoint.training import Recipe, fit, iterates
from settlepoint.training.presets import published_transformer, settled_transformer, settling


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth fields, and their mirror images at half the height."""
    draw = torch.Generator().manual_seed(0)
    u = torch.nn.functional.interpolate(torch.randn(40, 1, 4, 4, generator=draw), (8, 8), mode="bilinear")
    return u, 0.5 * u.flip(-1)


def test_a_settled_one_stays_where_it_has_arrived_and_a_published_one_does_not() -> None:
    torch.manual_seed(0)
    u, y = samples()
    settled, published = settled_transformer((1, 1), (8, 8)), published_transformer((1, 1), (8, 8), steps=2)
    recipe = Recipe(epochs=25, batch=20, lr=5e-3, warmup=10)
    fit(settled, (u, y), recipe, objective=settling(torch.Generator().manual_seed(1)))
    fit(published, (u, y), recipe, loss=torch.nn.functional.mse_loss)
    errors = {}
    with torch.no_grad():
        for name, model in (("settled", settled), ("published", published)):
            courses = iterates(model, model.encode(u), 24)
            errors[name] = [float((model.decode(x) - y).square().mean()) for x in courses]
    first, rest = errors["settled"][7], errors["settled"][8:]
    assert first < 0.3 * float(y.square().mean())
    assert max(rest) < 1.2 * first
    assert errors["published"][1] < 0.3 * float(y.square().mean())
    assert errors["published"][-1] > 10 * errors["published"][1]
