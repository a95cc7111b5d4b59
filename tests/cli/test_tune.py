"""`settle tune` and `settle solve`: files, exit codes, refusals in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from settlepoint import cli, learn
from settlepoint.cli.families import family_of
from settlepoint.cli.live import lines
from settlepoint.experiments import UsageError
from settlepoint.learn.structures import structures
from settlepoint.problems import Chandrasekhar, LinearFamily
from settlepoint.solvers import Anderson

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "my_problem.py"
SMALL = ("--seconds", "0", "--training", "20", "--held-out", "20")

OWN = """
import torch
from settlepoint.learn.structures import structures
from settlepoint.problems import Family, from_callable

def kepler(E, p):
    return p["M"] + p["e"] * torch.sin(E)

def orbits(n, generator):
    M, e = 3 * torch.rand(2, n, 1, generator=generator, dtype=torch.float64)
    return {"x0": M, "parameters": {"M": M, "e": 0.3 * e}}

kepler_family = from_callable(kepler, orbits, name="kepler")

def made() -> Family:
    return kepler_family

number = 3
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])


def settle(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: str) -> str:
    """The one line on standard error of a command that is refused."""
    result = settle(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


@pytest.fixture(scope="module")
def solver_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small contest on H-equations, in which two structures are trained."""
    out = tmp_path_factory.mktemp("tuned") / "h.safetensors"
    options = ("--training", "24", "--held-out", "24", "--set", "m=4", "--evaluations", "100")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["settlepoint.learn.tune"], "structures", lambda: structures()[:2])
        result = settle("tune", "chandrasekhar", *options, "-o", str(out))
    assert result.exit_code == 0, result.stderr
    (out.parent / "said.txt").write_text(result.stdout)
    return out


def test_tune_says_who_raced_and_how_to_use_the_winner(solver_file: Path) -> None:
    said = (solver_file.parent / "said.txt").read_text()
    assert "Anderson(2)" in said
    assert "Picard" in said
    assert "held-out problems" in said
    assert f"learn.load('{solver_file}')" in said
    evidence = learn.evidence(solver_file)["evidence"]
    assert evidence["family"] == {
        "name": "chandrasekhar",
        "m": 4,
        "c": [0.875, 0.905, 0.935],
        "mean": 1,
        "variance": 0.2,
    }
    assert evidence["budget"]["held_out"] == 24
    assert evidence["verdict"] in said


def test_the_report_lies_beside_the_solver_and_needs_nothing_else(solver_file: Path) -> None:
    page = solver_file.with_suffix(".html").read_text()
    assert "The cheapest solver for chandrasekhar" in page
    assert "<svg" in page
    assert "share of the held-out problems solved" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    lines = (solver_file.parent / "h-tune" / "figures" / "share-solved.csv").read_text().splitlines()
    picard = [line.split(",") for line in lines if line.startswith("Picard,") and ",0," in line]
    rising = [float(line[-1]) for line in picard]
    assert rising == sorted(rising)


def test_the_curve_of_a_contender_agrees_with_its_row(solver_file: Path) -> None:
    """The median of the table is where the curve reaches one half."""
    for row in learn.evidence(solver_file)["evidence"]["table"]:
        reached = [evals for evals, share in row["cumulative"] if share > 0.5]
        assert reached[0] == row["median"]


def test_tune_again_into_the_same_file_but_not_over_anything_else(solver_file: Path) -> None:
    assert settle("tune", "linear", *SMALL, "-o", str(solver_file.with_name("l.safetensors"))).exit_code == 0
    assert settle("tune", "linear", *SMALL, "-o", str(solver_file.with_name("l.safetensors"))).exit_code == 0
    Path("mine.safetensors").write_bytes(b"thesis")
    assert "exists and is no solver file" in refused("tune", "linear", "-o", "mine.safetensors")
    assert Path("mine.safetensors").read_bytes() == b"thesis"
    Path("page.html").write_text("<html>my page</html>")
    assert "exists and is no report" in refused("tune", "linear", "-o", "page.safetensors")
    assert Path("page.html").read_text() == "<html>my page</html>"


def test_json_is_all_that_standard_output_holds() -> None:
    result = settle("tune", "linear", *SMALL, "-o", "x.safetensors", "--json")
    found = json.loads(result.stdout)
    assert found["exit_code"] == 0
    assert found["solver"] == "x.safetensors"
    assert {row["name"] for row in found["table"]} >= {"Picard", "Anderson(5)"}
    assert found["worth"] is False
    assert found["guard"] is None
    assert Path(found["report"]).exists()


def test_the_same_seed_tunes_the_same_solver() -> None:
    for name in ("a", "b"):
        settle("tune", "linear", *SMALL, "-o", f"{name}.safetensors", "--seed", "3")
    a, b = (learn.evidence(f"{name}.safetensors") for name in ("a", "b"))
    assert a["solver"] == b["solver"]
    assert [r["mean"] for r in a["evidence"]["table"]] == [r["mean"] for r in b["evidence"]["table"]]


def test_an_interrupt_is_exit_code_3_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learn, "tune", interrupted)
    result = settle("tune", "linear")
    assert result.exit_code == 3
    assert "interrupted, nothing was written" in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nope",), "no family 'nope'; the families are linear, chandrasekhar"),
        (("linear", "--set", "speed=3"), "has no field 'speed' to set; its fields are matrix, spread"),
        (("linear", "--set", "spread"), "--set takes NAME=VALUE, got 'spread'"),
        (("linear", "--set", "spread=wide"), "spread must be <class 'float'>, got 'wide'"),
        (("chandrasekhar", "--set", "c=1.5"), "c must lie in (0, 1]"),
        (("linear", "-o", "solver.bin"), "-o must name a .safetensors file, got solver.bin"),
        (("linear", "-o", "no/solver.safetensors"), "there is no folder no"),
        (("linear", "--tolerance", "0"), "tolerance must be a finite number > 0"),
        (("linear", "--training", "3"), "training must be an integer >= 20, got 3"),
        (("lost.py:family",), "there is no file lost.py"),
    ],
)
def test_wrong_usage_of_tune(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("tune", *arguments)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py", "own.py needs a name, own.py:NAME; its families are kepler_family, made"),
        ("own.py:orbit", "own.py has no 'orbit'; its families are kepler_family, made"),
        ("own.py:number", "must be a Family, or a function without arguments that returns one, got int"),
        ("own.py:kepler", "must be a Family, or a function without arguments that returns one, got function"),
    ],
)
def test_a_file_without_that_family_says_what_it_has(name: str, message: str) -> None:
    Path("own.py").write_text(OWN)
    assert message in refused("tune", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\nx = 1 / 0\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("a = 1\ndef f(:\n", "bad.py, line 2: SyntaxError"),
        ("import no_such_package\n", "bad.py, line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("\nraise SystemExit('no')\n", "bad.py, line 2: SystemExit: no"),
        ("def family():\n    return {}['x']\n", "bad.py, line 2: KeyError: 'x'"),
        (OWN.replace("torch.sin(E)", "E.sine()") + "family = kepler_family", "bad.py, line 7: AttributeError"),
        (OWN.replace("torch.rand(", "torch.rant(") + "family = kepler_family", "bad.py, line 10: AttributeError"),
        (OWN.replace("3 * torch", "0 * torch") + "family = kepler_family", "different problems, got 500 copies"),
        (OWN.replace("torch.sin(E)", "torch.cat((E, E), 1)") + "family = kepler_family", "must return the shape of x"),
    ],
)
def test_a_file_that_raises_is_told_with_its_line(text: str, message: str) -> None:
    Path("bad.py").write_text(text)
    assert message in refused("tune", "bad.py:family")


def test_families_come_by_name_by_file_and_from_functions() -> None:
    Path("own.py").write_text(OWN)
    Path("beside.py").write_text("shared = 1")
    assert family_of("own.py:made", {}).name == family_of("own.py:kepler_family", {}).name == "kepler"
    assert family_of("chandrasekhar", {"c": "0.99", "m": "10, 20"}) == Chandrasekhar(c=0.99, m=(10, 20))
    assert family_of("linear", {"matrix": "A2", "shift": "False"}) == LinearFamily("A2", shift=False)
    assert family_of("vdp", {"h": "0.01, 0.02"}).settings()["h"] == (0.01, 0.02)
    with pytest.raises(UsageError, match="no field 'c' to set; it has none; its numbers stand in its file"):
        family_of("own.py:made", {"c": "1"})


def test_solve_prints_a_line_a_problem_and_writes_the_solutions(solver_file: Path) -> None:
    same = ("--set", "m=4")
    result = settle("solve", "chandrasekhar", *same, "--solver", str(solver_file), "--problems", "4", "-o", "s.npz")
    assert result.exit_code == 0
    assert result.stdout.count("CONVERGED") == 5
    with np.load("s.npz", allow_pickle=False) as file:
        found = dict(file)
    x, c = torch.from_numpy(found["value"]), torch.from_numpy(found["parameter_c"])
    mu = (torch.arange(4).double() + 0.5) / 4
    kernel = mu[:, None] / (8 * (mu[:, None] + mu))  # A_c / c, as the paper writes it
    gap = (1 / (1 - c[:, None] * (x @ kernel.T)) - x).norm(dim=1)
    assert bool((gap <= 1e-8).all())
    assert torch.allclose(gap, torch.from_numpy(found["residual"]), atol=1e-12)


def test_solve_as_json_and_exit_code_1_when_a_problem_is_not_solved(solver_file: Path) -> None:
    short = ("--set", "m=4", "--solver", str(solver_file), "--evaluations", "2", "--json")
    result = settle("solve", "chandrasekhar", *short)
    found = json.loads(result.stdout)
    assert result.exit_code == found["exit_code"] == 1
    assert found["counts"] == {"MAX_STEPS": 5}
    assert {"status", "residual", "evaluations"} == set(found["problems"][0])


def test_solve_says_when_the_solver_is_for_another_family(solver_file: Path) -> None:
    result = settle("solve", "linear", "--solver", str(solver_file))
    assert "the solver was tuned for chandrasekhar, not linear" in result.stderr
    assert result.exit_code == 0


def test_solve_takes_steps_of_an_integrator() -> None:
    from settlepoint.solvers import R2N2, tableaus

    learn.save(R2N2.from_tableau(tableaus.RK4), "rk4.safetensors")
    errors = []
    for h in ("0.04, 0.04", "0.02, 0.02"):
        shorter = ("--set", f"h={h}", "--set", "a=1.5, 1.5", "--set", "x1=-3,-3", "--set", "x2=1,1")
        steps = "10" if "4" in h else "20"
        text = settle("solve", "vdp", *shorter, "--solver", "rk4.safetensors", "--steps", steps, "--json").stdout
        problems = json.loads(text)["problems"]
        assert {p["evaluations"] for p in problems} == {4 * int(steps)}
        errors.append(problems[0]["error"])
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.4)  # fourth order, measured against SciPy's reference


def hostile(path: Path, kind: str) -> None:
    learn.save(Anderson(2), path)
    header = {"format": 1, "version": "0", "solver": "__import__('os').system('touch owned')", "evidence": {}}
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:50])
    elif kind == "other version":
        save_file({}, path, metadata={"settlepoint": json.dumps({**header, "format": 99})})
    elif kind == "hostile":
        save_file({}, path, metadata={"settlepoint": json.dumps(header)})
    elif kind == "pickle":
        torch.save(torch.zeros(3), path)
    else:
        path.unlink()


@pytest.mark.parametrize("kind", ["truncated", "other version", "hostile", "pickle", "missing"])
def test_solve_refuses_files_that_hold_no_solver(kind: str) -> None:
    hostile(Path("s.safetensors"), kind)
    assert "s.safetensors" in refused("solve", "linear", "--solver", "s.safetensors")
    assert not Path("owned").exists()


def test_solve_overwrites_its_own_solutions_and_nothing_else() -> None:
    learn.save(Anderson(2), "s.safetensors")
    for _ in range(2):
        assert settle("solve", "linear", "--solver", "s.safetensors", "-o", "s.npz").exit_code == 0
    Path("mine.npz").write_bytes(b"thesis")
    assert "holds no solutions of ours" in refused("solve", "linear", "--solver", "s.safetensors", "-o", "mine.npz")
    assert ".npz file" in refused("solve", "linear", "--solver", "s.safetensors", "-o", "mine.txt")


def test_progress_is_one_line_a_minute_away_from_a_terminal() -> None:
    now, said = [0.0], []
    report = lines("tune x", said.append, lambda: now[0])
    for second in range(0, 150, 10):
        now[0] = float(second)
        report("Picard", second // 10, 15)
    assert said == ["tune x: Picard (6 of 15)", "tune x: Picard (12 of 15)"]


def test_the_example_is_a_family_that_solves_and_tunes() -> None:
    """Its solutions fulfil the equation of the network, written with complex numbers: v = 1 - Z conj(s / v)."""
    family = family_of(f"{EXAMPLE}:family", {})
    batch = family.sample(4, torch.Generator().manual_seed(0))
    u = torch.complex(*family.reference(batch).chunk(2, dim=1))
    s = torch.complex(batch.parameters["p"], batch.parameters["q"])
    shared = vars(sys.modules["users.my_problem"])
    Z = shared["SEGMENT"] * shared["SHARED"].to(torch.complex128)
    assert torch.allclose(u, -((s / (1 + u)).conj() @ Z), atol=1e-9)
    assert float((1 + u).abs().min()) > 0.8
    assert settle("tune", f"{EXAMPLE}:family", *SMALL, "-o", "f.safetensors").exit_code == 0
    assert settle("solve", f"{EXAMPLE}:family", "--solver", "f.safetensors").exit_code == 0


def test_a_family_that_nobody_solves_gives_no_solver() -> None:
    """f is NaN: exit code 1, a report, and nothing to load."""
    Path("lost.py").write_text(OWN + "\nlost = from_callable(lambda x, p: x * float('nan'), orbits, name='lost')\n")
    result = settle("tune", "lost.py:lost", "-o", "lost.safetensors", *SMALL)
    assert result.exit_code == 1
    assert "Nobody solves it" in result.stdout
    assert "learn.load" not in result.stdout
    assert not Path("lost.safetensors").exists()
    assert Path("lost.html").exists()
    said = json.loads(settle("tune", "lost.py:lost", "-o", "lost.safetensors", *SMALL, "--json").stdout)
    assert (said["exit_code"], said["solver"]) == (1, None)
