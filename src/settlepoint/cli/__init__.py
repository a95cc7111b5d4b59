"""`settle`: parses, calls the library, prints. Results go to standard output, progress and errors to standard error.

Typer reads options from signatures, so that commands have more parameters than a function of the library would.
"""

import typer

from settlepoint.cli import checking, datasets, experiments, solving, tuning

app = typer.Typer(
    name="settle", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data, name="data", help="The data sets: list, verify, fetch, make.")


@app.callback()
def settle() -> None:
    """Make any network or equation iterate until it settles, and know whether to trust where it settled."""


for home, name, command, example in (
    (app, "demo", experiments.demo_command, "settle demo --out runs/demo"),
    (app, "tune", tuning.tune_command, "settle tune chandrasekhar --set c=0.99 -o solver.safetensors"),
    (app, "check", checking.check_command, "settle check examples/check_operator.py:model -o check.html"),
    (app, "solve", solving.solve_command, "settle solve chandrasekhar --solver solver.safetensors --problems 5"),
    (app, "list", experiments.list_command, "settle list --json"),
    (app, "run", experiments.run_command, "settle run digits --scale cpu --seeds 3 --set units=50"),
    (app, "bench", experiments.bench_command, "settle bench --scale smoke"),
    (app, "report", experiments.report_command, "settle report runs/digits-cpu runs/solvers-cpu -o report.html"),
    (data, "list", datasets.data_list, "settle data list --data-dir data"),
    (data, "verify", datasets.data_verify, "settle data verify planetoid-cora --data-dir data"),
    (data, "fetch", datasets.data_fetch, "settle data fetch planetoid-cora --data-dir data"),
    (data, "navier-stokes", datasets.data_navier_stokes, "settle data navier-stokes --n 1000 -o navier_stokes.npz"),
    (data, "superpixels", datasets.data_superpixels, "settle data superpixels images masks --void 11 -o graphs.npz"),
):
    home.command(name, epilog=f"Example: {example}")(command)


def main() -> None:
    """The entry point of the program."""
    app(prog_name="settle")


__all__ = ["app", "main"]
