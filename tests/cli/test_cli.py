"""The program: what it prints, where it writes, and the exit codes 0, 1, 2, 3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import settlepoint.runs.folder as folder_module
from settlepoint import cli
from settlepoint.data import datasets, superpixel_graphs
from settlepoint.experiments import MODULES, Registry

TOYS = Registry({"toy": "tests.toy", "toy-two": "tests.toy_two", "bench": "tests.toy_two"}, demo=(("toy", "smoke"),))
COMMANDS = ("demo", "tune", "solve", "list", "run", "bench", "report", "data list", "data verify", "data fetch")
COMMANDS += ("data superpixels",)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SETTLEPOINT_DATA", raising=False)


def settle(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, arguments, obj=TOYS)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_a_working_example(command: str) -> None:
    text = settle(*command.split(), "--help").stdout
    assert f"Example: settle {command}" in text


def test_run_writes_a_folder_and_a_report() -> None:
    result = settle("run", "toy")
    assert result.exit_code == 0
    assert "All 4 checks passed" in result.stdout
    assert "88.0 ± 0.4" in result.stdout
    assert result.stdout.rstrip().endswith("runs/toy-cpu/report.html")
    assert Path("runs/toy-cpu/report.html").exists()
    assert Path("runs/toy-cpu/figures/convergence.svg").exists()


def test_json_is_all_that_standard_output_holds() -> None:
    found = json.loads(settle("run", "toy", "--scale", "smoke", "--json", "--set", "raises=rate 0.6").stdout)
    assert found["exit_code"] == found["runs"][0]["exit_code"] == 3
    assert [line["seed"] for line in found["runs"][0]["failed"]] == [0, 1]
    assert found["report"] == "runs/toy-smoke/report.html"


def test_a_failed_check_is_exit_code_1() -> None:
    result = settle("run", "toy", "--set", "target=200", "--out", "here")
    assert result.exit_code == 1
    assert "3 of 4 checks passed" in result.stdout


def test_an_interrupt_says_how_to_go_on() -> None:
    result = settle("run", "toy", "--scale", "smoke", "--set", "interrupts=rate 0.6")
    assert result.exit_code == 3
    assert "interrupted; runs/toy-smoke keeps what is done, the same command with --resume goes on" in result.stderr
    assert "Incomplete" in Path("runs/toy-smoke/report.html").read_text()


def test_resume_after_failures_and_refusal_without() -> None:
    settle("run", "toy", "--seeds", "1")
    assert settle("run", "toy", "--seeds", "1", "--resume").exit_code == 0
    again = settle("run", "toy", "--seeds", "1")
    assert again.exit_code == 2
    assert "go on with --resume" in again.stderr
    other = settle("run", "toy", "--seeds", "2", "--resume")
    assert other.exit_code == 2
    assert "seeds: 1 there, 2 now" in other.stderr


def test_a_full_disk_is_exit_code_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "_append", full)
    result = settle("run", "toy")
    assert result.exit_code == 3
    assert "the disk is full" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nope"), "the experiments are toy, toy-two, bench"),
        (("run", "toy", "--scale", "huge"), "its scales are smoke, cpu"),
        (("run", "toy", "--set", "stepz=3"), "the fields are interrupts, noise"),
        (("run", "toy", "--set", "steps"), "--set takes NAME=VALUE, got 'steps'"),
        (("run", "toy", "--set", "steps=x"), "steps must be int, got 'x'"),
        (("run", "toy", "--engine", "dask"), "'local', 'ray'"),
        (("run", "toy", "--jobs", "0"), "--jobs"),
        (("run", "toy", "--stepz", "3"), "No such option"),
        (("runn",), "No such command"),
        (("report", "nowhere"), "is not the folder of a run"),
        (("data", "verify"), "give --data-dir DIR or set SETTLEPOINT_DATA"),
        (("data", "verify", "x", "--data-dir", "."), "the data sets are planetoid-cora"),
        (("data", "fetch", "x", "--data-dir", "."), "the data sets are planetoid-cora"),
        (("data", "list", "--data-dir", "nowhere"), "does not exist"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_what_is_valid(arguments: tuple[str, ...], message: str) -> None:
    result = settle(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("runs").exists()


def test_cuda_without_a_gpu_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = settle("run", "toy", "--device", "cuda")
    assert result.exit_code == 2
    assert "torch finds no GPU" in result.stderr


def test_all_runs_every_experiment_but_those_set_aside() -> None:
    result = settle("run", "all", "--scale", "smoke", "--json", "--out", "everything")
    found = json.loads(result.stdout)
    assert [run["folder"] for run in found["runs"]] == ["everything/toy-smoke", "everything/toy-two-smoke"]
    assert result.exit_code == 0


def test_all_checks_every_scale_before_the_first_run() -> None:
    assert settle("run", "all", "--scale", "cpu").exit_code == 2
    assert not Path("runs").exists()


def test_all_stops_at_an_interrupt() -> None:
    found = json.loads(settle("run", "all", "--scale", "smoke", "--json", "--set", "interrupts=rate 0.3").stdout)
    assert len(found["runs"]) == 1


def test_list() -> None:
    assert "A contraction settles at its rate." in " ".join(settle("list").stdout.split())
    found = json.loads(settle("list", "--json").stdout)
    assert (found[0]["id"], found[0]["scales"]) == ("toy", ["smoke", "cpu"])


def test_an_experiment_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOYS.modules, "lost", "tests.no_such_module")
    result = settle("list", "--json")
    assert len(json.loads(result.stdout)) == 3
    assert "lost needs the package 'tests.no_such_module', which is not installed" in result.stderr
    assert settle("run", "lost").exit_code == 2


def test_demo_leaves_one_report_and_can_run_again() -> None:
    for _ in range(2):
        result = settle("demo")
        assert result.exit_code == 0
        assert result.stdout.rstrip().endswith("runs/demo/report.html")
    assert Path("runs/demo/toy/result.jsonl").exists()


def test_bench_runs_afresh() -> None:
    for _ in range(2):
        assert settle("bench", "--scale", "smoke").exit_code == 0
    assert Path("runs/bench/report.html").exists()


def test_report_of_several_runs() -> None:
    settle("run", "toy", "--out", "a")
    settle("run", "toy", "--out", "b")
    result = settle("report", "a", "b", "-o", "out/both.html")
    assert result.exit_code == 0
    assert Path("out/both.html").read_text().count('class="cards"') == 1
    assert json.loads(settle("report", "a", "--json").stdout) == {"report": "report.html"}


def test_data_list_says_what_is_there() -> None:
    assert "No data folder" in settle("data", "list").stderr
    found = json.loads(settle("data", "list", "--json").stdout)
    assert [entry["name"] for entry in found] == list(datasets())
    assert found[0]["present"] is None
    Path("d").mkdir()
    assert json.loads(settle("data", "list", "--json", "--data-dir", "d").stdout)[0]["present"] == 0
    assert "0 of 8" in settle("data", "list", "--data-dir", "d").stdout


def test_data_verify_names_what_is_wrong() -> None:
    file = datasets()["r2n2-matrices"].files[0]
    path = Path("d") / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(file.size))
    for arguments in (("data", "verify"), ("data", "verify", "r2n2-matrices")):
        result = settle(*arguments, "--data-dir", "d")
        assert result.exit_code == 1
        assert f"{path} is corrupt: expected SHA-256 {file.sha256}, found " in result.stderr
    missing = settle("data", "verify", "cifar10-small", "--data-dir", "d")
    assert missing.exit_code == 1
    assert "d/cifar10/cifar10_small.npz is missing: put cifar10_small.npz there" in missing.stderr
    states = json.loads(settle("data", "verify", "--json", "--data-dir", "d").stdout)
    assert [state["state"] for state in states] == ["corrupt"]
    Path("empty").mkdir()
    assert settle("data", "verify", "--data-dir", "empty").exit_code == 0


def test_data_fetch_says_which_file_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("d").mkdir()
    result = settle("data", "fetch", "r2n2-matrices", "--data-dir", "d")
    assert result.exit_code == 3
    assert "put matrices.npz at d/r2n2/matrices.npz" in result.stderr
    monkeypatch.setattr("settlepoint.data.fetch", lambda folder, name: [])
    assert "is whole already" in settle("data", "fetch", "r2n2-matrices", "--data-dir", "d").stdout
    assert json.loads(settle("data", "fetch", "r2n2-matrices", "--data-dir", "d", "--json").stdout) == {"fetched": []}


def pictures(names: str) -> None:
    """Images of two halves, each of its own shade, and their masks: class 0 on the left, void 9 on the right."""
    halves = np.zeros((8, 12), dtype=np.uint8)
    halves[:, 6:] = 9
    for folder in ("images", "masks"):
        Path(folder).mkdir()
    for shade, name in enumerate(names):
        Image.fromarray(halves).save(f"masks/{name}.png")
        Image.fromarray(np.stack([20 * halves + shade] * 3, 2)).save(f"images/{name}.png")


def test_data_superpixels_writes_one_file_of_graphs() -> None:
    pictures("ab")
    command = ("data", "superpixels", "images", "masks", "--void", "9", "--classes", "3", "--segments", "4")
    found = json.loads(settle(*command, "-o", "out/a.npz", "--json").stdout)
    graphs = superpixel_graphs("out/a.npz")
    assert (found["path"], found["graphs"], found["classes"], found["reused"]) == ("out/a.npz", 2, 3, 0)
    assert (found["nodes"], 2 * found["edges"]) == (len(graphs.x), graphs.edges.shape[1])
    assert found["unscored"] == int((graphs.y == -1).sum()) > 0
    text = settle(*command, "--void-to", "2", "-o", "b.npz").stdout
    assert "b.npz: 2 graphs, " in text
    assert "3 classes, 0 nodes without one" in text
    assert set(superpixel_graphs("b.npz").y.tolist()) == {0, 2}
    Path("names.txt").write_text("b\n")
    assert json.loads(settle(*command, "--only", "names.txt", "-o", "c.npz", "--json").stdout)["graphs"] == 1
    assert list(superpixel_graphs("c.npz").names) == ["b.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere", "masks", "-o", "a.npz"), "nowhere: images must be a folder"),
        (("images", "masks", "-o", "a.pt"), "a.pt must end in .npz"),
        (("images", "masks", "-o", "there.npz"), "there.npz exists already: remove it or name another"),
        (("images", "masks", "-o", "a.npz", "--void-to", "0"), "void_to needs void"),
        (("images", "masks", "-o", "a.npz", "--compactness", "0"), "compactness must be positive, got 0.0"),
        (("images", "masks", "-o", "a.npz", "--segments", "0"), "--segments"),
        (("images", "masks", "-o", "a.npz", "--only", "none.txt"), "--only takes a text file of names, got none.txt"),
        (("images", "masks", "-o", "a.npz", "--only", "there.npz"), "one a line, got there.npz without any"),
        (("images", "masks"), "--out"),
    ],
)
def test_wrong_usage_of_data_superpixels(arguments: tuple[str, ...], message: str) -> None:
    pictures("a")
    Path("there.npz").write_bytes(b"")
    result = settle("data", "superpixels", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert Path("there.npz").read_bytes() == b""
    assert not Path("a.npz").exists()


def test_a_bad_mask_or_an_interrupt_keeps_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures("ab")
    command = ("data", "superpixels", "images", "masks", "--void", "9", "--segments", "4", "-o", "a.npz")
    whole = Path("masks/b.png").read_bytes()
    Path("masks/b.png").write_bytes(whole[:60])
    result = settle(*command)
    assert result.exit_code == 3
    assert "masks/b.png cannot be read, it may be cut short" in result.stderr
    Path("masks/b.png").write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr("settlepoint.data.image_graphs.image_graph", interrupt)
        result = settle(*command)
    assert result.exit_code == 3
    assert "interrupted; a.npz.parts keeps what is done, the same command goes on" in result.stderr
    assert "2 graphs, 1 of them kept from before" in settle(*command).stdout
    assert not Path("a.npz.parts").exists()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_module_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "settlepoint", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: settle" in done.stdout


def test_the_package_registers_what_the_issue_names() -> None:
    assert {"digits", "solvers", "pign-cora", "bench"} <= set(MODULES)
