"""tune: the cheapest solver for a class of problems, learned or classical, with evidence and a guard."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace

import torch

from settlepoint.learn.draws import Draws
from settlepoint.learn.guard import Cost, calls, cost, goes_back, guarded
from settlepoint.learn.levenberg_marquardt import LevenbergMarquardt
from settlepoint.learn.race import Contender, Entry, race, run
from settlepoint.learn.structures import Lesson, Structure, classical, finite_solutions, structures
from settlepoint.learn.tune_steps import tune_steps
from settlepoint.learn.tuned import Budget, Report, Tuned
from settlepoint.problems import Family
from settlepoint.problems.batch import joined
from settlepoint.solve import solve
from settlepoint.stop import Tolerance

_NEAR = 1.02  # of the least cost: what counts as equal to it
_WORTH = 0.97  # a learned solver must cost at most this share of the best classical one


def tune(
    family: Family,
    budget: Budget | int | None = None,
    tolerance: float = 1e-8,
    *,
    seed: int = 0,
    by: str = "evaluations",
    trainer: LevenbergMarquardt | None = None,
    progress: Report | None = None,
) -> Tuned:
    """Races classical and learned solvers on problems of the family and returns the cheapest, guarded.

    tolerance: on |P(x) - x|, absolute, in the norm of the space; of no meaning for families of form
    "rhs", which `tune_steps` judges by the error at equal work.
    budget: a Budget, or evaluations a problem may take. by: "evaluations" or "seconds". trainer: what trains the
    structures in the end. All but times repeats exactly under one seed, with by="evaluations" and no budget of seconds.

    The winner is Safeguarded(learned, runner-up), the runner-up the best classical solver on the validation problems;
    or the runner-up itself where nothing learned is cheaper there, or where one of the problems it was tuned on costs
    more than the guard allows. Held-out problems are for the evidence alone.
    """
    budget = (
        Budget(evaluations=budget) if isinstance(budget, int) and not isinstance(budget, bool) else budget or Budget()
    )
    if not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, an integer or None, got {type(budget).__name__}")
    if not isinstance(family, Family):
        raise TypeError(f"family must be a Family, such as problems.from_callable makes, got {type(family).__name__}")
    if not isinstance(tolerance, int | float) or not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"tolerance must be a finite number > 0, got {tolerance!r}")
    if by not in ("evaluations", "seconds"):
        raise ValueError(f"by must be 'evaluations' or 'seconds', got {by!r}")
    if family.form == "rhs":
        return tune_steps(family, budget, seed=seed, trainer=trainer, progress=progress)
    stop = Tolerance(atol=tolerance, max_steps=budget.evaluations)
    contest = _Contest(
        family, budget, stop, seed, by, trainer or LevenbergMarquardt(iterations=60), progress or _silent
    )
    return contest.decided()


class _Contest:
    """One run of tune: the problems, what has been tried, and how long it took."""

    def __init__(self, family: Family, budget: Budget, stop: Tolerance, seed: int, by: str, trainer, report: Report):
        self.family, self.budget, self.stop, self.seed, self.by = family, budget, stop, seed, by
        self.trainer, self.report, self.begun = trainer, report, time.monotonic()
        self.draws = Draws.of(family, budget, seed)
        self.training, self.validation, self.held_out = self.draws.training, self.draws.validation, self.draws.held_out
        self.left_out: list[str] = []
        self.dropped: list[Contender] = []

    def decided(self) -> Tuned:
        """The whole contest."""
        known = classical(self.family)
        self.report("classical solvers", 0, 1)
        entries = race(known, self.family, self.validation, self.stop)
        runner_up = _dependable(entries, self.by)
        finalists = self._learned(runner_up)
        if not finalists:
            return self._summed_up([*known], runner_up, None, None, 1)
        best, winner, bound = self._preferred(finalists, runner_up)
        contenders = [*known, *self.dropped, *(e.contender for e in finalists), winner.contender]
        return self._summed_up(contenders, runner_up, winner, bound, calls(best.solver))

    def _preferred(self, finalists: list[Entry], runner_up: Entry) -> tuple[Contender, Entry, Cost]:
        """The finalist that keeps the guard's bound best on training and validation problems together; of those within
        2 % of the cheapest one that goes back to the runner-up exactly. As it is, guarded on the validation problems,
        and its bound.
        """
        seen = joined(self.training, self.validation)
        peer = run(runner_up.contender, self.family, seen, self.stop)
        found: list[tuple[Contender, Entry, Cost]] = []
        for k, finalist in enumerate(finalists):
            self.report(f"guarding {finalist.contender.name}", k, len(finalists))
            entry, bound = guarded(finalist.contender, peer, self.family, seen, self.stop)
            found.append((finalist.contender, run(entry.contender, self.family, self.validation, self.stop), bound))
        most = max(bound.within for _, _, bound in found)
        found = [f for f in found if f[2].within == most]
        failures, value = min(entry.score(self.by) for _, entry, _ in found)
        near = [f for f in found if f[1].failures == failures and _value(f[1], self.by) <= _NEAR * value]
        return min(near, key=lambda f: (not goes_back(f[0], runner_up), _value(f[1], self.by)))

    def _lesson(self, runner_up: Entry) -> Lesson:
        solver, stop = runner_up.contender.solver, replace(self.stop, atol=0.01 * self.stop.atol)
        with torch.no_grad():
            found = solve(self.family.equation(self.training), self.training.x0, solver, stop)
        assert isinstance(found.value, torch.Tensor)
        near = found.residual <= self.stop.atol
        known = finite_solutions(found.value, near)
        return Lesson(
            self.family, self.training, known, self.stop.atol, solver, runner_up.mean, self.trainer, self.seed
        )  # fmt: skip

    def _learned(self, runner_up: Entry) -> list[Entry]:
        """Successive halving: glimpses of all structures, and more training for the better half each time."""
        lesson = self._lesson(runner_up)
        field: list[tuple[Structure, Contender]] = []
        for structure in structures():
            field.append((structure, Contender(structure.name, lesson.runner_up, "learned")))
        entries: list[Entry] = []
        for level, keep in enumerate((6, 3, 3)):
            field = self._level(lesson, level, field)
            entries = race([c for _, c in field], self.family, self.validation, self.stop) if field else []
            order = sorted(range(len(field)), key=lambda i: entries[i].score(self.by))
            note = f"dropped after level {level + 1} of 3"
            self.dropped += [replace(field[i][1], note=note) for i in order[keep:]]
            order = order[:keep]
            field, entries = [field[i] for i in order], [entries[i] for i in order]
        return entries

    def _level(self, lesson: Lesson, level: int, field: list[tuple[Structure, Contender]]):
        """Every structure of the field trained at that level, while the seconds last."""
        made = []
        for k, (structure, contender) in enumerate(field):
            self.report(f"training {structure.name}, level {level + 1} of 3", k, len(field))
            if self.budget.seconds is not None and time.monotonic() - self.begun > self.budget.seconds:
                self.left_out.append(f"{structure.name}, level {level + 1}")
                if level:
                    made.append((structure, contender))
                continue
            begin = time.process_time()
            try:
                start = contender.solver if level else structure.begin(lesson)
                solver = structure.train(lesson, level, start)
            except (ValueError, RuntimeError) as error:
                self.left_out.append(f"{structure.name}: {str(error)[:200]}")
                continue
            spent = contender.training + time.process_time() - begin
            made.append((structure, Contender(structure.name, solver, "learned", spent)))
        return made

    def _summed_up(
        self, contenders: list[Contender], runner_up: Entry, winner: Entry | None, bound: Cost | None, step: int
    ) -> Tuned:
        """The choice from the validation problems, and the evidence from the held-out ones."""
        self.report("held-out problems", 0, 1)
        entries = race(contenders, self.family, self.held_out, self.stop)
        by_name = {e.contender.name: e for e in entries}
        classic = by_name[runner_up.contender.name]
        best = None if winner is None else by_name[winner.contender.name]
        kept = bound is not None and bound.within == 1.0
        worth = winner is not None and kept and _cheaper(winner, runner_up, self.by)
        chosen = best if worth and best is not None else classic
        table = [e.row() for e in sorted(entries, key=lambda e: e.score(self.by))]
        verdict = _verdict(classic, best, worth, self.by)
        if best is not None and bound is not None and not kept:
            verdict += f" It broke the bound of the guard on {1 - bound.within:.2%} of the problems it was tuned on."
        verdict += self.draws.warning
        evidence = {
            "family": self.family.settings(), "held_out_seen": self.draws.seen,
            "tolerance": self.stop.atol, "budget": asdict(self.budget),
            "seed": self.seed, "by": self.by, "winner": chosen.contender.name, "worth": worth, "verdict": verdict,
            "runner_up": runner_up.contender.name, "table": table, "left_out": self.left_out,
            "torch": torch.__version__, "guard_in_tuning": None if bound is None else bound.row(),
        }  # fmt: skip
        if best is not None:
            evidence["guard_on_held_out"] = cost(best.evals, classic.evals, step).row()
        return Tuned(chosen.contender.solver, chosen.contender.name, worth, verdict, table, evidence)


def _dependable(entries: list[Entry], by: str) -> Entry:
    """The best classical entry; of those within 2 % of it the first, as the simpler ones come first."""
    failures, value = min(e.score(by) for e in entries)
    return next(e for e in entries if e.failures == failures and _value(e, by) <= _NEAR * value)


def _value(entry: Entry, by: str) -> float:
    return entry.score(by)[1]


def _cheaper(learned: Entry, classic: Entry, by: str) -> bool:
    """Whether the learned entry is worth it: something is solved, no less than by the other, and for less."""
    some = learned.failures < len(learned.evals) and learned.failures <= classic.failures
    return some and _value(learned, by) <= _WORTH * _value(classic, by)


def _verdict(classic: Entry, best: Entry | None, worth: bool, by: str) -> str:
    if classic.failures == len(classic.evals) and (best is None or best.failures == len(best.evals)):
        return (
            f"Nobody solves it: none of {len(classic.evals)} held-out problems came to the tolerance; look at one by "
            "settlepoint.solve, whose statuses say what happens."
        )
    unit = "evaluations on average" if by == "evaluations" else "CPU seconds in all"
    known = f"{classic.contender.name} takes {_value(classic, by):.3g} {unit}"
    scope = f"on {len(classic.evals)} held-out problems, {classic.failures} of them unsolved"
    if best is None:
        return f"Nothing was learned: {known} {scope}."
    found = f"{best.contender.name} takes {_value(best, by):.3g} {unit} ({best.failures} unsolved)"
    if worth:
        return f"Worth it: {found} where {known} {scope}."
    return f"Not worth it: {found}, and {known} {scope}; the classical solver is returned."


def _silent(what: str, done: int, of: int) -> None:
    """No report."""
