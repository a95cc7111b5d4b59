"""The Fourier layer against a sum over frequencies, on several grids, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from settlepoint.layers import FourierCell, FourierLayer, Frame, SpectralConvolution

KIND = torch.float64


def by_hand(layer: SpectralConvolution, x: Tensor) -> Tensor:
    """The definition with a dense discrete Fourier transform: frequencies |k1| < m, 0 <= k2 < m and their mirrors."""
    m, (n1, n2) = layer.modes, x.shape[2:]
    weight = torch.view_as_complex(layer.weight.detach())
    i, j = torch.arange(n1, dtype=KIND)[:, None] / n1, torch.arange(n2, dtype=KIND)[None] / n2
    y = x.new_zeros(len(x), weight.shape[-1], n1, n2)
    for k1 in range(1 - m, m):
        for k2 in range(m):
            wave = torch.exp(2j * math.pi * (k1 * i + k2 * j))
            coefficient = (x * wave.conj()).mean((2, 3)) @ weight[k1 if k1 >= 0 else k1 + 2 * m - 1][k2]
            # the mirror of a frequency with k2 > 0 is none of them: the real part counts twice
            y += (1 if k2 == 0 else 2) * (coefficient[..., None, None] * wave).real
    return y


def in_order(layer: SpectralConvolution) -> SpectralConvolution:
    """The same layer with rows of the weight as 0, ..., m - 1, 1 - m, ..., -1, which `by_hand` reads."""
    with torch.no_grad():
        layer.weight.copy_(layer.weight.roll(1 - layer.modes, 0))
    return layer


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (16, 10)])
def test_it_is_its_definition(size: tuple[int, int], generator: torch.Generator) -> None:
    layer = SpectralConvolution(2, 3, 3, generator=generator, dtype=KIND)
    x = torch.randn(4, 2, *size, generator=generator, dtype=KIND)
    found = layer(x)
    torch.testing.assert_close(found, by_hand(in_order(layer), x), atol=1e-12, rtol=0)


def test_one_wave_by_hand() -> None:
    """R = i at (1, 0) and -i at (-1, 0) turn a cosine into minus a sine, R = 2 at (0, 0) doubles the mean."""
    layer = SpectralConvolution(1, 1, 2, dtype=KIND)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[2, 0, 0, 0, 1], layer.weight[0, 0, 0, 0, 1] = 1.0, -1.0
        layer.weight[1, 0, 0, 0, 0] = 2.0
    angle = 2 * math.pi * torch.arange(8, dtype=KIND)[:, None].expand(8, 4) / 8
    found = layer((3 + angle.cos())[None, None])
    torch.testing.assert_close(found[0, 0], 6 - angle.sin(), atol=1e-14, rtol=0)


def waves(n1: int, n2: int) -> Tensor:
    """A field with frequencies up to 2 either way, on any grid."""
    i, j = 2 * math.pi * torch.arange(n1, dtype=KIND)[:, None] / n1, 2 * math.pi * torch.arange(n2, dtype=KIND) / n2
    first = 1 + (i + 2 * j).cos() + 0.5 * (2 * i - j).sin()
    return torch.stack((first, (2 * i).cos() * j.sin()))[None]


def test_a_field_of_few_frequencies_gives_the_same_on_every_grid(generator: torch.Generator) -> None:
    layer = FourierLayer(2, 2, 3, generator=generator, dtype=KIND, activation=torch.nn.GELU())
    coarse, fine = layer(waves(6, 8)), layer(waves(24, 16))
    torch.testing.assert_close(fine[:, :, ::4, ::2], coarse, atol=1e-13, rtol=0)


def test_higher_frequencies_are_cut(generator: torch.Generator) -> None:
    layer = SpectralConvolution(2, 1, 2, generator=generator, dtype=KIND)
    j = 2 * math.pi * torch.arange(8, dtype=KIND) / 8
    high = (2 * j).cos().expand(1, 2, 8, 8)
    torch.testing.assert_close(layer(high), torch.zeros(1, 1, 8, 8, dtype=KIND), atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [(5, 8), (8, 5)])
def test_a_grid_too_coarse_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"modes must be at most half the points.*got 3 on \((5, 8|8, 5)\)"):
        SpectralConvolution(1, 1, 3)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("modes", [0, -1, 2.0, True])
def test_modes_must_be_a_count(modes: object) -> None:
    with pytest.raises(ValueError, match="modes must be an integer >= 1, got"):
        SpectralConvolution(1, 1, modes)  # type: ignore[arg-type]


def test_gradients(generator: torch.Generator) -> None:
    layer = SpectralConvolution(1, 2, 2, generator=generator, dtype=KIND)
    x = torch.randn(2, 1, 5, 4, generator=generator, dtype=KIND, requires_grad=True)
    call = lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, layer.weight))


def test_the_cell_is_its_definition(generator: torch.Generator) -> None:
    cell = FourierCell(3, 2, dtype=KIND)
    z, u = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=KIND)
    assert cell.gate is not None
    inner = torch.nn.functional.gelu(cell.gate(u) * z + u)
    torch.testing.assert_close(cell(z, u), cell.layer.pointwise(inner) + cell.layer.spectral(inner))
    added = FourierCell(3, 2, injection="added", dtype=KIND)
    torch.testing.assert_close(added(z, u), added.layer(torch.nn.functional.gelu(z + u)))
    with pytest.raises(ValueError, match="injection must be 'gated' or 'added', got 'both'"):
        FourierCell(3, 2, injection="both")  # type: ignore[arg-type]


def test_the_frame_pads_behind_and_crops_the_same() -> None:
    frame = Frame((1, 3, 2), padding=0.5, dtype=KIND)
    x = torch.rand(2, 6, 4, dtype=KIND)
    u = frame.encode(x)
    assert u.shape == (2, 3, 9, 6)
    assert not u[..., 6:, :].any()
    assert not u[..., 4:].any()
    torch.testing.assert_close(frame.decode(u, (6, 4)), frame.project(u[..., :6, :4]))
    moved = frame.encode(torch.zeros(1, 6, 4, dtype=KIND))
    assert not torch.equal(moved[..., 0, 0], moved[..., 1, 0])  # the place counts
    torch.testing.assert_close(frame.encode(torch.zeros(1, 12, 8, dtype=KIND))[..., :12:2, :8:2], moved[..., :6, :4])


def test_the_frame_refuses(generator: torch.Generator) -> None:
    for padding in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"padding must be a finite share of the points >= 0, got {padding}"):
            Frame((1, 2, 1), padding=padding)
    with pytest.raises(ValueError, match=r"x must be \(B, 2, n1, n2\), got \(3, 1, 4, 4\)"):
        Frame((2, 2, 1)).encode(torch.zeros(3, 4, 4))
