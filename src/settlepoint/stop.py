"""When a solve ends: after a number of steps, or when every row is good enough."""

from dataclasses import dataclass

import torch
from torch import Tensor


class Stop:
    """When to end. Final classes: `FixedSteps`, `Tolerance`; what they ask for is done by `iterate`."""


@dataclass(frozen=True)
class FixedSteps(Stop):
    """Take exactly N steps, each one evaluation; never reads from the device.

    steps: N; or a range from which every solve draws N (training with random depth, drawn with generator); or a tensor
    (R,) of counts, one a row. check: spend one more, counted, evaluation to know the residual of the value.
    """

    steps: int | range | Tensor
    check: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self):
        if isinstance(self.steps, Tensor):
            counts = self.steps.ndim == 1 and self.steps.dtype in (torch.int32, torch.int64)
            if not counts:
                got = f"{tuple(self.steps.shape)} of {self.steps.dtype}"
                raise ValueError(f"steps must be a vector of integers, got {got}")
            if bool((self.steps < 0).any()):
                raise ValueError(f"steps must be >= 0, got {int(self.steps.min())}")
        elif isinstance(self.steps, range):
            if not len(self.steps) or min(self.steps) < 0:
                raise ValueError(f"steps must be a non-empty range of counts >= 0, got {self.steps}")
        elif isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"steps must be an integer >= 0, a range or a tensor, got {self.steps!r}")

    def drawn(self) -> "int | Tensor":
        """The number of steps of one solve."""
        if isinstance(self.steps, range):
            pick = torch.randint(len(self.steps), (1,), generator=self.generator)
            return self.steps[int(pick)]
        return self.steps


@dataclass(frozen=True)
class Tolerance(Stop):
    """Stop a row when ||P(x) - x|| <= atol + rtol * ||P(x)||, its undamped residual in the norm of the space.

    max_steps: evaluations at most. every: look at the residual every so many steps (one host read a look).
    growth: a row whose residual grew by this factor over its first one is DIVERGED. window: looks without progress
    after which a row is STALLED or DIVERGED.
    """

    atol: float = 1e-6
    rtol: float = 0.0
    max_steps: int = 100
    every: int = 1
    growth: float = 1e3
    window: int = 20

    def __post_init__(self):
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, got {value}")
        for name, value in (("max_steps", self.max_steps), ("every", self.every), ("window", self.window)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
        if not self.growth > 1:
            raise ValueError(f"growth must be > 1, got {self.growth}")
