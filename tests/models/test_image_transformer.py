"""ImageTransformer: its two forms by hand, what stays known, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import settlepoint as sp
from settlepoint.data import dropped, painted
from settlepoint.layers import Patches
from settlepoint.models import ImageNet, ImageTransformer
from settlepoint.training.settled import AllIterates, iterates


class Painter(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return painted(u, 3)


def build(form: str) -> ImageTransformer:
    torch.manual_seed(0)
    net = ImageNet((4 if form == "km" else 7, 3), Patches((8, 8), (4, 4), shifted=True), 8, 2, 1)
    return ImageTransformer(net, Painter(), form)  # type: ignore[arg-type]


def shown() -> Tensor:
    return dropped(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))


def test_km_by_hand() -> None:
    model, u = build("km"), shown()
    x = u[:, :3]
    for _ in range(2):
        x = (x + model.operator.net(torch.cat((x, u[:, 3:]), 1))) / 2
    assert torch.allclose(model(u), x, atol=1e-6)


def test_a_correction_leaves_what_is_known() -> None:
    model, u = build("correction"), shown()
    y, known = model(u), u[:, 3:].expand(-1, 3, -1, -1) > 0
    assert torch.allclose(y[known], u[:, :3][known], atol=1e-6)
    x, f, m = painted(u, 3), painted(u, 3), u[:, 3:]
    for _ in range(2):
        x = (x + f + (1 - m) * model.operator.net(torch.cat((x, f, m), 1))) / 2
    assert torch.allclose(y, x, atol=1e-6)


@pytest.mark.parametrize("form", ["km", "correction"])
def test_it_trains_on_all_iterates(form: str) -> None:
    model, u = build(form), shown()
    *_, last = iterates(model, model.encode(u), 2)
    assert torch.allclose(model.decode(last), model(u), atol=1e-6)
    AllIterates(counts=(2, 3), ahead=2)(model, u, torch.rand(2, 3, 8, 8)).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_each_image_stops_on_its_own() -> None:
    model, u = build("correction").eval(), shown()
    model.settle.stop = sp.Tolerance(atol=1e-5, max_steps=200)
    with torch.no_grad():
        together = model(u)
        assert torch.allclose(torch.cat([model(u[row : row + 1]) for row in range(2)]), together, atol=1e-4)


def test_another_form() -> None:
    with pytest.raises(ValueError, match="form must be one of km, correction, got 'picard'"):
        build("picard")


@pytest.mark.parametrize("form", ["km", "correction"])
def test_masks_that_are_none(form: str) -> None:
    u = shown()
    with pytest.raises(ValueError, match="u must end in a mask of zeros and ones"):
        build(form)(torch.cat((u[:, :3], torch.rand(2, 1, 8, 8)), 1))
    with pytest.raises(ValueError, match="mask of zeros and ones"):
        build(form)(u[:, :3] + 0.5)
    with pytest.raises(ValueError, match=r"u must be \(B, C \+ 1, H, W\), images and their masks, got \(2, 8, 8\)"):
        build(form)(u[:, 0])
    with pytest.raises(ValueError, match="channels, images and masks together"):
        build(form)(torch.cat((u, u[:, 3:]), 1))
