"""Runs survive what happens to runs: kills, full disks, second writers, cells that raise."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.toy import Toy

import settlepoint.runs.folder as folder_module
from settlepoint.experiments.launch import Launched, Request, launch
from settlepoint.runs import Local, MissingExtra, Ray, Record, RunError, RunFolder, WriteError
from settlepoint.lock import locked


def run(out: Path, mode: str = "new", jobs: int = 1, **settings: str) -> Launched:
    return launch(Toy(), Request(scale="smoke", out=out, mode=mode, jobs=jobs, settings=settings))


def numbers(launched: Launched) -> dict:
    return {record.pair: (dict(record.metrics), str(record.curves)) for record in launched.ran.records}


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    done = run(tmp_path / "run")
    spec = json.loads((tmp_path / "run/spec.json").read_text())
    (session,) = json.loads((tmp_path / "run/environment.json").read_text())["sessions"]
    assert spec["scale"]["steps"] == 12
    assert spec["cells"] == ["rate 0.3", "rate 0.6", "rate 0.9"]
    assert session["packages"]["torch"]
    assert session["threads"] == 1
    assert len((tmp_path / "run/result.jsonl").read_text().splitlines()) == 6
    assert done.exit_code == 0
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_second_run_needs_resume_or_replace(tmp_path: Path) -> None:
    first = run(tmp_path)
    with pytest.raises(RunError, match="holds a run already; go on with --resume"):
        run(tmp_path)
    again = run(tmp_path, "replace")
    assert numbers(first) == numbers(again)
    assert len((tmp_path / "result.jsonl").read_text().splitlines()) == 6


def test_replace_deletes_only_what_a_run_wrote(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "mine.txt").write_text("keep")
    run(tmp_path, "replace")
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_processes_give_the_same_numbers(tmp_path: Path) -> None:
    assert numbers(run(tmp_path / "one")) == numbers(run(tmp_path / "two", jobs=2))


@pytest.mark.parametrize("keep", [0, 1, 4])
@pytest.mark.parametrize("torn", [b"", b'{"cell": "rate 0.9", "se'])
def test_resume_gives_the_same_numbers(tmp_path: Path, keep: int, torn: bytes) -> None:
    whole = run(tmp_path / "whole")
    cut = run(tmp_path / "cut").ran.folder.path / "result.jsonl"
    cut.write_bytes(b"".join(cut.read_bytes().splitlines(keepends=True)[:keep]) + torn)
    resumed = run(tmp_path / "cut", "resume")
    assert numbers(resumed) == numbers(whole)
    assert any("torn" in note for note in resumed.ran.notes) == bool(torn)
    assert len(cut.read_text().splitlines()) == 6


def test_resume_runs_only_what_is_missing(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "result.jsonl").read_bytes()
    run(tmp_path, "resume")
    assert (tmp_path / "result.jsonl").read_bytes() == before


def test_resume_refuses_another_spec_and_says_what_differs(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(RunError, match=r"scale.steps: 12 there, 5 now"):
        run(tmp_path, "resume", steps="5")


def test_resume_tries_failed_cells_again(tmp_path: Path) -> None:
    run(tmp_path)
    folder = RunFolder(tmp_path)
    folder.append(Record("rate 0.6", 1, error="the machine was full"))
    assert [r.error for r in folder.records()[0] if r.error]
    assert run(tmp_path, "resume").exit_code == 0


def test_a_cell_that_raises_leaves_a_line_and_a_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, raises="rate 0.6")
    failed = done.ran.failed
    assert [record.pair for record in failed] == [("rate 0.6", 0), ("rate 0.6", 1)]
    assert failed[0].error == "ArithmeticError: this cell was asked to raise"
    assert "in run" in (tmp_path / str(failed[0].traceback)).read_text()
    assert done.exit_code == 3


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    done = run(tmp_path, interrupts="rate 0.6")
    assert done.ran.interrupted
    assert done.exit_code == 3
    assert [record.cell for record in done.ran.records] == ["rate 0.3"] * 2
    assert not done.checks


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    lines = (tmp_path / "result.jsonl").read_text().splitlines()
    lines[2] = lines[2][:20]
    (tmp_path / "result.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=r"line 3 of .*result.jsonl is not a record"):
        run(tmp_path, "resume")


@pytest.mark.parametrize("torn", [True, False])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool) -> None:
    """A fake for ENOSPC: the third line of results cannot be written, half of it having reached the file."""
    real, count = folder_module._append, [0]

    def full(path: Path, data: bytes) -> None:
        count[0] += path.name == "result.jsonl"
        if path.name == "result.jsonl" and count[0] == 3:
            real(path, data[: len(data) // 2 if torn else 0])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(folder_module, "_append", full)
    with pytest.raises(WriteError, match=r"the disk is full. The 2 results already there are whole"):
        run(tmp_path)
    monkeypatch.undo()
    assert len((tmp_path / "result.jsonl").read_text().splitlines()) == 2
    assert numbers(run(tmp_path, "resume")) == numbers(run(tmp_path / "whole"))


def test_a_full_disk_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module.os, "fsync", full)
    with pytest.raises(WriteError, match=r"could not write spec.json in .*: the disk is full"):
        run(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.part"))


def test_two_writers_are_one_too_many(tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom settlepoint.lock import locked\n"
    code += "with locked(Path(sys.argv[1]), OSError):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    assert other.stdin
    assert other.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"is being written by process {other.pid}"):
        run(tmp_path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    other.stdin.close()
    other.stdout.close()
    assert (tmp_path / "lock").read_text() == f"{other.pid}\n"  # stale: its process is dead
    assert run(tmp_path).exit_code == 0


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path, RunError):
            assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_killed_run_continues_with_the_same_numbers(tmp_path: Path) -> None:
    """A real SIGKILL in the middle of a real process."""
    code = "import sys, time\nfrom pathlib import Path\nfrom tests.toy import Toy\n"
    code += "from settlepoint.experiments.launch import Request, launch\n"
    code += "class Slow(Toy):\n    def run(self, cell, seed, context):\n        time.sleep(0.15)\n"
    code += "        return super().run(cell, seed, context)\nlaunch(Slow(), Request(scale='smoke', out=Path(sys.argv[1])))\n"
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], cwd=root)
    results = tmp_path / "run" / "result.jsonl"
    while not (results.exists() and results.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert results.read_bytes().count(b"\n") < 6
    assert numbers(run(tmp_path / "run", "resume")) == numbers(run(tmp_path / "whole"))


class Deadly(Toy):
    """One cell whose process is killed, as for memory."""

    def run(self, cell, seed, context):
        if (cell, seed) == ("rate 0.6", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().run(cell, seed, context)


def test_a_worker_that_is_killed_fails_only_its_cell(tmp_path: Path) -> None:
    done = launch(Deadly(), Request(scale="smoke", out=tmp_path / "deadly", jobs=2))
    assert [(record.pair, record.error) for record in done.ran.failed] == [
        (("rate 0.6", 0), "its process died without a word; was it short of memory?")
    ]
    whole = numbers(run(tmp_path / "whole"))
    assert {r.pair: dict(r.metrics) for r in done.ran.records if r.error is None}.items() < {
        pair: metrics for pair, (metrics, _) in whole.items()
    }.items()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])  # a worker may be caught importing
def test_ctrl_c_ends_a_real_process(tmp_path: Path, jobs: int) -> None:
    """SIGINT to the whole group, as a terminal sends it; cells of half a minute are not waited for."""
    code = "import sys, signal, time\nfrom pathlib import Path\nfrom tests.toy import Toy\n"
    code += "from settlepoint.experiments.launch import Request, launch\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from tests.toy_slow import Slow\nout, jobs = Path(sys.argv[1]), int(sys.argv[2])\n"
    code += "sys.exit(launch(Slow(), Request(scale='smoke', out=out, jobs=jobs)).exit_code)\n"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path), str(jobs)]
    process = subprocess.Popen(command, cwd=root, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "result.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=25)
    assert process.returncode == 3, errors
    assert "Traceback" not in errors
    assert len(RunFolder(tmp_path).records()[0]) == 1


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot make the folder"):
        run(tmp_path / "file" / "run")


def test_a_folder_without_a_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no spec.json: it is not the folder of a run"):
        RunFolder(tmp_path).read_json("spec.json")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        RunFolder(tmp_path).read_json("spec.json")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"metric": {}}, "an outcome holds metrics, curves and notes, got ['metric']"),
        ({"metrics": {"a": "high"}}, "the metric 'a' must be a number, got 'high'"),
        ({"metrics": {"a": object}}, "a result holds numbers"),
    ],
)
def test_a_wrong_outcome_fails_its_cell(tmp_path: Path, found: dict, message: str) -> None:
    class Wrong(Toy):
        def run(self, cell, seed, context):
            return found

    failed = launch(Wrong(), Request(scale="smoke", out=tmp_path)).ran.failed
    assert len(failed) == 6
    assert message in str(failed[0].error)


def test_jobs_must_be_positive() -> None:
    with pytest.raises(RunError, match="jobs must be at least 1, got 0"):
        Local(0)


def test_ray_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r'pip install "settlepoint\[scale\]"'):
        launch(Toy(), Request(scale="smoke", out=tmp_path, engine="ray"))
    assert Ray(2).jobs == 2


@pytest.mark.slow
def test_ray_gives_the_same_numbers(tmp_path: Path) -> None:
    """In a process of its own: ray leaves threads and sockets behind. Needs the extra `scale`."""
    pytest.importorskip("ray")
    code = "import sys\nfrom pathlib import Path\nfrom tests.toy import Toy\n"
    code += "from settlepoint.experiments.launch import Request, launch\n"
    code += "launch(Toy(), Request(scale='smoke', out=Path(sys.argv[1]), engine='ray', jobs=2))\n"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ray")], cwd=root, check=True, capture_output=True)
    assert numbers(run(tmp_path / "ray", "resume")) == numbers(run(tmp_path / "local"))
