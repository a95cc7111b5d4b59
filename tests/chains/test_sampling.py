"""Parallel sampling: diffusers' own schedulers and pipelines are the oracle, step by step and at the end."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from settlepoint.chains import (
    ClippingWarning,
    ExactScore,
    ReverseStep,
    Sweeps,
    parallel_sample,
    sample_pipeline,
    sampling_chain,
)

diffusers = pytest.importorskip("diffusers")
DDIM, DDPM = diffusers.DDIMScheduler, diffusers.DDPMScheduler
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing", "linspace")


def unet(seed: int = 0, dtype: torch.dtype = torch.float64, kind=diffusers.UNet2DModel) -> nn.Module:
    """A random UNet2DModel of 8 x 8 pixels, enough to be nonlinear in x and t."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    return model.to(dtype).eval()


def score(scheduler, bandwidth: float = 0.15) -> ExactScore:
    images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    return ExactScore(images, scheduler.alphas_cumprod.double(), bandwidth)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_by_one(model, scheduler, x: Tensor, steps: int, seed: int | None = None, **settings) -> Tensor:
    """The loop of diffusers' pipelines."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t).sample, t, x, generator=generator, **settings).prev_sample
    return x


def gap(a: Tensor, b: Tensor) -> float:
    return float(((a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize(("prediction", "spacing", "to_one"), [*product(PREDICTIONS, SPACINGS, (True, False))])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_steps_are_those_of_diffusers(prediction: str, spacing: str, to_one: bool, eta: float) -> None:
    scheduler = DDIM(
        clip_sample=False, prediction_type=prediction, timestep_spacing=spacing, set_alpha_to_one=to_one
    )  # fmt: skip
    step = ReverseStep.of(scheduler, 7, eta)
    scheduler.set_timesteps(7)
    m, x, z = normal(7, 1, 3, 3), normal(7, 1, 3, 3, seed=1), normal(7, 1, 3, 3, seed=2)
    moved = step(m, x, torch.arange(7), z)
    for k, t in enumerate(scheduler.timesteps):
        want = scheduler.step(m[k : k + 1], t, x[k : k + 1], eta=eta, variance_noise=z[k : k + 1] if eta else None)
        torch.testing.assert_close(moved[k : k + 1], want.prev_sample, rtol=1e-6, atol=1e-6)
        assert step.times[k] == t


@pytest.mark.parametrize(
    ("prediction", "spacing", "variance"),
    [*product(PREDICTIONS, SPACINGS, ("fixed_small", "fixed_small_log", "fixed_large"))],
)
def test_ddpm_steps_are_those_of_diffusers(prediction: str, spacing: str, variance: str) -> None:
    scheduler = DDPM(
        clip_sample=False, prediction_type=prediction, timestep_spacing=spacing, variance_type=variance
    )  # fmt: skip
    step = ReverseStep.of(scheduler, 7)
    scheduler.set_timesteps(7)
    m, x = normal(7, 1, 3, 3), normal(7, 1, 3, 3, seed=1)
    z = step.drawn(x[:1], torch.Generator().manual_seed(3))[0]
    moved, generator = step(m, x, torch.arange(7), z), torch.Generator().manual_seed(3)
    for k, t in enumerate(scheduler.timesteps):
        want = scheduler.step(m[k : k + 1], t, x[k : k + 1], generator=generator).prev_sample
        torch.testing.assert_close(moved[k : k + 1], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [DDIM, DDPM, diffusers.DDIMParallelScheduler, diffusers.DDPMParallelScheduler])
@pytest.mark.parametrize("settings", [{"clip_sample": True, "clip_sample_range": 0.8}, {"thresholding": True}])
def test_clipping_is_that_of_diffusers_and_warned_of(kind, settings: dict) -> None:
    scheduler = kind(**settings)
    with pytest.warns(ClippingWarning, match=f"the scheduler's {next(iter(settings))} has kinks"):
        step = ReverseStep.of(scheduler, 5)
    scheduler.set_timesteps(5)
    m, x = normal(5, 1, 3, 3), normal(5, 1, 3, 3, seed=1)
    moved = step(m, x, torch.arange(5), step.drawn(x[:1], torch.Generator().manual_seed(3))[0])
    generator = torch.Generator().manual_seed(3)
    for k, t in enumerate(scheduler.timesteps):
        want = scheduler.step(m[k : k + 1], t, x[k : k + 1], generator=generator).prev_sample
        torch.testing.assert_close(moved[k : k + 1], want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("prediction", "kind"), [*product(PREDICTIONS, (DDIM, DDPM))])
def test_the_linear_part_is_the_derivative_while_the_clean_sample_is_held(prediction: str, kind) -> None:
    step = ReverseStep.of(kind(clip_sample=False, prediction_type=prediction), 6)
    k, x, clean = torch.arange(6), normal(6, 1, 1, 1), normal(6, 1, 1, 1, seed=1)

    def output(x: Tensor) -> Tensor:
        signal, noise = (table.double().reshape(-1, 1, 1, 1) for table in (step.signal, step.noise))
        e = (x - signal * clean) / noise
        return {"epsilon": e, "v_prediction": signal * e - noise * clean, "sample": clean}[prediction]

    moved = step(output(x + 1), x + 1, k) - step(output(x), x, k)
    torch.testing.assert_close(moved.flatten(), step.linear.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "steps", "settings"), [(DDIM, 50, {}), (DDIM, 100, {}), (DDIM, 50, {"eta": 1.0}), (DDPM, 50, {})]
)
@pytest.mark.parametrize("form", ["secant", "sum", "implicit"])
def test_samples_are_the_sequential_ones_to_the_tolerance(kind, steps: int, settings: dict, form) -> None:
    scheduler = kind(clip_sample=False)
    model, start = score(scheduler), normal(3, 1, 4, 4)
    want = one_by_one(model, scheduler, start, steps, 5, **settings)
    found = parallel_sample(
        model, scheduler, start, steps=steps, form=form, generator=torch.Generator().manual_seed(5), **settings
    )
    assert gap(found.require().value, want) <= 1e-4
    assert found.calls < steps / (3 if kind is DDIM and not settings else 1.5)


@pytest.mark.parametrize("kind", [DDIM, DDPM])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_so_are_those_of_a_network(kind, prediction: str) -> None:
    scheduler, model, start = kind(clip_sample=False, prediction_type=prediction), unet(), normal(2, 1, 8, 8)
    want = one_by_one(model, scheduler, start, 12, 5)
    for window, form in ((None, "secant"), (5, "secant"), (5, "implicit"), (12, "jacobi")):
        found = parallel_sample(
            model, scheduler, start, steps=12, window=window, form=form, generator=torch.Generator().manual_seed(5)
        )
        assert gap(found.require().value, want) <= 2e-4  # the tolerance, enlarged: norms shrink from 8 to about 1
    exact = parallel_sample(
        model, scheduler, start, steps=12, tolerance=0.0, generator=torch.Generator().manual_seed(5)
    )  # fmt: skip
    assert gap(exact.value, want) <= 1e-5  # coefficients in the scheduler's float32
    assert exact.calls == 12


class Denoiser(diffusers.UNet2DModel):
    """The exact noise of images N(0, .25 I), and a tenth of what a random U-Net says: images stay within [-1, 1]."""

    def forward(self, sample: Tensor, timestep: Tensor, **rest):
        a = DDIM().alphas_cumprod.to(sample)[torch.as_tensor(timestep)].reshape(-1, 1, 1, 1)
        noise = (1 - a).sqrt() / (1 - 0.75 * a) * sample + 0.1 * super().forward(sample, timestep).sample
        return diffusers.models.unets.unet_2d.UNet2DOutput(sample=noise)


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
@pytest.mark.parametrize(("kind", "settings"), [(DDIM, {}), (DDIM, {"eta": 0.5}), (DDPM, {})])
def test_an_unmodified_pipeline_gives_its_own_images(kind, settings: dict, prediction: str) -> None:
    """Equal seeds, equal images: noise is drawn in the order of the pipeline's loop."""
    build = diffusers.DDIMPipeline if kind is DDIM else diffusers.DDPMPipeline
    model = unet(1, kind=Denoiser if prediction == "epsilon" else diffusers.UNet2DModel)
    pipeline = build(unet=model, scheduler=kind(clip_sample=False, prediction_type=prediction))
    pipeline.set_progress_bar_config(disable=True)
    before = pipeline.scheduler.timesteps.clone()
    found = sample_pipeline(pipeline, 2, steps=10, generator=torch.Generator().manual_seed(3), **settings).require()
    assert torch.equal(pipeline.scheduler.timesteps, before)
    want = pipeline(
        2, torch.Generator().manual_seed(3), num_inference_steps=10, output_type="pt", return_dict=False, **settings
    )[0]
    assert found.value.shape == want.shape == (2, 1, 8, 8)
    torch.testing.assert_close(found.value, want, rtol=0, atol=1e-3)  # images lie in [0, 1]
    assert float(((want > 0) & (want < 1)).double().mean()) > 0.8  # the bounds hide no difference


def test_class_labels_go_with_their_rows() -> None:
    scheduler, start, labels = DDIM(clip_sample=False), normal(3, 1, 4, 4), torch.tensor([0, 2, 1])
    models = [score(scheduler, 0.1 + 0.2 * k) for k in range(3)]

    def model(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        whole = torch.stack([m.epsilon(x, t) for m in models])
        return whole[labels, torch.arange(len(x))]

    found = parallel_sample(model, scheduler, start, steps=20, context=(labels,), tolerance=3e-5).require()
    for row, label in enumerate(labels):
        want = one_by_one(models[label], scheduler, start[row : row + 1], 20)
        assert gap(found.value[row : row + 1], want) <= 1e-4


def test_samples_stop_on_their_own_and_calls_are_counted() -> None:
    scheduler = DDIM(clip_sample=False)
    calls: list[int] = []
    exact = score(scheduler)

    def model(x: Tensor, t: Tensor) -> tuple[Tensor]:
        calls.append(len(x))
        return (exact.epsilon(x, t),)

    start = normal(6, 1, 4, 4)
    start[0] = 0
    found = parallel_sample(model, scheduler, start, steps=40, window=15, form="implicit")
    assert found.calls == len(calls) == int(found.solution.steps.max())
    assert found.solution.work == sum(calls)
    assert max(calls) == 6 * 15  # what memory is needed for
    assert int(found.solution.steps.min()) < found.calls


def test_nan_in_one_sample_is_its_own_affair() -> None:
    scheduler = DDIM(clip_sample=False)
    exact, start = score(scheduler), normal(3, 1, 4, 4)
    start[1] += 100

    def model(x: Tensor, t: Tensor) -> Tensor:
        far = x.flatten(1).abs().amax(1) > 60
        return torch.where(far[:, None, None, None], torch.nan, exact.epsilon(x, t))

    found = parallel_sample(model, scheduler, start, steps=15)
    assert found.solution.counts() == {"CONVERGED": 2, "NONFINITE": 1}
    assert gap(found.value[::2], one_by_one(exact, scheduler, start[::2], 15)) <= 1e-4


def test_a_shape_is_noise_in_the_models_dtype() -> None:
    scheduler, model = DDIM(clip_sample=False), unet(dtype=torch.float32)
    seeded = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    found = parallel_sample(model, scheduler, (2, 1, 8, 8), steps=4, generator=seeded()).value
    given = torch.randn(2, 1, 8, 8, generator=seeded())
    torch.testing.assert_close(found, parallel_sample(model, scheduler, given, steps=4).value)
    assert found.dtype == torch.float32


def test_anderson_over_the_window_stays_right() -> None:
    scheduler = DDIM(clip_sample=False)
    model, start = score(scheduler), normal(2, 1, 4, 4)
    chain = sampling_chain(model, ReverseStep.of(scheduler, 30), start)
    found = Sweeps(window=12, tolerance=1e-4, form="implicit", depth=2).run(chain, start).require()
    assert gap(found.value, one_by_one(model, scheduler, start, 30)) <= 1e-4


def test_models_whose_output_is_chance_are_refused() -> None:
    scheduler, start = DDIM(clip_sample=False), normal(1, 1, 8, 8).float()
    for layer in (nn.Dropout(0.1), nn.BatchNorm2d(1)):
        model = nn.Sequential(nn.Identity(), layer)
        with pytest.raises(ValueError, match=r"model must be in eval mode .* got 1 in training"):
            parallel_sample(model, scheduler, start, steps=3)
    parallel_sample(nn.Sequential(_Zero(), nn.Dropout(0.1)).eval()[0], scheduler, start, steps=3).require()
    parallel_sample(unet(dtype=torch.float32).train(), scheduler, start, steps=3).require()  # dropout of 0 is none


class Chance(nn.Module):
    """Attends to its pixels with dropout that is no module, or draws noise."""

    def __init__(self, dropout: float, noise: float = 0.0):
        super().__init__()
        self.attention, self.noise = nn.MultiheadAttention(64, 1, dropout=dropout), noise

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = x.flatten(1)[None]
        return self.attention(y, y, y, need_weights=False)[0].view_as(x) + self.noise * torch.randn_like(x)


def test_chance_without_a_dropout_module_is_refused_too() -> None:
    scheduler, start = DDIM(clip_sample=False), normal(1, 1, 8, 8).float()
    with pytest.raises(ValueError, match=r"model must be in eval mode .* got attention in training"):
        parallel_sample(Chance(0.5), scheduler, start, steps=3)
    with pytest.raises(ValueError, match="got two outputs for one sample"):
        parallel_sample(Chance(0.0, noise=0.1), scheduler, start, steps=3)
    parallel_sample(Chance(0.0), scheduler, start, steps=3).require()


def test_a_generator_for_each_sample_as_pipelines_take_them() -> None:
    pipeline = diffusers.DDPMPipeline(unet=unet(2), scheduler=DDPM(clip_sample=False, prediction_type="sample"))
    pipeline.set_progress_bar_config(disable=True)
    seeded = lambda: [torch.Generator().manual_seed(k) for k in (3, 4)]  # noqa: E731
    found = sample_pipeline(pipeline, 2, steps=6, generator=seeded()).require()
    want = pipeline(2, seeded(), num_inference_steps=6, output_type="pt", return_dict=False)[0]
    torch.testing.assert_close(found.value, want, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="generator must be one, or one for each of 3 samples, got 2"):
        sample_pipeline(pipeline, 3, steps=6, generator=seeded())
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or a list of them, got int"):
        sample_pipeline(pipeline, 1, steps=6, generator=5)


@pytest.mark.parametrize("context", [(3,), torch.ones(2), (torch.tensor(1.0),)])
def test_what_goes_with_a_sample_is_a_tuple_of_tensors(context) -> None:
    with pytest.raises(TypeError, match=r"context must be a tuple of tensors \(B, \.\.\.\), got"):
        parallel_sample(_Zero(), DDIM(clip_sample=False), normal(2, 1, 4, 4), steps=3, context=context)


def test_a_prediction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"like x, \(6, 1, 4, 4\), got \(6, 1, 4, 1\)"):
        parallel_sample(lambda x, t: x[..., :1], DDIM(clip_sample=False), normal(2, 1, 4, 4), steps=3)


def test_clipping_is_warned_of_where_it_is_asked_for() -> None:
    with pytest.warns(ClippingWarning, match="clip_sample has kinks") as seen:
        parallel_sample(_Zero(), DDIM(), normal(1, 1, 4, 4), steps=2)
    assert seen[0].filename == __file__


class _Zero(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0 * x


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheduler": diffusers.EulerDiscreteScheduler()}, "must be one of DDIMScheduler.*got EulerDiscreteScheduler"),
        ({"scheduler": "ddim"}, "scheduler must be one of .*DDPMParallelScheduler, got str"),
        ({"window": 6}, "window must be at most the length of the chain, 5, got 6"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"eta": -1.0}, r"eta must be a finite number >= 0, .* got -1\.0"),
        ({"eta": 0.5, "scheduler": DDPM(clip_sample=False)}, r"and 0 for DDPM, got 0\.5 for DDPMScheduler"),
        ({"noise": torch.full((1, 1, 4, 4), torch.nan)}, "noise must be finite, got NaN or Inf"),
        ({"noise": torch.zeros(1, 1, 4, 4, dtype=torch.int64)}, "noise must be a floating tensor"),
        ({"noise": (1, "4")}, "noise must be a tensor or the shape of one"),
        ({"noise": 5}, "noise must be a tensor or the shape of one, got 5"),
        ({"form": "anderson"}, "form must be one of jacobi, sum, implicit"),
        ({"scheduler": DDPM(clip_sample=False, variance_type="learned_range")}, "variance_type must be one of"),
        (
            {"scheduler": DDIM(clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing")},
            "prediction_type must not be epsilon where alphas_cumprod is 0",
        ),
        ({"scheduler": DDIM(clip_sample=False, steps_offset=500)}, "steps_offset must keep times below 1000"),
    ],
)
def test_what_it_refuses(settings: dict, message: str) -> None:
    arguments = {"scheduler": DDIM(clip_sample=False), "noise": normal(1, 1, 4, 4), "steps": 5} | settings
    scheduler, noise = arguments.pop("scheduler"), arguments.pop("noise")
    with pytest.raises(ValueError, match=message):
        parallel_sample(_Zero(), scheduler, noise, **arguments)


def test_pipelines_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"pipeline must be a DDIMPipeline or DDPMPipeline, got Linear; use"):
        sample_pipeline(nn.Linear(1, 1))
    pipeline = diffusers.DDIMPipeline(unet=unet(), scheduler=DDIM(clip_sample=False))
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        sample_pipeline(pipeline, 0)


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r'pip install "settlepoint\[chains\]"'):
        parallel_sample(_Zero(), None, normal(1, 1), steps=3)
