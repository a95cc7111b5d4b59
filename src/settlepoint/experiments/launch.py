"""launch: run an experiment into a folder and judge it by its checks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from settlepoint.data import DataError
from settlepoint.experiments.experiment import Experiment
from settlepoint.experiments.results import Check, Results
from settlepoint.experiments.scale import Context, Scale, UsageError, field_help
from settlepoint.runs import Local, Mode, Plan, Ran, Ray, execute, plain
from settlepoint.runs.plan import Say

DONE, OFF, USAGE, INCOMPLETE = 0, 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Request:
    """How an experiment is to be run; each field is an option of `settle run`."""

    scale: Annotated[str, "smoke (seconds), cpu (minutes on two cores) or paper (the published size)"] = "cpu"
    seeds: Annotated[int | None, "number of seeds instead of the scale's own"] = None
    settings: Annotated[Mapping[str, str], "replace a field of the scale: --set units=50"] = field(default_factory=dict)
    jobs: Annotated[int, "cells that run at the same time, each in its own process"] = 1
    engine: Annotated[Literal["local", "ray"], "local, or ray (extra: scale)"] = "local"
    mode: Annotated[Mode, "go on with an interrupted run"] = "new"
    data_dir: Annotated[Path | None, "folder of the data sets; SETTLEPOINT_DATA when not given"] = None
    device: Annotated[str, "cpu or cuda"] = "cpu"
    select: Annotated[
        bool, "choose the settings that the experiment runs with, on validation data, instead of running it"
    ] = False
    threads: Annotated[int, "threads of torch in each cell; part of what decides the last digits"] = 1
    out: Annotated[Path | None, "folder of the run; runs/<id>-<scale> when not given"] = None

    @classmethod
    def help(cls) -> dict[str, str]:
        """Field name to its one-line documentation."""
        return field_help(cls)


@dataclass(frozen=True)
class Launched:
    """A run and its verdict. checks is empty while cells are missing."""

    ran: Ran
    results: Results
    checks: Sequence[Check]

    @property
    def exit_code(self) -> int:
        """3 when a cell raised or is missing, else 1 when a check failed, else 0."""
        if not self.ran.complete:
            return INCOMPLETE
        return DONE if all(check.passed for check in self.checks) else OFF

    def summary(self) -> dict[str, Any]:
        """The run as `--json` prints it."""
        return plain(
            {
                "folder": str(self.ran.folder.path),
                "exit_code": self.exit_code,
                "done": len(self.ran.records) - len(self.ran.failed),
                "failed": [{"cell": r.cell, "seed": r.seed, "error": r.error} for r in self.ran.failed],
                "missing": [list(pair) for pair in self.ran.missing],
                "interrupted": self.ran.interrupted,
                "checks": [asdict(check) for check in self.checks],
                "notes": list(self.ran.notes),
            }
        )


@dataclass(frozen=True)
class _Work:
    """The cells of one experiment as a function that other processes can import."""

    experiment: Experiment
    context: Context

    def __call__(self, cell: str, seed: int, say: Say) -> Mapping[str, Any]:
        return self.experiment.run(cell, seed, replace(self.context, progress=say))

    def together(self, cell: str, seeds: Sequence[int], say: Say) -> Sequence[Mapping[str, Any]]:
        """All seeds of a cell."""
        return self.experiment.run_together(cell, seeds, replace(self.context, progress=say))


def resolve(experiment: Experiment, request: Request) -> Scale:
    """The scale of a request, overrides applied. Raises UsageError naming the valid scales or fields."""
    if request.scale not in experiment.scales:
        known = ", ".join(experiment.scales)
        raise UsageError(f"{experiment.id} has no scale {request.scale!r}; its scales are {known}")
    if request.threads < 1 or request.jobs < 1:
        raise UsageError(f"threads and jobs must be at least 1, got {request.threads} and {request.jobs}")
    if request.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, and torch finds no GPU here; leave --device out")
    seeds = {} if request.seeds is None else {"seeds": str(request.seeds)}
    return experiment.scales[request.scale].override({**request.settings, **seeds})


def _provided(experiment: Experiment, context: Context) -> None:
    """Raise UsageError when data or a package that the experiment needs are missing or corrupt."""
    for need in experiment.needs:
        try:
            need(context)
        except (DataError, ImportError) as error:
            raise UsageError(f"{experiment.id} cannot start: {error}") from None


def launch(experiment: Experiment, request: Request) -> Launched:
    """Run what is missing, then check what is claimed; writes all files of the folder but the report.

    Raises UsageError for an impossible request, RunError for the wrong folder, WriteError for a full disk.
    """
    scale = resolve(experiment, request)
    context = Context(scale, request.data_dir, request.device)
    work = _Work(experiment, context)
    plan = Plan(_spec(experiment, request, scale), work, work.together if experiment.together else None)
    engine = Ray(request.jobs) if request.engine == "ray" else Local(request.jobs)
    _provided(experiment, context)
    out = request.out or Path("runs") / f"{experiment.id}-{request.scale}"
    ran = execute(plan, out, mode=request.mode, engine=engine)
    results = Results(request.scale, scale, ran.records)
    checks = [] if ran.missing else _judge(experiment, results)
    ran.folder.write_json("checks.json", {"checks": [asdict(check) for check in checks]})
    for name, content in (experiment.artifacts(results) if ran.complete else {}).items():
        ran.folder.write_json(name, plain(content))
    return Launched(ran, results, checks)


def _judge(experiment: Experiment, results: Results) -> Sequence[Check]:
    """The checks; an exception in one of them is itself a failed check, for the results are kept."""
    try:
        return list(experiment.checks(results))
    except Exception as error:
        return [Check("the checks ran", False, f"{type(error).__name__}: {error}", "no error")]


def _spec(experiment: Experiment, request: Request, scale: Scale) -> dict[str, Any]:
    """Everything the report needs to know of the experiment, as JSON."""
    spec = {
        "id": experiment.id,
        "title": experiment.title,
        "claim": experiment.claim,
        "source": experiment.source,
        "scale_name": request.scale,
        "scale": asdict(scale),
        "scale_help": scale.help(),
        "scaled_down": experiment.scaled_down.get(request.scale, ""),
        "overrides": {**request.settings, **({} if request.seeds is None else {"seeds": str(request.seeds)})},
        "cells": list(experiment.cells(scale)),
        "seeds": scale.seeds,
        "device": request.device,
        "threads": request.threads,
        "tables": [asdict(table) for table in experiment.tables],
        "figures": [asdict(figure) for figure in experiment.figures],
    }
    if recorded := experiment.recorded(scale):
        spec["recorded"] = recorded
    return json.loads(json.dumps(plain(spec)))
