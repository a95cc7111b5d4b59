"""Measured slopes by hand: what they are, when they stay, and what enters a window with none."""

from __future__ import annotations

import torch

from settlepoint.chains.secant import Secant
from settlepoint.chains.sliding import recurrence, slid

KIND = torch.float64
GUESS = torch.full((2, 3), 7.0, dtype=KIND)


def measured(A: torch.Tensor) -> tuple[Secant, torch.Tensor]:
    """After two sweeps of y = A x, A (2, 3), over states of two numbers."""
    x = torch.tensor([[[1.0, 2.0]] * 3, [[0.5, -1.0]] * 3], dtype=KIND)
    first, secant = Secant.empty(x).step(x, A[..., None] * x, GUESS)
    assert torch.equal(first, GUESS)  # nothing is known at first
    slope, secant = secant.step(2 * x, A[..., None] * 2 * x, GUESS)
    return secant, slope


def test_the_slope_of_a_linear_step_is_found() -> None:
    A = torch.tensor([[0.5, -2.0, 0.0], [1.0, 3.0, 0.25]], dtype=KIND)
    torch.testing.assert_close(measured(A)[1], A)


def test_it_is_the_rayleigh_quotient_of_a_matrix() -> None:
    J = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=KIND)
    x, move = torch.zeros(1, 1, 2, dtype=KIND), torch.tensor([[[3.0, 4.0]]], dtype=KIND)
    _, secant = Secant.empty(x).step(x, x @ J.T, GUESS[:1, :1])
    slope, _ = secant.step(move, move @ J.T, GUESS[:1, :1])
    torch.testing.assert_close(slope[0, 0], (move @ J @ move.mT)[0, 0, 0] / 25)


def test_it_stays_where_nothing_moves_or_is_not_finite() -> None:
    A = torch.full((2, 3), 0.5, dtype=KIND)
    secant, slope = measured(A)
    again, _ = secant.step(secant.x, secant.y, GUESS)
    torch.testing.assert_close(again, slope)
    spoiled, _ = secant.step(secant.x + 1, torch.full_like(secant.y, torch.nan), GUESS)
    torch.testing.assert_close(spoiled, slope)


def test_a_move_by_rounding_says_nothing() -> None:
    """One unit in the last place of x beside one of y: a slope of any size."""
    secant, slope = measured(torch.full((2, 3), 0.5, dtype=KIND))
    far = torch.full_like(secant.y, torch.inf)
    again, _ = secant.step(torch.nextafter(secant.x, far), torch.nextafter(secant.y, -far), GUESS)
    torch.testing.assert_close(again, slope)


def test_what_enters_the_window_has_no_slope_yet() -> None:
    """Rows slide by their own number of slots."""
    A = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], dtype=KIND)
    secant = measured(A)[0].shifted(torch.tensor([1, 2]))
    assert secant.known.tolist() == [[True, True, False], [True, False, False]]
    slope, _ = secant.step(secant.x + 1, secant.y + 1, GUESS)  # moves by 1, slope 1, where it was in the window
    want = torch.tensor([[1.0, 1.0, 7.0], [1.0, 7.0, 7.0]], dtype=KIND)
    torch.testing.assert_close(slope, want)


def test_windows_slide() -> None:
    x = torch.arange(6.0).view(2, 3)
    inside, (found,) = slid(torch.tensor([0, 2]), x)
    assert found.tolist() == [[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]]
    assert inside.tolist() == [[True, True, True], [True, False, False]]


def test_the_recurrence_is_the_loop(generator: torch.Generator) -> None:
    for width in (1, 2, 7, 16):
        a = torch.randn(3, width, generator=generator, dtype=KIND)
        b = torch.randn(3, width, 4, generator=generator, dtype=KIND)
        b[:, width // 2 :] = torch.where(
            torch.tensor([True, False, False])[:, None, None], torch.nan, b[:, width // 2 :]
        )
        d, want = torch.zeros(3, 4, dtype=KIND), []
        for j in range(width):
            d = a[:, j, None] * d + b[:, j]
            want.append(d)
        torch.testing.assert_close(recurrence(a, b), torch.stack(want, 1), equal_nan=True)
