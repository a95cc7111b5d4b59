"""Solver files: what is written comes back, and nothing else is believed or run."""

from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.cells import DOUBLE, affine

from settlepoint import (
    R2N2,
    Aitken,
    Anderson,
    Broyden,
    Chebyshev,
    FirstStep,
    FixedSteps,
    Halpern,
    Mann,
    NewtonKrylov,
    Picard,
    Safeguarded,
    solve,
)
from settlepoint.learn import SolverFileError, evidence, load, save

LEARNED = R2N2(3, theta=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
STEP = FirstStep(Anderson(2), 1, coefficients=[0.0, 3.0, 0.1], low=[-3.0, -3.0], high=[3.0, 3.0])


def header(solver: str = repr(LEARNED), **changes) -> str:
    return json.dumps({"format": 1, "version": "0.1.0", "solver": solver, "evidence": {}} | changes)


def weights(solver=LEARNED) -> dict[str, torch.Tensor]:
    return {k: v.detach() for k, v in solver.state_dict().items()}


def forged(path: Path, text: str | None = None, tensors=None) -> Path:
    """A safetensors file of the tensors with that header."""
    metadata = {"settlepoint": header() if text is None else text}
    save_file(weights() if tensors is None else tensors, path, metadata=metadata)
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "solver.safetensors"


@pytest.mark.parametrize(
    "solver",
    [
        LEARNED,
        R2N2(2, "jvp", "least_squares", 3, carry=2),
        R2N2(2, "forward_difference", epsilon=1e-5),
        Safeguarded(LEARNED, Anderson(3), growth=1.0, patience=2),
        Safeguarded(STEP, Anderson(2)),
        STEP,
        Picard(0.3),
        Anderson(2, 0.1),
        Broyden(memory=5),
        Halpern(restart=None),
        Chebyshev(-3.0, 0.5),
        NewtonKrylov(inner=2),
        Aitken(),
    ],
    ids=repr,
)
def test_round_trip(path, generator, solver):
    """The same repr, the same bits of every weight, the same iterates; loading draws no random number."""
    save(solver, path, {"median": 7.0})
    state = torch.get_rng_state()
    twin = load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(twin) == repr(solver)
    assert all(torch.equal(a, b) for a, b in zip(weights(twin).values(), weights(solver).values(), strict=True))
    problem = affine(generator, low=-0.5, high=0.5)
    with torch.no_grad():
        a, b = (solve(problem.equation, None, s, FixedSteps(3)).value for s in (solver, twin))
    assert torch.equal(a, b)
    assert evidence(path)["evidence"] == {"median": 7.0}


def test_weights_come_from_the_tensors(path):
    """To the last bit, whatever the header prints."""
    theta = torch.rand(6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    tensors = weights(R2N2(3, theta=theta))
    assert torch.equal(load(forged(path, tensors=tensors)).get_parameter("output"), theta[3:])


def test_a_trained_copy_is_saved_as_it_is(path):
    """Also weights in float32: values as they are."""
    solver = R2N2(2, theta=[0.1, 0.2, 0.3]).float()
    save(solver, path)
    found = load(path)
    assert isinstance(found, R2N2)
    assert torch.equal(found.theta.float(), solver.theta.float())


def test_file_is_plain_safetensors_with_a_json_header(path):
    """Another program can read it."""
    save(LEARNED, path, {"family": "linear", "rate": float("inf")})
    with safe_open(path, framework="np") as file:
        found = json.loads(file.metadata()["settlepoint"])
        assert set(file.keys()) == {"inner", "output", "memory"}
        assert file.get_tensor("inner").tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert found["format"] == 1
    assert found["solver"] == repr(LEARNED)
    assert found["evidence"]["family"] == "linear"


@pytest.mark.parametrize(
    "solver",
    [Mann([0.5, 0.0]), Mann(lambda k: 0.5), R2N2(2, preconditioner=torch.neg), Safeguarded(Mann([0.1]), Picard())],
    ids=["list", "function", "preconditioner", "inside"],
)
def test_refuses_to_save_what_holds_functions(path, solver):
    """And leaves no file behind."""
    with pytest.raises(TypeError, match="cannot be saved"):
        save(solver, path)
    assert not path.exists()


# ---- files that are not what they should be -----------------------------------------------------------------------


def refused(path: Path, text: str) -> None:
    """load raises SolverFileError, which names the file and says what is wrong."""
    with pytest.raises(SolverFileError, match=text) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_no_file(path):
    with pytest.raises(FileNotFoundError, match="there is no solver file"):
        load(path)


def test_a_folder(tmp_path):
    refused(tmp_path, "no whole safetensors file")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.99])
def test_truncated(path, share):
    save(LEARNED, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path, "no whole safetensors file")


@pytest.mark.parametrize(
    "content",
    [
        b"hello, world, this is no solver",
        b"\xff" * 64,  # a header of 2^64 - 1 bytes
        (2**40).to_bytes(8, "little") + b"{}",
        (5).to_bytes(8, "little") + b"hello",
        (2).to_bytes(8, "little") + b"{}",
    ],
    ids=["text", "huge", "terabyte", "no json", "empty"],
)
def test_not_a_solver_file(path, content):
    path.write_bytes(content)
    refused(path, "no whole safetensors file|not written by settlepoint")


class Boom:
    """Unpickling this touches a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_nothing_is_unpickled(path, tmp_path, how):
    trace = tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Boom(trace)))
    else:
        torch.save({"solver": Boom(trace)}, path)
    refused(path, "no whole safetensors file")
    assert not trace.exists()


def test_another_program_wrote_it(path):
    save_file({"inner": torch.zeros(3)}, path, metadata={"format": "pt"})
    refused(path, "not written by settlepoint")
    save_file({"inner": torch.zeros(3)}, path)
    refused(path, "not written by settlepoint")


@pytest.mark.parametrize("changes", [{"format": 2}, {"format": None}, {"format": "1"}, {"solver": 3}])
def test_another_version(path, changes):
    refused(forged(path, header(**changes)), "this version reads format 1")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '"R2N2(2)"', "null", "[" * 100_000])
def test_broken_headers(path, text):
    refused(forged(path, text), "broken header|format")


def test_a_header_too_large_to_be_read(path):
    refused(forged(path, header(evidence={"a": "x" * 2_000_000})), "no readable entry")


@pytest.mark.parametrize(
    "code",
    [
        "__import__('pathlib').Path({trace!r}).touch()",
        "Picard(__import__('pathlib').Path({trace!r}).touch())",
        "Picard(damping=open({trace!r}, 'w'))",
        "Picard(*[open({trace!r}, 'w')])",
        "Picard(**{{'damping': open({trace!r}, 'w')}})",
        "(lambda: open({trace!r}, 'w'))()",
        "[open({trace!r}, 'w') for _ in (1,)]",
        "Picard.__init__.__globals__['__builtins__']['open']({trace!r}, 'w')",
        "R2N2(2, preconditioner=eval)",
        "Mann([0.5])",
        "Solver()",
        "Auto()",
        "torch.load({trace!r})",
        "Picard; Picard()",
        "Picard() if open({trace!r}, 'w') else Picard()",
        "Picard(damping=f'{{open({trace!r}, chr(119))}}')",
        "save",
        "'Picard()'",
        "",
        "Picard(",
        "Picard(dampng=0.1)",
        "Picard(damping='half')",
        "R2N2(0)",
        "R2N2()",
        "R2N2(3, theta=[1.0])",
        "\x00Picard()",
    ],
)
def test_hostile_constructions(path, tmp_path, code):
    """Names not allowed, calls in arguments, wrong arguments: refused; nothing of it runs."""
    trace = tmp_path / "executed"
    refused(forged(path, header(code.format(trace=str(trace)))), "describes no solver of this library|must hold")
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        "R2N2(100000)",
        "R2N2(1000000000)",
        "R2N2(2, per_iteration=10**9)",
        "R2N2(1000, per_iteration=1000, carry=1000)",
        "Anderson(depth=2000000)",
        "Safeguarded(" * 50 + "Picard()" + ", Picard())" * 50,
        "(" * 5000 + "Picard()" + ")" * 5000,
        "Picard(" + "-" * 50_000 + "1)",
        "Picard(" + "(" * 150 + ")" * 150 + ")",
        f"R2N2(2, theta=[{'1.0, ' * 100_000}])",
        f"Picard({'9' * 5000})",
    ],
    ids=lambda s: s[:24],
)
def test_headers_that_ask_for_too_much(path, code):
    """Huge counts, deep nesting, long numbers: refused, and quickly."""
    refused(forged(path, header(code)), "describes no solver of this library|must hold")


@pytest.mark.parametrize(("depth", "fine"), [(4, True), (5, False), (50, False)])
def test_solvers_in_solvers(path, depth, fine):
    """A few may lie inside each other, and no more."""
    code = "Safeguarded(" * depth + "Picard()" + ", Picard())" * depth
    forged(path, header(code), tensors={})
    if fine:
        assert repr(load(path)).count("Safeguarded") == depth
    else:
        refused(path, "more than 5 solvers lie inside each other")


LITERALS = (
    "-1",
    "0",
    "3",
    "1.5",
    "1e999",
    "nan",
    "inf",
    "True",
    "None",
    "'x'",
    "b'x'",
    "1j",
    "[]",
    "[1.0, 'x']",
    "[[1], [2, 3]]",
    "{}",
    "{1}",
    "...",
    "Picard()",
)


@pytest.mark.parametrize("name", ["R2N2", "FirstStep", "Safeguarded", "Anderson", "Chebyshev"])
def test_every_literal_in_every_place_builds_or_is_refused(path, name):
    """As first, second and third argument, and as theta: no other exception comes out."""
    start = {"FirstStep": "Picard(), ", "Safeguarded": "Picard(), "}.get(name, "")
    for a in LITERALS:
        for call in (f"{name}({a})", f"{name}({start}{a})", f"{name}({start}2, {a})", f"{name}(2, theta={a})"):
            forged(path, header(call))
            with contextlib.suppress(SolverFileError):
                load(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"inner": torch.zeros(3, dtype=DOUBLE)},
        weights() | {"extra": torch.zeros(1)},
        weights() | {"inner": torch.zeros(4, dtype=DOUBLE)},
        weights() | {"inner": torch.zeros(3, 1, dtype=DOUBLE)},
        weights(R2N2(2)),
    ],
    ids=["none", "missing", "extra", "longer", "column", "of another"],
)
def test_wrong_shapes(path, tensors):
    refused(forged(path, tensors=tensors), r"must hold the weights inner \(3,\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(path, value):
    refused(forged(path, tensors=weights() | {"inner": torch.full((3,), value, dtype=DOUBLE)}), "finite")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_weights_that_are_not_real_numbers(path, dtype):
    refused(forged(path, tensors=weights() | {"inner": torch.ones(3, dtype=dtype)}), "floating dtype")
