"""FNO and FNO-DEQ: sizes, grids, the exact gradient of the equilibrium, and samples that stop on their own."""

from __future__ import annotations

import pytest
import torch

from settlepoint import Anderson, FixedPoint, FixedSteps, Implicit, Picard, Tolerance, Unrolled
from settlepoint.layers import FourierCell, Frame
from settlepoint.models import FNO, FNODEQ

KIND = torch.float64
TIGHT = Tolerance(atol=1e-12, max_steps=500)


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def model(stop=TIGHT, adjoint=None, *, width: int = 2, gain: float = 0.5, solver=None) -> FNODEQ:
    cell = FourierCell(width, 2, gain=gain, dtype=KIND)
    settle = FixedPoint(cell, solver or Anderson(3), stop, adjoint or Implicit(), inject="input")
    return FNODEQ(Frame((1, width, 1), hidden=4, dtype=KIND), settle)


def test_parameters_by_hand() -> None:
    """Lift 3-32-8 and projection 8-64-1 with biases; a layer of 8 x 8 complex at 5 x 3 frequencies, and 8 x 8 + 8."""
    frame = (3 * 32 + 32) + (32 * 8 + 8) + (8 * 64 + 64) + (64 + 1)
    layer = 5 * 3 * 64 * 2 + 72
    assert count(FNO((1, 8, 1), 3, 4)) == frame + 4 * layer
    assert count(FNO((1, 8, 1), 3, 4, tied=True)) == frame + layer
    settle = FixedPoint(FourierCell(8, 3), inject="input")
    assert count(FNODEQ(Frame((1, 8, 1)), settle)) == frame + layer + 72


@pytest.mark.parametrize("tied", [False, True])
def test_an_fno_is_its_layers_one_after_the_other(tied: bool, generator: torch.Generator) -> None:
    net = FNO((1, 3, 2), 2, 3, tied=tied, dtype=KIND)
    x = torch.randn(2, 6, 5, generator=generator, dtype=KIND)
    layers = [net.layers[0]] * 3 if tied else list(net.layers)
    gelu = torch.nn.functional.gelu
    z = layers[2](gelu(layers[1](gelu(layers[0](net.frame.encode(x))))))
    torch.testing.assert_close(net(x), net.frame.decode(z, (6, 5)))
    assert net(x).shape == (2, 2, 6, 5)
    assert net(torch.zeros(1, 12, 10, dtype=KIND)).shape == (1, 2, 12, 10)


def test_an_fno_that_sees_its_input_at_every_layer(generator: torch.Generator) -> None:
    net = FNO((1, 3, 2), 2, 2, sees_input=True, dtype=KIND)
    x = torch.randn(2, 6, 5, generator=generator, dtype=KIND)
    u, (first, second) = net.frame.encode(x), net.layers
    torch.testing.assert_close(net(x), net.frame.decode(second(first(u, u), u), (6, 5)))


def test_a_grid_too_coarse_names_modes() -> None:
    with pytest.raises(ValueError, match=r"modes must be at most half.*got 5 on \(8, 8\)"):
        FNO((1, 2, 1), 5, padding=0.0)(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        FNO((1, 2, 1), 2, 0)


def test_the_equilibrium_is_that_of_a_plain_loop(generator: torch.Generator) -> None:
    net, x = model(), torch.randn(3, 6, 6, generator=generator, dtype=KIND)
    u = net.frame.encode(x)
    z = torch.zeros_like(u)
    with torch.no_grad():
        for _ in range(200):
            z = net.operator(z, u)
        torch.testing.assert_close(net(x), net.frame.decode(z, (6, 6)), atol=1e-10, rtol=0)
    assert net.settle.last is not None
    assert net.settle.last.counts() == {"CONVERGED": 3}


def test_the_gradient_passes_gradcheck(generator: torch.Generator) -> None:
    """In the input and in the weights of the Fourier layer and the gate, against finite differences."""
    net = model()
    x = torch.randn(1, 4, 4, generator=generator, dtype=KIND, requires_grad=True)
    names = ("settle.operator.layer.spectral.weight", "settle.operator.gate.weight", "frame.lift.0.weight")
    weights = [dict(net.named_parameters())[name] for name in names]
    call = lambda x, *w: torch.func.functional_call(net, dict(zip(names, w, strict=True)), (x,))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, *weights), atol=1e-6, fast_mode=True)


def test_the_gradient_is_that_of_unrolling(generator: torch.Generator) -> None:
    net, x = model(), torch.randn(2, 5, 5, generator=generator, dtype=KIND)
    plain = model(FixedSteps(200), Unrolled(), solver=Picard())
    plain.load_state_dict(net.state_dict())
    for each in (net, plain):
        each(x).square().sum().backward()
    for a, b in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-8)


def test_a_sample_stops_as_it_would_alone(generator: torch.Generator) -> None:
    """Inputs of very different size settle at different evaluations, and each as in a batch of its own."""
    net = model(Tolerance(0.0, 1e-8, max_steps=200), gain=0.9, solver=Picard())  # Anderson amplifies rounding
    x = torch.randn(4, 6, 6, generator=generator, dtype=KIND) * torch.tensor([0.0, 0.1, 1.0, 30.0])[:, None, None]
    with torch.no_grad():
        together = net(x)
        last = net.settle.last
        assert last is not None
        steps = last.steps.tolist()  # evaluations are one more where the batch tried to go on with fewer rows
        assert len(set(steps)) > 1
        for row in range(4):
            alone = net(x[row : row + 1])
            assert net.settle.last is not None
            assert net.settle.last.steps.tolist() == [steps[row]]
            torch.testing.assert_close(alone[0], together[row], atol=1e-11, rtol=1e-11)


def test_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"settle must have inject='input'.*got 'f'"):
        FNODEQ(Frame((1, 2, 1)), FixedPoint(FourierCell(2, 2)))


def test_a_poisoned_sample_spoils_no_other(generator: torch.Generator) -> None:
    net, x = model(), torch.randn(3, 6, 6, generator=generator, dtype=KIND)
    with torch.no_grad():
        clean = net(x)
        x[1, 2, 3] = torch.nan
        found = net(x)
    assert net.settle.last is not None
    assert net.settle.last.counts() == {"CONVERGED": 2, "NONFINITE": 1}
    torch.testing.assert_close(found[[0, 2]], clean[[0, 2]], atol=1e-11, rtol=0)
