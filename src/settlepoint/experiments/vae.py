"""vae: autoencoders of digits iterated to their fixed points, with the projection that needs only one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from settlepoint.data import digits
from settlepoint.experiments.autoencoders import (
    DEPTHS,
    SIZES,
    Arm,
    VaeScale,
    control,
    diagnosed,
    fitted,
    recalled,
)
from settlepoint.experiments.experiment import (
    Check,
    Column,
    Context,
    Experiment,
    Figure,
    Results,
    Table,
    curve,
    outcome,
)

ARMS: dict[str, Arm] = {
    "latent 2": Arm(2),
    "latent 8": Arm(8),
    "latent 16": Arm(16),
    "latent 8, beta 4": Arm(8, beta=4.0),
    "latent 8, decay 1": Arm(8, decay=1.0),
    "latent 8, contracting": Arm(8, contracting=0.95),
    "plain 16": Arm(16, beta=0.0),
    "denoising 16": Arm(16, beta=0.0, noisy=True),
    "memory": Arm(64, beta=0.0, few=True),
}
CONTROLS = {"PCA 2": 2, "PCA 8": 8, "PCA 16": 16, "mean image": 0}
VARIATIONAL = ("latent 2", "latent 8", "latent 16", "latent 8, beta 4", "latent 8, decay 1")
CONTRACTING, MEMORY = "latent 8, contracting", "memory"
SHOWN = ("0", "1", "2", "4", "32", "fixed point")


class Vae(Experiment):
    """Every arm is the operator x -> decode(mean(encode(x))), started at test digits, worse ones, and noise."""

    id = "vae"
    title = "Autoencoders of digits as iterated operators"
    claim = (
        "A trained autoencoder is not idempotent: iterated, digits leave for a few attracting images and often change "
        "their class. One pass takes away most of the noise that ever goes, a VAE's about as much as PCA of its width; "
        "a second pass takes away at most 5 % more, and the fixed point is farther from the clean digit than one pass."
    )
    source = "Operator Learning Meets Numerical Analysis, the variational autoencoder that it names; Kingma and Welling"
    needs = (lambda context: digits(),)
    scales: ClassVar = {name: VaeScale(**sizes) for name, sizes in SIZES.items()}
    scaled_down = {
        "smoke": "32 units, 6 epochs, 30 test digits, 100 evaluations at most",
        "cpu": "128 units, 100 epochs, 200 of the 397 test digits, certificates of 40 fixed points",
    }
    tables = (
        Table(
            "From test digits to fixed points",
            (
                Column("reconstruction", "MSE, one pass", fmt=".4f", better="low"),
                Column("moved", "MSE, fixed point", fmt=".4f", better="low"),
                Column("same class, one pass", "Same digit, one pass", "%", ".1f"),
                Column("same class", "same digit, fixed point", "%", ".1f"),
                Column("same class, noisy", "the same, from noisy digits", "%", ".1f"),
                Column("distinct, digits", "Fixed points, from digits", fmt=".0f"),
                Column("distinct, noise", "from noise", fmt=".0f"),
                Column("distinct, Anderson", "from digits, Anderson", fmt=".0f"),
                Column("settled", "Settled, Picard", "%", ".1f"),
                Column("evals p50", "median evaluations", fmt=".0f"),
                Column("settled, Anderson", "Settled, Anderson", "%", ".1f"),
                Column("evals p50, Anderson", "median evaluations", fmt=".0f"),
                Column("diverged, short window", "Called DIVERGED at window = 20", fmt=".0f"),
                Column("training seconds", "Training", "CPU s", ".1f"),
            ),
            caption="Each of the test digits on its own, in float64, to a residual of 1e-8: 2000 evaluations at most, "
            "500 for Anderson. Fixed points: groups of converged rows farther apart than .05. Same digit: that of the "
            "nearest training image. latent n: a VAE with beta = 1; beta 4; decay 1: of AdamW; contracting: the bound "
            "of T held to .95 in training; plain: beta = 0; denoising: plain, with noise on what it is shown; memory: "
            "plain, on 20 images only. PCA n: the projection of the same width, settled after one step by "
            "construction. T is bounded, so that nothing diverges: where the residual grows for 20 looks, an iterate "
            "passes a saddle.",
            command="settle run vae --scale {scale} --seeds {seeds}",
        ),
        Table(
            "At the fixed points",
            (
                Column("spectral radius", "Spectral radius, median", fmt=".3f"),
                Column("largest radius", "largest", fmt=".3f"),
                Column("norm", "Norm of the Jacobian, median", fmt=".2f"),
                Column("upper bound", "Lipschitz bound, everywhere", fmt=".3g"),
                Column("stable, Anderson", "Attracting, of Anderson's", "%", ".0f"),
                Column("settling", "Settling from 50 to 200 iterations", "%", ".0f"),
                Column("proved", "Proved", "%", ".0f"),
                Column("error radius", "error radius, median", fmt=".1e"),
                Column("unique", "proved to be the only one", "%", ".0f"),
                Column("kept", "Memories that are fixed", "%", ".0f"),
                Column("recalled", "found from noisy ones", "%", ".0f"),
            ),
            caption="Of the rows that converged. Settling: the verdict of certify.verdict on the test digits. "
            "Proved: by certify.certificate, for the first rows. Memories: the images that memory was trained on, "
            "within .5 of which Picard ends.",
        ),
        Table(
            "Does iterating take noise away? MSE to the clean digit",
            (*(Column(f"{name}, {k}", f"{name}, {k}", fmt=".4f") for name in ("noisy", "dropped") for k in SHOWN),),
            caption="noisy: test digits with Gaussian noise of deviation .3; dropped: half of the pixels 0. 0: as "
            "shown; 1, 2, ...: after so many iterations of T.",
        ),
    )
    figures = (
        Figure("Noisy digits", ("noisy",), "MSE to the clean digit by iterations of T."),
        Figure("Dropped pixels", ("dropped",), "MSE to the clean digit by iterations of T."),
        Figure("Fixed points", ("distinct, digits", "distinct, noise"), "Distinct fixed points reached.", kind="bars"),
    )

    def cells(self, scale: VaeScale) -> Sequence[str]:
        return (*ARMS, *CONTROLS)

    def run(self, cell: str, seed: int, context: Context) -> Mapping[str, Any]:
        if cell in CONTROLS:
            model, seconds = control(CONTROLS[cell], context), 0.0
        else:
            model, history = fitted(ARMS[cell], seed, context)
            seconds = history.seconds
        metrics, courses = diagnosed(model, context)
        if cell == MEMORY:
            metrics |= recalled(model, context)
        curves = {
            name: curve(DEPTHS, errors, x_label="iterations", y_label="mean squared error", group=cell)
            for name, errors in courses.items()
        }
        return outcome(metrics | {"training seconds": seconds}, curves)

    def checks(self, results: Results) -> Sequence[Check]:
        if not results.scale.thresholds:
            return [Check.at_least("cells that ended", len(results.cells), len(self.cells(results.scale)))]
        mean = results.mean
        arms = tuple(ARMS)
        worse = [mean(cell, "noisy, fixed point") / mean(cell, "noisy, 1") for cell in arms]
        second = [mean(cell, "noisy, 1") / mean(cell, "noisy, 2") for cell in arms]
        return [
            Check.at_most("false claims of convergence", results.total("false claims"), 0, "all cells and seeds"),
            *(Check.at_most(f"{cell}: MSE of one pass over the mean image's",
                            mean(cell, "reconstruction") / mean(cell, "mean image"), 0.99) for cell in arms),
            Check.at_least("noisy digits: MSE of the fixed point over one pass, least of all", min(worse), 1.0),
            Check.at_most("noisy digits: MSE of one pass over two passes, most of all", max(second), 1.05),
            *(Check.at_most(f"{cell}: fixed points per digit", mean(cell, "distinct, digits") / results.scale.test, 0.5)
              for cell in VARIATIONAL),
            Check.within("contracting: fixed points", mean(CONTRACTING, "distinct, digits"), 1, 1),
            Check.at_least("contracting: proved to be the only one (%)", mean(CONTRACTING, "unique"), 100),
            *(Check.at_most(f"{cell}: evaluations until settled", mean(cell, "evals max"), 2) for cell in CONTROLS),
            Check.at_least("memory: images that are fixed (%)", mean(MEMORY, "kept"), 50),
        ]  # fmt: skip


EXPERIMENT = Vae()
