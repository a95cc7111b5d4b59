"""table1-camvid: Table 1 on CamVid-SP, street images by the recipe of PascalVOC-SP."""

from __future__ import annotations

from pathlib import Path

from settlepoint.data.camvid import camvid
from settlepoint.data.graph_set import GraphSet
from settlepoint.experiments.experiment import Column, Table
from settlepoint.experiments.table1_superpixels import CAPTION, COLUMNS, FIGURES, SuperpixelScale, SuperpixelTable


class Table1Camvid(SuperpixelTable):
    """Table 1 on another data set: its figures are its own, and stand beside none of the paper's."""

    id = "table1-camvid"
    title = "Table 1 on CamVid-SP"
    claim = (
        "On superpixel graphs of street images every model of Table 1, with and without iteration, on raw and on "
        "standardised features, learns more than the commonest class; what iteration adds stands beside it."
    )
    source = "Stands in for Operator Learning Meets Numerical Analysis, Table 1; CamVid (Brostow et al. 2009)"
    scales = {
        "smoke": SuperpixelScale(
            hidden=16, sage_hidden=14, train=12, val=4, test=4, steps=4, epochs=6, batch=4, lr=1e-2,
            models=("no graph", "gcn without", "gcn itergnn", "gcn pign"),
        ),
        "cpu": SuperpixelScale(
            seeds=3, hidden=64, sage_hidden=56, train=120, val=60, test=60, steps=8, epochs=15, batch=8, lr=3e-3
        ),
        "paper": SuperpixelScale(seeds=5),
    }  # fmt: skip
    scaled_down = {
        "smoke": "12 graphs, 6 epochs, 4 iterations, 16 hidden features, gcn alone",
        "cpu": "64 hidden features instead of 400, 120 training graphs of 367, 15 epochs instead of 300, batches of 8",
    }
    needs = (lambda context: EXPERIMENT.sets(context),)
    tables = (
        Table(
            "CamVid-SP, macro-F1",
            (
                Column("raw", "CamVid-SP, raw features", fmt=".3f", better="high"),
                Column("standardised", "CamVid-SP, standardised", fmt=".3f", better="high"),
                *COLUMNS,
            ),
            caption=CAPTION,
            command='settle run table1-camvid --scale {scale} --seeds {seeds} --set "models={cell}"',
        ),
    )
    figures = FIGURES

    def load(self, folder: Path | None, split: str) -> GraphSet:
        return camvid(folder, split)


EXPERIMENT = Table1Camvid()
