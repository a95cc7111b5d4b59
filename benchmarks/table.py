"""Markdown of a finished `settle bench` run: `python benchmarks/table.py runs/bench-cpu > benchmarks/README.md`."""

import json
import sys
from pathlib import Path

from settlepoint.experiments.targets import ROWS


def main(run: Path) -> None:
    """Print the table of that run folder."""
    records = [json.loads(line) for line in (run / "result.jsonl").read_text().splitlines()]
    environment = json.loads((run / "environment.json").read_text())
    print(
        "# Benchmarks\n\n`make bench` measures the target table; `pytest benchmarks --benchmark-only` the time of one"
    )
    print("iteration by solver and shape. The table below was written by `benchmarks/table.py` from one run.\n")
    print("| row | ours | target | | peer | what the peer is |\n|---|---|---|---|---|---|")
    for record in records:
        name, metrics = record["cell"], record["metrics"]
        row = ROWS[name]
        ours, peer = float(metrics["ours"]), float(metrics["peer"])
        print(f"| {name} | {ours:.4g} | {_target(row)} | {_verdict(row, metrics)} | {peer:.4g} | {row.peer} |")
    print("\n```\n" + json.dumps(environment, indent=1, default=str) + "\n```")


def _target(row) -> str:
    if row.target is None:
        return ""
    return f"{'≤' if row.better == 'low' else '≥'} {row.target:g}"


def _verdict(row, metrics) -> str:
    if row.target is None:
        return ""
    met = metrics["ours"] <= row.target if row.better == "low" else metrics["ours"] >= row.target
    return "met" if met else "**missed**"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
