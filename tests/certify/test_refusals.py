"""What has no bound, or no sound one, is refused: the message names it, and the mend."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.cells import DOUBLE
from torch import Tensor, nn

from settlepoint import Equation, Rows, certify
from settlepoint.certify import Refused, Region
from settlepoint.certify.traced import RULES
from settlepoint.layers import pyg

X = torch.linspace(-1, 1, 12, dtype=DOUBLE).reshape(3, 4)
W = torch.linspace(-0.3, 0.4, 16, dtype=DOUBLE).reshape(4, 4)


def by_sign(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def by_item(x: Tensor) -> Tensor:
    return x * x.sum().item()


def through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().numpy() * 0.5)


def alias_read_later(x: Tensor) -> Tensor:
    y = 0.5 * x
    first = y[:, :2]
    y.mul_(3)
    return torch.cat((first, y[:, 2:]), 1)


def written_apart(x: Tensor) -> Tensor:
    y = torch.zeros(3, 4, dtype=DOUBLE)
    y[:, 1:] = x[:, :-1]
    return y


def normed(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


REFUSED = {
    "branches on the sum": (by_sign, r"branches on values|no bound is known for .*gt"),
    "takes the sum out": (by_item, "branches on values that depend on its state, or takes them out of torch"),
    "NumPy inside": (through_numpy, r"takes them out of torch|NumPy inside"),
    "x / ||x|| by hand": (normed, r"no bound is known for .*norm; register one with certify.rule"),
    "x / ||x||": (lambda x: F.normalize(x), r"not Lipschitz at 0; leave the normalisation out .*or add an eps"),
    "a threshold": (lambda x: torch.where(x > 0, x, 2 * x), r"no bound is known for .*gt|switches"),
    "a gate by comparison": (lambda x: x * (x > 0), "no bound is known for .*gt"),
    "argmax": (lambda x: x + F.one_hot(x.argmax(1), 4), "no bound is known for .*argmax"),
    "round": (lambda x: torch.round(x), "no bound is known for .*round"),
    "floor": (lambda x: x.floor() + x, "no bound is known for .*floor"),
    "sort": (lambda x: x.sort(1).values, "no bound is known for .*sort"),
    "picks by its state": (lambda x: x[:, x[0].long().clamp(0, 3)], r"no bound is known for .*long|picks entries"),
    "division that rounds": (lambda x: torch.div(x, 2, rounding_mode="floor"), "rounds is not continuous"),
    "in place, read by an older name": (alias_read_later, r"in place and reads an older name|no bound is known"),
    "written into a tensor made apart": (written_apart, r"writes into a tensor made apart .*write y = f\(x\)"),
    "float16 on the way": (lambda x: x.half().double(), r"rounds its state to torch.float16|no bound is known for"),
    "bfloat16 on the way": (lambda x: x.to(torch.bfloat16).double(), "rounds its state to torch.bfloat16"),
    "integers on the way": (lambda x: x.to(torch.int64).double(), r"rounds its state to torch.int64"),
    "a weight that is NaN": (lambda x: x @ (W * math.nan), "not finite"),
    "a weight that is infinite": (lambda x: F.linear(x, W / 0), "not finite"),
    "a factor that is NaN": (lambda x: x * math.nan, "not finite|give example|no bound"),
    "a quotient near 0": (lambda x: 1 / x, "may divide by 0: it has a bound only near a point away from 0"),
    "a logarithm": (lambda x: x.log(), "may meet 0: it has a bound only near a point away from 0"),
    "no state at all": (lambda x: torch.ones(3, 4, dtype=DOUBLE), "does not depend on the state through torch"),
    "weights from the state": (lambda x: F.linear(x, torch.tanh(x)), "weights depend on the state"),
    "a layer of your own": (lambda x: torch.special.bessel_j0(x), "register one with certify.rule"),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_thing(name):
    operator, message = REFUSED[name]
    with pytest.raises(Refused, match=message):
        certify.lipschitz_upper(operator, example=(X,))


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("name", ["branches on the sum", "round", "argmax", "a layer of your own", "sort"])
def test_what_has_no_bound_has_no_proof(name):
    """The reason of the refusal of every proof is the same."""
    operator, _ = REFUSED[name]
    for method in ("banach", "graph", "perron", "ball", "kantorovich"):
        found = certify.certificate(Equation(lambda x: 0.1 * operator(x)), X, method)
        assert found.counts() == {"refused": 3}, method
        assert bool(torch.isinf(found.radius).all())
        assert not found.unique_in.any()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x)[0]


def test_dot_products_want_a_region():
    """And get a bound on one, whatever weights the module gives back beside the values."""
    with pytest.raises(Refused, match=r"no bound on the whole space; it has one on a ball \(region=\)"):
        certify.lipschitz_upper(Attention(), example=(torch.zeros(1, 3, 4),))
    assert certify.lipschitz_upper(Attention(), Region(1.0, tokens=3)) < 100


def test_graph_attention_has_no_constant():
    """Its weights depend on the state."""
    edges = torch.tensor([[0, 1, 2, 2], [1, 0, 1, 2]])
    conv = pyg().GATConv(4, 4, add_self_loops=False).double().eval()
    with pytest.raises(Refused, match=r"whole space|no bound"):
        certify.lipschitz_upper(conv, example=(X, edges))
    assert math.isfinite(certify.lipschitz_upper(conv, Region(0.5), example=(X, edges)))


def test_a_rule_of_your_own_is_followed():
    """|J0'| <= .582 and |J0''| <= 1/2 (scipy.special.jvp on a grid says .5819 and .5)."""
    bessel = torch.special.bessel_j0
    certify.rule(bessel)(lambda y, x: x.bound.mapped(0.582, 0.5, cap=1.0))
    try:
        assert certify.lipschitz_upper(lambda x: bessel(0.5 * x)) == pytest.approx(0.291)
        assert certify.curvature_upper(lambda x: bessel(0.5 * x)) == pytest.approx(0.125)
    finally:
        del RULES[bessel]


# ---- training, and what a look may change --------------------------------------------------------------------------


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def unchanged(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(before[name], t) for name, t in module.state_dict().items())


NORMS = {
    "batch": nn.BatchNorm1d(4),
    "batch without statistics": nn.BatchNorm1d(4, track_running_stats=False),
    "instance": nn.InstanceNorm1d(3, track_running_stats=True),
}


@pytest.mark.parametrize("closed", [False, True], ids=["module", "closure"])
@pytest.mark.parametrize("name", NORMS)
def test_norms_in_training_are_refused_and_left_alone(name, closed, generator):
    """In closures too, whose modules cannot be seen from outside."""
    module = NORMS[name].double().train()
    x = torch.randn((5, 4) if name != "instance" else (5, 3, 4), dtype=DOUBLE, generator=generator)
    operator = (lambda x: 0.1 * module(x)) if closed else module
    before = state_of(module)
    message = "in training; call .eval()|rows depend on each other|no bound"
    if not (closed and name == "instance"):
        with pytest.raises(Refused, match=message):
            certify.lipschitz_upper(operator, example=(x,))
        found = certify.certificate(Equation(operator), x)
        assert "proved" not in found.counts()
    else:
        certify.certificate(Equation(operator), x)
    assert unchanged(module, before)


@pytest.mark.parametrize(
    "operator",
    [
        nn.Dropout(0.5),
        nn.Sequential(nn.Linear(4, 4, dtype=DOUBLE), nn.AlphaDropout(0.1)),
        lambda x: F.dropout(x, 0.5),
        lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], dropout_p=0.5)[:, 0],
        lambda x: 0.5 * x + 0.1 * torch.rand_like(x),
        lambda x: 0.5 * x + 0.1 * torch.randn(x.shape, dtype=x.dtype),
    ],
    ids=["Dropout", "AlphaDropout", "dropout", "attention", "rand_like", "randn"],
)
def test_random_operators_are_refused(operator):
    found = certify.certificate(Equation(operator), X)
    assert found.counts() == {"refused": 3}
    assert all("random" in reason or "eval()" in reason for reason in found.reason), found.reason


@pytest.mark.parametrize("operator", [nn.Dropout(0.5), lambda x: 0.5 * torch.tanh(x)], ids=["Dropout", "tanh"])
def test_a_look_draws_no_random_numbers(operator):
    before = torch.get_rng_state()
    certify.certificate(Equation(operator), X)
    certify.spectral_radius(Equation(torch.tanh), X)
    certify.lipschitz_estimate(Equation(torch.tanh), X)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_in_evaluation_is_nothing():
    layer = nn.Sequential(nn.Linear(4, 4, dtype=DOUBLE), nn.Dropout(0.5)).eval()
    assert certify.lipschitz_upper(layer) == certify.lipschitz_upper(layer[0])


def test_layers_in_place_are_followed():
    """ReLU(inplace=True) behind a layer, as in most image models."""
    layer = nn.Linear(4, 4, dtype=DOUBLE)
    net = nn.Sequential(layer, nn.ReLU(inplace=True), nn.Hardtanh(inplace=True), nn.ELU(inplace=True))
    assert certify.lipschitz_upper(net) == pytest.approx(certify.lipschitz_upper(layer))


@pytest.mark.parametrize("look", ["certificate", "lipschitz_upper"])
def test_operators_in_place_do_not_reach_the_caller(look):
    x = torch.ones(2, 3, dtype=DOUBLE)
    if look == "certificate":
        with pytest.raises(ValueError, match="operator must not change its input in place"):
            certify.certificate(Equation(lambda x: x.mul_(0.5)), x)
    else:
        certify.lipschitz_upper(lambda x: x.mul_(0.5), example=(x,))
    assert torch.equal(x, torch.ones(2, 3, dtype=DOUBLE))


# ---- arguments that were not given ---------------------------------------------------------------------------------

GATES = {
    "a factor": lambda x, u: x * u,
    "a gate by comparison": lambda x, u: 5 * x * (u > 0),
    "a gate by sigmoid of a large factor": lambda x, u: torch.exp(u) * x,
    "a branch": lambda x, u: 5 * x if u.sum() > 0 else x,
    "no NaN": lambda x, u: x * torch.nan_to_num(u),
    "a choice": lambda x, u: torch.where(u > 0, 5 * x, x),
    "a gate through vmap": lambda x, u: x * torch.vmap(lambda v: (v > 0).to(v.dtype))(u),
    "a matrix": lambda x, u: x @ u.T @ u,
    "a scale of a norm": lambda x, u: F.layer_norm(x, (4,), weight=u[0]),
    "a place": lambda x, u: x[:, [int(u.sum()) % 4, 0, 0, 0]],
}


@pytest.mark.parametrize("name", GATES)
def test_context_that_matters_must_be_given(name):
    """Or be counted for all its values: 5 x where u > 0 has 5, not 0."""
    try:
        bound = certify.lipschitz_upper(GATES[name])
    except Refused:
        return
    high = torch.full((1, 4), 3.0)
    true = torch.func.jacrev(lambda x: GATES[name](x, high))(torch.ones(1, 4)).reshape(4, 4)
    assert float(torch.linalg.matrix_norm(true, 2)) <= bound * (1 + 1e-5)


def test_context_that_is_added_does_not_matter():
    assert certify.lipschitz_upper(lambda x, u: torch.tanh(x + u)) == 1
    assert certify.lipschitz_upper(lambda x, u, v: torch.sin(0.5 * x - u) + v) == pytest.approx(0.5)
    assert certify.curvature_upper(lambda x, u: torch.tanh(x + u)) == pytest.approx(0.7698, rel=1e-3)


@pytest.mark.parametrize("kinked", [torch.relu, torch.abs, F.hardtanh, F.leaky_relu])
def test_a_kink_may_be_anywhere_where_context_is_not_given(kinked):
    """relu(x + u) has no curvature bound on the whole space, whatever u; near a point of a given u it may have."""
    with pytest.raises(Refused, match="derivative jumps"):
        certify.curvature_upper(lambda x, u: kinked(x + u))
    x, u = torch.ones(1, 4), torch.full((1, 4), 7.0)
    assert certify.curvature_upper(lambda x, u: kinked(x + u), Region(1.0), example=(x, u)) == 0


def test_context_that_is_given_counts():
    x, u = torch.zeros(1, 4), torch.full((1, 4), 2.0)
    assert certify.lipschitz_upper(lambda x, u: torch.tanh(x) * u, example=(x, u)) == pytest.approx(2)


def test_edges_are_context_of_any_shape():
    """Of graphs the context is no row of the state."""
    edges = torch.tensor([[0, 1, 2], [1, 0, 0]])
    conv = pyg().GCNConv(4, 4).double()
    assert 0 < certify.lipschitz_upper(conv, example=(X, edges)) < 10


# ---- states --------------------------------------------------------------------------------------------------------


def test_complex_states_have_no_bound():
    found = certify.certificate(Equation(lambda x: 0.5 * x), X.to(torch.complex128), "banach")
    assert found.counts() == {"refused": 3}
    assert "bounds are known for real states" in found.reason[0]


def test_weights_of_the_space_are_no_plain_norm():
    space = Rows(weights=torch.arange(1.0, 5.0, dtype=DOUBLE))
    for method in ("banach", "graph", "perron", "kantorovich"):
        found = certify.certificate(Equation(lambda x: 0.5 * x, space=space), X, method)
        assert found.counts() == {"refused": 3}
        assert "the rows of this space have weights" in found.reason[0]


def test_shapes_are_guessed_from_the_first_layer_or_asked_for():
    conv = nn.Conv2d(2, 2, 3)
    assert certify.lipschitz_upper(conv) > 0
    with pytest.raises(Refused, match=r"does not take a state of the guessed shape .*give example="):
        certify.lipschitz_upper(lambda x: x.reshape(7, 11) @ torch.ones(11, 2))
