"""Campaigns: several experiments one after the other, all of them checked before the first one starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from settlepoint.experiments import REGISTRY, Experiment, Registry, UsageError
from settlepoint.experiments.launch import INCOMPLETE, Launched, Request, launch, resolve

Steps = Sequence[tuple[Experiment, Request]]


def campaign(name: str, request: Request, registry: Registry = REGISTRY) -> Iterator[Launched]:
    """Run one experiment, or "all" of them, each in its own folder; yields each as it ends, stops at an interrupt.

    With "all", request.out is the folder of the folders. Raises UsageError, before anything runs, for a name, scale
    or field that does not exist.
    """
    out = request.out or Path("runs")
    steps = [(_asked(experiment, request), request) for experiment in registry.load_all(name)]
    if name == "all":
        steps = [(e, replace(request, out=out / f"{e.id}-{request.scale}")) for e, _ in steps]
    yield from _in_order(steps)


def demo(out: Path, jobs: int = 1, registry: Registry = REGISTRY) -> Iterator[Launched]:
    """The experiments of `settle demo`, afresh, each in out/<id>; an earlier demo there is replaced."""
    request = Request(jobs=jobs, mode="replace")
    pairs = [(registry.load(name), scale) for name, scale in registry.demo]
    yield from _in_order([(e, replace(request, scale=scale, out=out / e.id)) for e, scale in pairs])


def verdict(launched: Sequence[Launched]) -> int:
    """The exit code of several runs: 3 when one is incomplete, else 1 when a check failed, else 0."""
    codes = {run.exit_code for run in launched}
    return INCOMPLETE if INCOMPLETE in codes else max(codes, default=0)


def _in_order(steps: Steps) -> Iterator[Launched]:
    for experiment, request in steps:
        resolve(experiment, request)
    for experiment, request in steps:
        launched = launch(experiment, request)
        yield launched
        if launched.ran.interrupted:
            return


def _asked(experiment: Experiment, request: Request) -> Experiment:
    if not request.select:
        return experiment
    if experiment.selection is None:
        raise UsageError(f"{experiment.id} has nothing to select; leave --select out")
    return experiment.selection
