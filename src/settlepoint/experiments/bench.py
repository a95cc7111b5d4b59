"""`settle bench`: the target table, ours beside the peer and the number promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from settlepoint.experiments.experiment import Check, Column, Context, Experiment, Results, Scale, Table, outcome
from settlepoint.experiments.peers import required
from settlepoint.experiments.targets import ROWS


@dataclass(frozen=True, kw_only=True)
class BenchScale(Scale):
    """How often, and which rows."""

    repeats: Annotated[int, "timed runs of every variant, interleaved"] = 10
    rows: Annotated[tuple[str, ...], "rows of the table; all when empty"] = ()


class Bench(Experiment):
    """One cell a row of the table."""

    id = "bench"
    title = "Targets of speed, evaluations, memory and exactness"
    claim = "Each target of the core, measured beside a peer in one run on one thread; a miss is shown as one."
    source = "the targets of the core"
    needs: ClassVar = (required,)
    scales: ClassVar = {
        "smoke": BenchScale(
            repeats=2, rows=("Anderson evaluations at .9", "Newton-Krylov evaluations at .99, float64")
        ),
        "cpu": BenchScale(),
        "paper": BenchScale(repeats=30),
    }
    scaled_down: ClassVar = {"smoke": "two rows of the table, each timed twice"}
    tables: ClassVar = (
        Table(
            "Ours, target, peer",
            (Column("ours", "ours"), Column("target", "target"), Column("peer", "peer")),
            caption="A row without a target shows a cost. Times are process times on one thread: the least of the "
            "repeats, for Auto the median. The peer of each row: "
            + "; ".join(f"{name}: {row.peer}" for name, row in ROWS.items())
            + ".",
        ),
    )

    def cells(self, scale: BenchScale) -> tuple[str, ...]:
        return scale.rows or tuple(ROWS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        row = ROWS[cell]
        ours, peer = row.measure(context.scale.repeats)
        metrics = {"ours": ours, "peer": peer}
        return outcome(
            metrics if row.target is None else {**metrics, "target": row.target}, notes=(f"peer: {row.peer}",)
        )

    def checks(self, results: Results) -> tuple[Check, ...]:
        found = []
        for name in self.cells(results.scale):
            row = ROWS[name]
            if row.target is not None:
                check = Check.at_most if row.better == "low" else Check.at_least
                found.append(check(name, results.mean(name, "ours"), row.target, f"peer: {row.peer}"))
        return tuple(found)


EXPERIMENT = Bench()
