"""Newton-Krylov: Newton's method whose linear systems are solved by Krylov vectors from Jacobian-vector products."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from settlepoint.equation import Equation
from settlepoint.solvers.solver import Solver, State, alike, guarded_ratio, placed, rowwise, select_state, sound


@dataclass(frozen=True)
class NewtonKrylovState(State):
    """directions u_j and images c_j = (I - J) u_j, c orthonormal: (R, m, W), zero where empty.

    base, base_r: (R, W), the iterate the last Newton step started from and its residual; move: (R, W), that step, and
    rest: (R, W), what a linear P would leave as residual after it; fraction: (R,), the share of it that was tried
    last; norm: (R,), |base_r|; made: 0-d count of vectors made.
    """

    directions: Tensor
    images: Tensor
    base: Tensor
    base_r: Tensor
    move: Tensor
    rest: Tensor
    fraction: Tensor
    norm: Tensor
    made: Tensor


class NewtonKrylov(Solver):
    """x_{k+1} = x_k + t d,  (I - P'(x_k)) d = r_k by GMRES on true Jacobian-vector products        (Knoll & Keyes 2004)

    GMRES in its residual-minimising form (GCR with Walker & Zhou's directions where the residual stands still): every
    vector is one product u - P'(x) u. Rows are independent, nothing is read on the host.

    inner: products a step. restart: vectors kept. A row whose last step left the residual that its linear model
    foretold keeps its vectors for the next step, so that inner may be small and yet a linear problem sees GMRES without
    restart (up to `restart` vectors; then the oldest is replaced); elsewhere the Jacobian has moved, and they go.
    Line search, per row: a step after which the residual has not fallen enough is halved at the next evaluation.
    """

    def __init__(self, inner: int = 8, restart: int = 30, halvings: int = 8):
        super().__init__()
        for name, value in (("inner", inner), ("restart", restart), ("halvings", halvings)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if restart < inner:
            raise ValueError(f"restart must be at least inner, got restart={restart}, inner={inner}")
        self.inner, self.restart, self.halvings = inner, restart, halvings
        self.recovery, self.calls = halvings, inner

    def extra_repr(self) -> str:
        return f"inner={self.inner}, restart={self.restart}, halvings={self.halvings}"

    def init(self, eq: Equation, z: Tensor, r: Tensor) -> NewtonKrylovState:
        empty = z.new_zeros(len(z), self.restart, z.shape[1])
        zero, infinite = torch.zeros_like(z), z.new_full((len(z),), float("inf"))
        made = z.new_zeros((), dtype=torch.int64)
        return NewtonKrylovState(empty, empty.clone(), z, r, zero, zero, z.new_zeros(len(z)), infinite, made)

    def resume(self, eq: Equation, z: Tensor, r: Tensor, state) -> NewtonKrylovState:
        fresh = self.init(eq, z, r)
        if not isinstance(state, NewtonKrylovState) or not alike(state.images, fresh.images):
            return fresh
        kept = replace(fresh, directions=state.directions, images=state.images, rest=r, made=state.made)
        return select_state(sound(state), kept, fresh)  # pyright: ignore[reportReturnType]

    def step(
        self, eq: Equation, z: Tensor, r: Tensor, state: NewtonKrylovState
    ) -> tuple[Tensor, NewtonKrylovState, int]:
        norm, t = eq.norm(r), state.fraction
        refused = ~(norm <= (1 - 1e-4 * t) * state.norm) & (t > 0.5**self.halvings)
        foretold = eq.norm(r - state.rest) <= 0.1 * norm
        column = rowwise(refused, z)
        base, base_r = torch.where(column, state.base, z), torch.where(column, state.base_r, r)
        images = _cleared(state.images, ~(foretold | refused))
        move, rest, directions, images, made = self._newton(eq, base, base_r, state.directions, images, state.made)
        fraction = torch.where(refused, 0.5 * t, torch.ones_like(t))
        move, norm = torch.where(column, state.move, move), torch.where(refused, state.norm, norm)
        new = NewtonKrylovState(directions, images, base, base_r, move, rest, fraction, norm, made)
        return base + rowwise(fraction, z) * move, new, self.inner

    def _newton(self, eq: Equation, z: Tensor, r: Tensor, directions: Tensor, images: Tensor, made: Tensor):
        """Approximate solution d of (I - J) d = r, what it leaves, and the Krylov vectors grown by `inner`."""
        known = eq.gram(r[:, None], images)  # (R, 1, m): project on what earlier steps know
        d, rest = torch.bmm(known, directions)[:, 0], r - torch.bmm(known, images)[:, 0]
        last, shrunk = rest, torch.ones_like(z[:, 0], dtype=torch.bool)
        for _ in range(self.inner):
            u, c = self._vector(eq, z, torch.where(rowwise(shrunk, z), rest, last), directions, images)
            y, before = rowwise(eq.dot(c, rest), z), eq.norm(rest)
            d, rest, last = d + y * u, rest - y * c, c
            shrunk = eq.norm(rest) <= 0.9 * before
            slot = (made % self.restart).reshape(1)
            directions, images, made = placed(directions, u, slot), placed(images, c, slot), made + 1
        return d, rest, directions, images, made

    def _vector(self, eq: Equation, z: Tensor, v: Tensor, directions: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """u along v and c = (I - J) u, c of length 1 and orthogonal to images; both zero where v brings nothing new."""
        u = v * rowwise(guarded_ratio(torch.ones_like(v[:, 0]), eq.norm(v), 0.0), v)
        c = u - torch.func.jvp(eq.flat, (z,), (u,))[1].to(z.dtype)  # 0-d states come back in float64
        length = eq.norm(c)
        for _ in range(2):  # twice is enough: orthogonal to rounding, also in float32
            h = eq.gram(c[:, None], images)
            c, u = c - torch.bmm(h, images)[:, 0], u - torch.bmm(h, directions)[:, 0]
        left = eq.norm(c)
        new = left > torch.finfo(z.dtype).eps ** 0.5 * length
        size = rowwise(torch.where(new, guarded_ratio(torch.ones_like(left), left, 0.0), torch.zeros_like(left)), z)
        return u * size, c * size


def _cleared(history: Tensor, rows: Tensor) -> Tensor:
    """history (R, m, W) with zeros in those rows; overwritten in place where no graph is kept."""
    if torch.is_grad_enabled():
        return history * rowwise(~rows, history)
    return history.mul_(rowwise(~rows, history))
