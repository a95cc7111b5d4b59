"""`settle check`: the protocol, the word of the verdict, exit codes, refusals in one line."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

from settlepoint import cli

ROOT = Path(__file__).parents[2]

OWN = """
import torch
from torch import nn
import settlepoint as sp
from settlepoint.certify import Subject
from settlepoint.layers import TanhCell

torch.manual_seed(0)
x = torch.randn(12, 3)

class Cell(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.orthogonal_(self.linear.weight, scale)

    def forward(self, x, u):
        return torch.tanh(self.linear(x) + u)

u = torch.randn(12, 4)
pair = (Cell(0.5), (torch.zeros(12, 4), u))

def turning(scale):
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return Subject(lambda x: 1 + scale * (x - 1) @ turn, (torch.zeros(4, 2),), depth=8)

def settling() -> Subject:
    return Subject(*pair, depth=6, score=lambda x: float(x.abs().mean()))

def marginal(): return turning(1.0)
def drifting(): return turning(1.1)
def shifting(): return Subject(lambda x: x + 1, (torch.zeros(3, 2),), depth=8)

def classifier():
    layer = sp.FixedPoint(TanhCell(4), sp.Picard(), sp.Tolerance(1e-4), inject="input")
    return Subject(nn.Sequential(nn.Linear(3, 4), layer, nn.Linear(4, 2)), (x,), name="a classifier")

def dropping(): return Subject(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), (torch.zeros(12, 4),))
def batching(): return Subject(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), (torch.zeros(12, 4),))
def random(): return Subject(lambda x: 0.5 * x + torch.randn_like(x), (torch.zeros(12, 4),))
def inplace(): return Subject(lambda x: x.mul_(0.5), (torch.ones(12, 4),))
def shaping(): return Subject(lambda x: x[:, :2], (torch.ones(12, 4),))
def talking(): return Subject(lambda x: 0.5 * x + 0.1 * x.mean(0), (torch.randn(12, 4),))
def rounding(): return Subject(lambda x: 0.4 * x.round() + 0.3, (torch.randn(12, 4),), depth=5)
def wrong(): return 3
def raising():
    raise KeyError("no such thing")
def scoring(): return Subject(*pair, score=lambda x: x.accuracy)
foreign = (nn.Linear(3, 3), (torch.zeros(5, 4),))
empty = (nn.Tanh(), (torch.zeros(0, 4),))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        nn.init.orthogonal_(self.up.weight, 0.5)
        self.down.weight = self.up.weight

    def forward(self, x):
        return torch.tanh(self.down(self.up(x)) + 1)

def tied(): return Subject(Tied(), (torch.zeros(6, 4),))
number = 4
"""


@pytest.fixture(autouse=True)
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("settlepoint.report.page.drawings", lambda run: [])  # tests/experiments/test_checking.py draws
    Path("own.py").write_text(OWN)


def settle(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, ["check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: str) -> str:
    result = settle(*arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    return result.output


@pytest.mark.parametrize(
    ("name", "word", "code"),
    [("settling", "SETTLING", 0), ("pair", "SETTLING", 0), ("marginal", "MARGINAL", 1), ("drifting", "DRIFTING", 1),
     ("shifting", "MARGINAL", 1), ("classifier", "SETTLING", 0)],
)  # fmt: skip
def test_the_verdict_is_the_first_word_and_the_exit_code(name, word, code):
    result = settle(f"own.py:{name}")
    assert result.exit_code == code
    assert result.output.startswith(word)
    page = Path("check.html").read_text()
    assert f">{word}" in page or f"{word}:" in page[:20_000]


def test_a_shift_has_no_fixed_point_and_says_by_how_much_it_moves():
    """x + 1 in two dimensions: every point is moved by sqrt(2)."""
    assert "no fixed point: every point is moved by about 1.41" in settle("own.py:shifting").output


def test_numbers_come_out_as_json():
    result = settle("own.py:settling", "--json", "--rows", "5", "--tolerance", "1e-4")
    found = json.loads(result.stdout)
    assert found["exit_code"] == 0
    assert found["verdict"] == "settling"
    assert found["rows_by_certificate"] == {"proved": 5}
    assert len(found["radius"]) == 5
    assert len(found["scores"]) == 5
    assert found["recommended"]["evaluations"] > 0
    assert {entry["name"].split("(")[0].removeprefix("own: ") for entry in found["race"]} >= {
        "Picard",
        "Anderson",
        "Broyden",
    }


def test_a_depth_is_taken_over():
    assert json.loads(settle("own.py:settling", "--depth", "9", "--json").stdout)["depth"] == 9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dropping", "Dropout is in training, where the operator is random; call .eval() on the model first"),
        ("batching", "BatchNorm mixes the rows of a batch in training; call .eval() on the model first"),
        ("random", "the operator gives another result when it is called again"),
        ("inplace", "operator must not change its input in place"),
        ("shaping", "the result of operator must have the shape of x, (12, 4), got (12, 2)"),
        ("talking", "the rows depend on each other"),
        (
            "wrong",
            "must be a certify.Subject, a function without arguments that returns one, or (module, inputs), got int",
        ),
        ("number", "got int; it offers pair, foreign, empty, settling"),
        ("raising", "own.py, line 47: KeyError: 'no such thing'"),
        ("scoring", "own.py, line 48: AttributeError: 'Tensor' object has no attribute 'accuracy'"),
        ("foreign", "the model raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (5x4 and 3x3)"),
        ("empty", "inputs must hold at least one sample, got a state of shape (0, 4)"),
        ("nothing", "own.py has no 'nothing'; it offers pair, foreign, empty, settling"),
    ],
)
def test_what_cannot_be_examined_is_refused_with_the_mend(name, message):
    assert message in refused(f"own.py:{name}")
    assert not Path("check.html").exists()


def test_numbers_of_the_command_line_that_mean_nothing():
    assert "tolerance is relative and must lie in (0, 1), got 0.0" in refused("own.py:settling", "--tolerance", "0")
    for option in ("--rows", "--depth", "--import-seconds"):
        result = settle("own.py:settling", option, "0")
        assert result.exit_code == 2
        assert option in result.stderr
    assert not Path("check.html").exists()


def test_an_interrupt_is_exit_code_3_and_writes_nothing(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("settlepoint.cli.checking.examine", interrupted)
    Path("slow.py").write_text("def model():\n    raise KeyboardInterrupt\n")
    for target in ("own.py:settling", "slow.py:model"):
        result = settle(target)
        assert result.exit_code == 3
        assert "interrupted, nothing was written" in result.stderr
    assert {path.name for path in Path().iterdir()} <= {"own.py", "slow.py", "__pycache__"}


def test_a_name_must_be_given():
    assert "own.py needs a name, own.py:NAME; it offers pair, foreign, empty, settling" in refused("own.py")
    assert "there is no file other.py" in refused("other.py:model")
    assert "must be FILE.py:NAME" in refused("model")


def test_an_operator_without_a_derivative_still_gets_a_verdict():
    """round has no bound and no useful Jacobian: nothing is proved, and the reasons are told."""
    found = json.loads(settle("own.py:rounding", "--json").stdout)
    assert found["verdict"] == "settling"
    assert "proved" not in found["rows_by_certificate"]
    assert any("no bound is known for" in reason for reason in found["reasons"])


def test_a_file_that_loops_or_raises_on_import():
    Path("slow.py").write_text("while True:\n    pass\n")
    assert "slow.py took longer than 0.3 s to import" in refused("slow.py:model", "--import-seconds", "0.3")
    Path("bad.py").write_text("import math\nmath.sqrt(-1)\n")
    assert "bad.py, line 2: ValueError" in refused("bad.py:model")
    Path("worse.py").write_text("def f(:\n")
    assert "worse.py, line 1: SyntaxError" in refused("worse.py:model")


def test_a_function_that_loops():
    Path("slow.py").write_text("def model():\n    while True:\n        pass\n")
    assert "took longer than 0.3 s" in refused("slow.py:model", "--import-seconds", "0.3")


@pytest.mark.parametrize(
    "body", ["time.sleep(60)", "while True:\n    try:\n        x = 1\n    except Exception:\n        pass"]
)
def test_sleeping_and_catching_files_are_stopped_too(body):
    Path("slow.py").write_text(f"import time\n{body}\n")
    assert "slow.py took longer than 0.3 s to import" in refused("slow.py:model", "--import-seconds", "0.3")


def test_the_limit_ends_with_the_import():
    """What was examined afterwards may take longer."""
    assert settle("own.py:settling", "--import-seconds", "0.5").exit_code == 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def weights() -> dict[str, torch.Tensor]:
    cell = nn.Linear(4, 4)
    nn.init.orthogonal_(cell.weight, 1.5)
    return {f"linear.{name}": p.detach() for name, p in cell.named_parameters()}


def test_weights_are_loaded_by_name():
    save_file(weights(), "w.safetensors")
    before = json.loads(settle("own.py:settling", "--json").stdout)
    after = json.loads(settle("own.py:settling", "--json", "--weights", "w.safetensors").stdout)
    assert before["rates"]["spectral radius"]["median"] < after["rates"]["spectral radius"]["median"]


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "integers", "cut", "short", "empty", "pickle", "none"])
def test_weights_that_do_not_fit_are_refused(change):
    tensors = weights()
    if change == "missing":
        tensors.pop("linear.bias")
    if change == "extra":
        tensors["other"] = torch.ones(2)
    if change == "shape":
        tensors["linear.bias"] = torch.ones(5)
    path = Path("w.safetensors")
    save_file(tensors, path)
    if change == "integers":
        save_file({**tensors, "linear.bias": torch.ones(4, dtype=torch.int64)}, path)
    if change in ("cut", "short", "empty"):
        path.write_bytes(path.read_bytes()[: {"cut": 50, "short": -8, "empty": 0}[change]])
    if change == "none":
        path.unlink()
    if change == "pickle":
        torch.save(tensors, path)
    expected = {
        "missing": "it lacks linear.bias",
        "extra": "it has also other",
        "shape": "linear.bias must have shape (4,), got (5,)",
        "integers": "linear.bias must be of torch.float32, got torch.int64",
        "cut": "is no whole safetensors file",
        "short": "is no whole safetensors file",
        "empty": "is no whole safetensors file",
        "none": "there is no file w.safetensors",
        "pickle": "is no whole safetensors file",
    }[change]
    assert expected in refused("own.py:settling", "--weights", "w.safetensors")


def test_a_model_with_a_fixed_point_takes_its_weights():
    sys.path.insert(0, ".")
    save_file({"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4), "1.operator.weight": 2 * torch.eye(4),
               "2.weight": torch.zeros(2, 4), "2.bias": torch.zeros(2)}, "w.safetensors")  # fmt: skip
    found = json.loads(settle("own.py:classifier", "--json", "--weights", "w.safetensors").stdout)
    assert found["rates"]["spectral radius"]["median"] == pytest.approx(2)  # tanh(2 z) at z = 0, where it starts


def test_tied_weights_may_stand_in_the_file_once():
    torch.manual_seed(0)
    save_file({"up.weight": 0.9 * torch.eye(4)}, "w.safetensors")
    assert settle("own.py:tied", "--weights", "w.safetensors").exit_code == 0
    save_file({"down.weight": 0.9 * torch.eye(4)}, "w.safetensors")
    assert settle("own.py:tied", "--weights", "w.safetensors").exit_code == 0


def test_weights_need_a_module():
    save_file(weights(), "w.safetensors")
    assert "--weights needs a model that is an nn.Module" in refused("own.py:marginal", "--weights", "w.safetensors")


def test_other_files_are_not_overwritten():
    Path("mine.html").write_text("<p>mine</p>")
    assert "is no report of ours" in refused("own.py:settling", "-o", "mine.html")
    assert "must name an .html file" in refused("own.py:settling", "-o", "mine.txt")
    assert "there is no folder" in refused("own.py:settling", "-o", "no/check.html")
    Path("folder.html").mkdir()
    assert "is no report of ours" in refused("own.py:settling", "-o", "folder.html")
    assert settle("own.py:settling", "-o", "new.html").exit_code == 0
    assert settle("own.py:settling", "-o", "new.html").exit_code == 0


@pytest.mark.parametrize("name", ["figures/mine.svg", "report.html", "spec.json"])
def test_a_folder_of_the_users_is_not_cleared(name):
    """A run folder is replaced with its figures/, so that it must be ours."""
    path = Path("new-run") / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert "new-run exists and holds no run of settle check" in refused("own.py:settling", "-o", "new.html")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["operator", "graph"])
def test_the_examples_settle_and_are_proved(name):
    found = json.loads(settle(str(ROOT / "examples" / f"check_{name}.py:model"), "--json", "--rows", "8").stdout)
    assert found["verdict"] == "settling"
    assert found["rows_by_certificate"] == {"proved": 8}
    assert found["exit_code"] == 0


@pytest.mark.slow
def test_a_looped_transformer_block_is_proved():
    pytest.importorskip("transformers")
    found = json.loads(settle(str(ROOT / "examples" / "check_transformer.py:model"), "--json", "--rows", "4").stdout)
    assert found["verdict"] == "settling"
    assert found["rows_by_certificate"] == {"proved": 4}


def test_help_shows_a_working_example():
    result = settle("--help")
    assert "settle check examples/check_operator.py:model" in result.output
