"""Norms of matrices, of nonnegative matrices and of convolutions: never below the truth, and close to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.cells import DOUBLE
from torch import Tensor, nn

from settlepoint import certify
from settlepoint.certify import Refused


def matrix_of(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Dense, by applying it to every unit vector: the oracle of all that follows."""
    basis = torch.eye(math.prod(shape), dtype=DOUBLE).reshape(-1, *shape)
    with torch.no_grad():
        return layer(basis).flatten(1).T


def norm_of(layer: nn.Module, shape: tuple[int, ...]) -> float:
    return float(torch.linalg.matrix_norm(matrix_of(layer, shape), 2))


def drawn(module: nn.Module, generator: torch.Generator, signs: bool = True) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            draw = torch.randn if signs else torch.rand
            p.copy_(draw(p.shape, dtype=DOUBLE, generator=generator))
    return module


CONVOLUTIONS = [
    (nn.Conv1d, {"kernel_size": 3, "padding": 1}, (7,)),
    (nn.Conv1d, {"kernel_size": 5, "padding": 2, "padding_mode": "circular"}, (9,)),
    (nn.Conv1d, {"kernel_size": 4, "stride": 2}, (16,)),
    (nn.Conv1d, {"kernel_size": 2, "dilation": 3, "padding": 3}, (8,)),
    (nn.Conv1d, {"kernel_size": 1}, (4,)),
    (nn.Conv1d, {"kernel_size": 3, "padding": 1, "groups": 2}, (6,)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (3, 3)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1}, (12, 12)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}, (6, 6)),
    (nn.Conv2d, {"kernel_size": (1, 4), "padding": (0, 2), "stride": (1, 3)}, (4, 9)),
    (nn.Conv2d, {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2}, (6, 7)),
    (nn.Conv2d, {"kernel_size": 2, "stride": 2}, (6, 6)),
    (nn.Conv3d, {"kernel_size": 2, "padding": 1}, (3, 3, 3)),
    (nn.ConvTranspose1d, {"kernel_size": 3, "stride": 2, "output_padding": 1}, (6,)),
    (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "groups": 2}, (4, 4)),
]


@pytest.mark.parametrize("signs", [True, False], ids=["signs", "positive"])
@pytest.mark.parametrize(("kind", "options", "size"), CONVOLUTIONS)
def test_a_convolution_never_exceeds_its_bound(kind, options, size, signs, generator):
    conv = drawn(kind(2, 4, bias=False, dtype=DOUBLE, **options), generator, signs)
    bound = certify.convolution_norm(conv.get_parameter("weight"), options.get("groups", 1))
    assert norm_of(conv, (2, *size)) <= bound


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_the_bound_of_a_convolution_is_not_of_its_kernel(mode, generator):
    """The flattened kernel of ones has 3 * sqrt(ci co), the operator nearly 9 ci: what torch's spectral_norm misses."""
    conv = nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode, bias=False, dtype=DOUBLE)
    nn.init.ones_(conv.weight)
    flattened = float(torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2))
    true = norm_of(conv, (2, 10, 10))
    assert flattened == pytest.approx(6)
    assert true > 2 * flattened
    assert true <= certify.convolution_norm(conv.weight) <= 18 * 1.011
    if mode == "circular":
        assert true == pytest.approx(18)


def test_the_bound_of_a_circular_convolution_is_close(generator):
    """3 % above the dense matrix at a size of odd frequencies that lie on no grid."""
    conv = drawn(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular", bias=False, dtype=DOUBLE), generator, False)
    assert (
        norm_of(conv, (3, 11, 11))
        <= certify.convolution_norm(conv.get_parameter("weight"))
        <= 1.03 * norm_of(conv, (3, 11, 11))
    )


def test_frequencies_between_the_grid_are_covered():
    """A kernel whose symbol |1 + e^{i t (k - 1)} e^{i s}| peaks between two points of any grid: taps at both ends."""
    for angle in (0.1, 0.7, 1.3):
        for taps in (2, 3, 5, 8, 16):
            W = torch.zeros(2, 2, taps, dtype=DOUBLE)
            W[:, :, 0] = torch.eye(2)
            W[:, :, -1] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
            conv = nn.Conv1d(2, 2, taps, padding=taps - 1, bias=False, dtype=DOUBLE)
            with torch.no_grad():
                conv.weight.copy_(W)
            assert norm_of(conv, (2, 150)) <= certify.convolution_norm(W) <= 2.06


@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("mend", [certify.project_, certify.contractive], ids=["project_", "contractive"])
def test_projections_hold_with_every_padding(mend, mode, kernel, generator):
    """Copies at the edge make an operator larger than its symbol; size 8 x 8."""
    conv = nn.Conv2d(2, 2, kernel, padding=kernel // 2, padding_mode=mode, bias=False, dtype=DOUBLE)
    with torch.no_grad():
        conv.weight.copy_(torch.rand(conv.weight.shape, generator=generator))
    assert norm_of(mend(conv, 0.9), (2, 8, 8)) <= 0.9 * (1 + 1e-6)


def test_projections_leave_normalisations_alone():
    norm = nn.LayerNorm([4, 4])
    certify.project_(norm, 0.9)
    assert torch.equal(norm.weight, torch.ones(4, 4))


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), columns=st.integers(1, 9), share=st.floats(0, 1))
def test_nonnegative_matrices_never_exceed_their_bound(seed, rows, columns, share):
    """Oracle: numpy's singular values; signs are dropped, so of |A|. Some rows and columns are empty."""
    draw = np.random.default_rng(seed)
    A = draw.normal(size=(rows, columns)) * (draw.random((rows, columns)) < share) * 10.0 ** draw.integers(-3, 4)
    bound = certify.nonnegative_norm(sparse.csr_matrix(A))
    true = np.linalg.norm(np.abs(A), 2) if A.any() else 0.0
    assert np.linalg.norm(A, 2) * (1 - 1e-12) <= bound
    assert true * (1 - 1e-12) <= bound <= 1.5 * true


def test_nonnegative_norms_of_graphs_are_close(generator):
    """The adjacency of a path: eigenvalues 2 cos(pi k / (n + 1)), close together, the hardest for power iteration."""
    n = 30
    A = sparse.diags([np.ones(n - 1), np.ones(n - 1)], [-1, 1])  # type: ignore[arg-type]
    assert 2 * math.cos(math.pi / (n + 1)) <= certify.nonnegative_norm(A) <= 2.0


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        (np.zeros((3, 2)), 0.0),
        (np.array([[2.0]]), 2.0),
        (np.diag([1e-120, 1e-130]), 1e-120),
        (np.diag([1e150, 1.0]), 1e150),
        (np.array([[0.0, 1.0], [0.0, 0.0]]), 1.0),
        (np.eye(3)[[0, 0, 0]], math.sqrt(3)),
    ],
    ids=["zero", "one", "tiny", "large", "nilpotent", "copies"],
)
def test_nonnegative_norms_by_hand(matrix, norm):
    found = certify.nonnegative_norm(sparse.csr_matrix(matrix))
    assert norm * (1 - 1e-12) <= found <= norm * (1 + 1e-6)


def test_zeros_that_are_stored_are_zeros():
    """Weights of edges may be 0."""
    A = sparse.csr_matrix((np.zeros(2), ([0, 1], [1, 0])), shape=(2, 2))
    assert certify.nonnegative_norm(A) == 0.0


@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), share=st.floats(0, 1))
def test_the_perron_bound_is_one(seed, size, share):
    """root >= rho(N) by numpy, and N v <= root v for the v that comes with it."""
    draw = np.random.default_rng(seed)
    N = torch.from_numpy(draw.random((size, size)) * (draw.random((size, size)) < share))
    root, v = certify.perron_bound(N)
    assert float(np.abs(np.linalg.eigvals(N.numpy())).max()) <= root * (1 + 1e-9) + 1e-9
    assert bool((v > 0).all())
    assert bool((N @ v <= root * v * (1 + 1e-9)).all())


def test_the_perron_root_of_positive_matrices_is_found():
    N = torch.tensor([[0.1, 3.0], [0.05, 0.2]], dtype=DOUBLE)  # row sums 3.1, ||N||_2 > 3, root .54
    true = float(torch.linalg.eigvals(N).abs().max())
    assert true < 0.6
    assert certify.perron_bound(N)[0] == pytest.approx(true, rel=1e-6)


def test_the_perron_root_of_permutations_and_nothing():
    assert certify.perron_bound(torch.eye(3, dtype=DOUBLE)[[1, 2, 0]])[0] == pytest.approx(1)
    assert certify.perron_bound(torch.zeros(3, 3, dtype=DOUBLE))[0] == 0
    with pytest.raises(ValueError, match="nonnegative"):
        certify.perron_bound(-torch.eye(2, dtype=DOUBLE))


@given(seed=st.integers(0, 10_000), rows=st.integers(0, 9), columns=st.integers(0, 9))
def test_the_spectral_norm_is_rounded_up(seed, rows, columns):
    A = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)))
    true = float(torch.linalg.svdvals(A)[0]) if A.numel() else 0.0
    found = certify.spectral_norm(A)
    assert true <= found <= true * (1 + 1e-13)
    assert certify.spectral_norm(A.float()) == pytest.approx(true, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    weight = torch.full((2, 2, 3), bad)
    for look in (lambda: certify.spectral_norm(weight[0]), lambda: certify.convolution_norm(weight)):
        with pytest.raises(Refused, match="a weight is not finite"):
            look()
    with pytest.raises(Refused, match="a weight is not finite"):
        certify.nonnegative_norm(sparse.csr_matrix(weight[0].numpy()))
