"""linear_solve through the calls that SciPy's own users make. Oracles: SciPy's gmres and numpy.linalg.solve."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator, gmres, spilu

from settlepoint import R2N2, Anderson, Safeguarded
from settlepoint.compat.scipy import linear_solve


def grid(m: int, wind: float = 0.0) -> sp.csr_array:
    """The five-point Laplacian on m x m points, with a wind across it."""
    line = sp.diags_array([-1.0 - wind, 2.0, -1.0 + wind], offsets=[-1, 0, 1], shape=(m, m))
    return sp.csr_array(sp.kron(sp.eye_array(m), line) + sp.kron(line, sp.eye_array(m)))


def dense(n: int, seed: int, dtype=float) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with its spectrum around 3, and a right-hand side."""
    rng = np.random.default_rng(seed)
    noise, b = rng.normal(size=(2, n, n)), rng.normal(size=(2, n))
    A = 3 * np.eye(n) + (noise[0] + (1j * noise[1] if np.iscomplexobj(dtype()) else 0)) / (2 * n**0.5)
    return A.astype(dtype), (b[0] + (1j * b[1] if np.iscomplexobj(dtype()) else 0)).astype(dtype)


def relative(A, x, b) -> float:
    return np.linalg.norm(b - A @ x) / np.linalg.norm(b)


def counted(A) -> tuple[LinearOperator, list]:
    """A as an operator that only multiplies, and a list that grows with every product."""
    calls: list = []

    def product(v):
        calls.append(1)
        return A @ v

    return LinearOperator(A.shape, matvec=product, dtype=A.dtype), calls


# ---- side by side with gmres ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "A",
    [dense(30, 0)[0], grid(8), grid(8, 0.5), 1e-10 * dense(20, 1)[0], np.array([[0.0, 1.0], [-1.0, 0.0]]), [[4.0]]],
    ids=["dense", "poisson", "wind", "tiny", "rotation", "one"],
)
@pytest.mark.parametrize("rtol", [1e-3, 1e-10])
def test_both_meet_the_tolerance(A, rtol):
    A = A if sp.issparse(A) else np.asarray(A)
    b = np.random.default_rng(5).normal(size=A.shape[0])
    x, info = linear_solve(A, b, rtol=rtol)
    peer, peer_info = gmres(A, b, rtol=rtol)
    assert info == peer_info == 0
    assert relative(A, x, b) <= rtol
    assert relative(A, peer, b) <= rtol
    assert x.shape == peer.shape
    assert x.dtype == peer.dtype


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, sp.csr_matrix, sp.coo_array, aslinearoperator])
def test_every_form_of_a_gives_the_same_x(form):
    A, b = dense(12, 0)
    x, info = linear_solve(form(A), b, rtol=1e-12)
    assert info == 0
    assert np.allclose(x, np.linalg.solve(A, b), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("other", [np.float32, np.float64, np.complex128])
def test_dtypes_come_out_as_scipy_s(dtype, other):
    A, b = dense(12, 0, dtype)[0], dense(12, 0, other)[1]
    x, info = linear_solve(A, b)
    peer, _ = gmres(A, b)
    assert info == 0
    assert x.dtype == peer.dtype
    assert relative(A, x, b) <= 1e-5 * (1 + 1e-3)


def test_integers_are_solved_in_double():
    A, b = np.array([[2, 1], [0, 4]]), np.array([4, 8])
    x, info = linear_solve(A, b, rtol=1e-12)
    assert (x.dtype, info) == (np.float64, 0)
    assert np.allclose(x, [1.0, 2.0])


def test_a_column_is_a_vector():
    A, b = dense(6, 0)
    x, info = linear_solve(A, b[:, None], x0=np.ones((6, 1)))
    assert info == 0
    assert x.shape == gmres(A, b[:, None])[0].shape == (6,)


def test_reversed_swapped_and_locked_arrays_are_read():
    """Negative strides, foreign byte order and read-only memory: torch would refuse or warn."""
    A, b = dense(6, 0)
    locked = A.copy()
    locked.flags.writeable = False
    x, info = linear_solve(locked, b[::-1].astype(">f8"), x0=np.ones(6)[::-1], rtol=1e-12)
    assert info == 0
    assert np.allclose(x, np.linalg.solve(A, b[::-1]))


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 1000), st.sampled_from([1e-2, 1e-6, 1e-11]), st.booleans())
def test_zero_is_only_said_of_small_residuals(n, seed, rtol, skewed):
    """Whatever the matrix: info is 0 exactly when the residual is within the tolerance."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(n, n)), rng.normal(size=n)
    A = A - A.T if skewed else A  # singular for odd n
    x, info = linear_solve(A, b, rtol=rtol, maxiter=6)
    assert (info == 0) == (np.linalg.norm(b - A @ x) <= rtol * np.linalg.norm(b) * (1 + 1e-6))
    assert 0 <= info <= 6


def test_products_stay_near_those_of_gmres():
    """At most one look in ten products, ten products too many, and two to begin with."""
    A = grid(12, 0.3)
    b = np.random.default_rng(0).normal(size=144)
    ours, calls = counted(A)
    theirs, peer_calls = counted(A)
    assert linear_solve(ours, b, restart=144)[1] == gmres(theirs, b, restart=144)[1] == 0
    assert len(calls) <= 1.1 * len(peer_calls) + 12


def test_small_residuals_are_reached_by_a_second_round():
    """In float32 the first round stops at the rounding of x; a round from there halves the residual on."""
    A, b = dense(40, 3, np.float32)
    x, info = linear_solve(A, b, rtol=1e-6)
    assert info == 0
    assert np.linalg.norm(b - A @ x) <= 1e-6 * np.linalg.norm(b) * (1 + 1e-3)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
@pytest.mark.parametrize("right", [1e-30, 1e30, 1e-100])
@pytest.mark.parametrize("solver", [None, Anderson(8)], ids=["GMRES", "Anderson"])
def test_units_do_not_matter(size, right, solver):
    """Squares of these numbers over- and underflow. A given solver iterates x - (A x - b) and wants A near 1."""
    A, b = dense(12, 0)
    A, b = A * (size if solver is None else 1 / 3), b * right
    x, info = linear_solve(A, b, rtol=1e-10, solver=solver)
    assert info == 0
    assert np.allclose(x / right, np.linalg.solve(A, b / right))


# ---- tolerances, x0, maxiter ---------------------------------------------------------------------------------------


def test_atol_counts_where_it_is_larger():
    A, b = grid(12), np.ones(144)
    x, info = linear_solve(A, b, rtol=0.0, atol=0.5)
    assert info == 0
    assert 1e-4 < np.linalg.norm(b - A @ x) <= 0.5


def test_a_start_that_is_good_enough_is_returned():
    A, b = dense(30, 0)
    exact = np.linalg.solve(A, b)
    op, calls = counted(A)
    x, info = linear_solve(op, b, exact)
    assert (info, len(calls)) == (0, 1)
    assert np.array_equal(x, exact)
    assert x is not exact


def test_mb_starts_at_the_preconditioner_s_answer():
    A, b = dense(30, 0)
    x, info = linear_solve(A, b, "Mb", M=np.linalg.inv(A))
    assert info == 0
    assert np.allclose(x, np.linalg.inv(A) @ b)


def test_nothing_to_solve():
    A, _ = dense(5, 0)
    x, info = linear_solve(A, np.zeros(5), x0=np.ones(5))
    peer, peer_info = gmres(A, np.zeros(5), x0=np.ones(5))
    assert info == peer_info == 0
    assert np.array_equal(x, peer)
    assert linear_solve(np.zeros((0, 0)), np.zeros(0))[1] == 0


def test_running_out_is_told_as_scipy_tells_it():
    A, b = grid(10), np.ones(100)
    assert linear_solve(A, b, rtol=1e-12, restart=3, maxiter=2)[1] == gmres(A, b, rtol=1e-12, restart=3, maxiter=2)[1]


def test_a_singular_system_ends():
    x, info = linear_solve(np.diag([1.0, 0.0]), np.ones(2))
    assert info > 0
    assert np.allclose(x[0], 1.0)
    assert linear_solve(np.zeros((3, 3)), np.ones(3))[1] > 0


def test_a_start_is_never_made_worse():
    x, info = linear_solve(np.zeros((3, 3)), np.ones(3), x0=[1.0, 2.0, 3.0])
    assert info > 0
    assert x.tolist() == [1.0, 2.0, 3.0]


# ---- preconditioners -----------------------------------------------------------------------------------------------


def test_a_preconditioner_saves_products():
    A = grid(20)
    b = np.random.default_rng(0).normal(size=400)
    M = LinearOperator(A.shape, matvec=spilu(sp.csc_array(A), drop_tol=1e-2).solve)
    plain, plain_calls = counted(A)
    helped, helped_calls = counted(A)
    linear_solve(plain, b, rtol=1e-8)
    x, info = linear_solve(helped, b, rtol=1e-8, M=M)
    assert info == 0
    assert relative(A, x, b) <= 1e-8
    assert len(helped_calls) < 0.5 * len(plain_calls)


def test_a_preconditioner_changes_no_tolerance():
    """M scales the rows by a million; the residual that counts is still b - A x."""
    A, b = dense(20, 0)
    for size in (1e-6, 1e6):
        x, info = linear_solve(A, b, M=size * np.eye(20), rtol=1e-9)
        assert info == 0
        assert relative(A, x, b) <= 1e-9


# ---- callbacks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pr_norm", "legacy"])
def test_norms_are_those_of_gmres(kind):
    """Within one cycle GMRES has no choice: norm by norm the same, and as many."""
    A, b = dense(30, 0)
    ours, theirs = [], []
    linear_solve(A, b, rtol=1e-9, restart=30, callback=ours.append, callback_type=kind)
    gmres(A, b, rtol=1e-9, restart=30, callback=theirs.append, callback_type=kind)
    assert len(ours) == len(theirs) > 5
    assert np.allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("maxiter", [1, 7, 13])
def test_legacy_counts_products(maxiter):
    """callback_type None is "legacy"."""
    A, b = grid(10), np.ones(100)
    norms: list = []
    _, info = linear_solve(A, b, rtol=1e-12, maxiter=maxiter, callback=norms.append)
    assert len(norms) == info == maxiter


def test_iterates_end_at_the_solution():
    A, b = grid(10, 0.3), np.random.default_rng(0).normal(size=100)
    seen: list = []
    x, info = linear_solve(A, b, restart=10, callback=seen.append, callback_type="x")
    assert info == 0
    assert len(seen) > 1
    assert np.array_equal(seen[-1], x)
    sizes = [relative(A, s, b) for s in seen]
    assert sizes == sorted(sizes, reverse=True)


def test_what_a_callback_raises_comes_through():
    class Enough(Exception):
        pass

    def stop(_):
        raise Enough

    for kind in ("x", "pr_norm"):
        with pytest.raises(Enough):
            linear_solve(grid(6), np.ones(36), restart=3, callback=stop, callback_type=kind, rtol=1e-12)


# ---- solvers of ours -----------------------------------------------------------------------------------------------


def optimal(A: np.ndarray, n: int) -> R2N2:
    """R2N2 whose residual polynomial is prod_j (1 - t/t_j) with t_j the Chebyshev points of A's spectrum."""
    low, high = np.linalg.eigvalsh(A)[[0, -1]]
    points = (low + high) / 2 + (high - low) / 2 * np.cos((2 * np.arange(n) + 1) * np.pi / (2 * n))
    inner = [w for j in range(1, n) for w in [1 / points[i] for i in range(j)]]
    return R2N2(n, theta=[*inner, *(1 / points)])


def test_a_learned_solver_solves():
    """Weights for x - (A x - b): each step shrinks the residual by Chebyshev's bound 1/T_n."""
    A = np.diag(np.linspace(1.0, 5.0, 40))
    b = np.random.default_rng(0).normal(size=40)
    norms: list = []
    x, info = linear_solve(A, b, rtol=1e-10, solver=optimal(A, 4), callback=norms.append, callback_type="pr_norm")
    assert info == 0
    assert relative(A, x, b) <= 1e-10
    bound = 1 / np.cosh(4 * np.arccosh(6 / 4))
    assert all(b <= bound * a * (1 + 1e-6) for a, b in zip([1.0, *norms], norms, strict=False))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("solver", [Anderson(8), Safeguarded(R2N2(2), Anderson(8))], ids=["Anderson", "Safeguarded"])
def test_any_solver_may_be_given(solver, dtype):
    A, b = dense(20, 0, dtype)
    x, info = linear_solve(A / 3, b, solver=solver, rtol=1e-8)
    assert info == 0
    assert relative(A / 3, x, b) <= 1e-8


def test_a_solver_that_diverges_is_not_believed():
    """x - (A x - b) expands by 9: the start is returned, with info > 0."""
    x, info = linear_solve(10 * np.eye(4), np.ones(4), x0=np.zeros(4), solver=R2N2(3))
    assert info > 0
    assert np.linalg.norm(10 * x - 1) <= 2.0 + 1e-12


def test_steps_of_a_solver_count():
    A, b = dense(20, 0)
    seen: list = []
    _, info = linear_solve(A / 3, b, solver=Anderson(3), rtol=1e-14, maxiter=4, callback=seen.append, callback_type="x")
    assert len(seen) == info == 4


# ---- tensors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [torch.Tensor.to_dense, torch.Tensor.to_sparse])
def test_tensors_in_tensors_out(form):
    A, b = (torch.from_numpy(v) for v in dense(12, 0))
    x, info = linear_solve(form(A), b, rtol=1e-12)
    assert info == 0
    assert isinstance(x, torch.Tensor)
    assert torch.allclose(x, torch.linalg.solve(A, b))
    assert isinstance(linear_solve(form(A), b.numpy())[0], np.ndarray)
    assert isinstance(linear_solve(A.numpy(), b)[0], torch.Tensor)


def test_the_operator_may_reuse_its_buffer_and_write_into_its_input():
    A, b = dense(12, 0)
    buffer = np.empty(12)

    def product(v):
        buffer[:] = A @ v
        v[:] = np.nan
        return buffer

    x, info = linear_solve(LinearOperator((12, 12), matvec=product, dtype=float), b, rtol=1e-10)
    assert info == 0
    assert relative(A, x, b) <= 1e-10


def test_what_is_given_is_not_changed():
    A, b = dense(12, 0)
    x0, kept = np.ones(12), (A.copy(), b.copy())
    linear_solve(A, b, x0)
    assert np.array_equal(A, kept[0])
    assert np.array_equal(b, kept[1])
    assert np.array_equal(x0, np.ones(12))


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["A", "b", "x0", "M"])
def test_no_success_with_nan_or_inf(bad, where):
    A, b = dense(6, 0)
    given = {"A": A, "b": b, "x0": np.zeros(6), "M": np.eye(6)}
    given[where] = given[where].copy()
    given[where].flat[0] = bad
    with np.errstate(all="ignore"):
        _, info = linear_solve(**given)
    assert info > 0


def test_nan_that_comes_later():
    """The operator breaks down on its fourth product: the best finite x is returned."""
    A, b = dense(30, 0)
    calls: list = []

    def product(v):
        calls.append(1)
        return A @ v * (np.nan if len(calls) > 3 else 1.0)

    x, info = linear_solve(LinearOperator((30, 30), matvec=product, dtype=float), b)
    assert info > 0
    assert np.isfinite(x).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": np.ones((3, 4))}, "square"),
        ({"b": np.ones(4)}, r"b must have shape \(3,\) or \(3, 1\)"),
        ({"x0": np.ones(4)}, "x0 must have shape"),
        ({"M": np.eye(4)}, r"M must have the shape of A, \(3, 3\), got \(4, 4\)"),
        ({"atol": -1.0}, "atol must be a number >= 0, got -1.0"),
        ({"atol": None}, "atol"),
        ({"atol": "legacy"}, "atol"),
        ({"rtol": float("nan")}, "rtol must be a number >= 0, got nan"),
        ({"callback_type": "norm"}, "callback_type"),
        ({"restart": 0}, "restart must be an integer >= 1"),
        ({"maxiter": 0}, "maxiter must be an integer >= 1"),
        ({"b": torch.ones(3, requires_grad=True)}, "b must not require grad"),
    ],
)
def test_wrong_calls_raise(change, message):
    with pytest.raises(ValueError, match=message):
        linear_solve(**({"A": np.eye(3), "b": np.ones(3)} | change))


def test_wrong_kinds_raise():
    with pytest.raises(TypeError, match="solver must be a Solver"):
        linear_solve(np.eye(3), np.ones(3), solver="anderson")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        linear_solve("A", np.ones(3))


def test_a_product_of_the_wrong_kind_is_named():
    op = LinearOperator((3, 3), matvec=lambda v: 1j * v, dtype=float)
    with pytest.raises(ValueError, match=r"A.matvec must return real numbers for real ones, got complex128"):
        linear_solve(op, np.ones(3))


def test_what_the_operator_raises_comes_through():
    calls: list = []

    def product(v):
        calls.append(1)
        if len(calls) > 3:
            raise ArithmeticError("no more")
        return 2 * v + np.roll(v, 1)

    with pytest.raises(ArithmeticError, match="no more"):
        linear_solve(LinearOperator((9, 9), matvec=product, dtype=float), np.arange(9.0))


@pytest.mark.parametrize(
    "solver", [Anderson(3), R2N2(3, output="least_squares", carry=2)], ids=lambda s: type(s).__name__
)
def test_without_a_solution_the_best_iterate_comes_back(solver):
    """Not the last one, which has run away to 1e16 by then."""
    A, b = np.ones((2, 2)), np.array([1.0, 2.0])
    x, info = linear_solve(A, b, solver=solver)
    assert info > 0
    assert np.linalg.norm(b - A @ x) <= np.linalg.norm(b)
    assert np.abs(x).max() < 1e3
