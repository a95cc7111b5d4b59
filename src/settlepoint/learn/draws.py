"""The three sets of problems that a contest needs, and whether the evidence rests on problems that were seen."""

from __future__ import annotations

from dataclasses import dataclass

from settlepoint.learn.fit import generator
from settlepoint.learn.tuned import Budget
from settlepoint.problems import Batch, Family
from settlepoint.problems.batch import digests

_FIRST = 10  # stream of random numbers of the training problems


@dataclass(frozen=True)
class Draws:
    """training, validation, held_out: problems to fit on, to choose on, and for the evidence.

    seen: share of the different held-out problems that stand in one of the other sets.
    """

    training: Batch
    validation: Batch
    held_out: Batch
    seen: float

    @classmethod
    def of(cls, family: Family, budget: Budget, seed: int) -> Draws:
        """Draws them. Raises ValueError for a sampler whose problems do not follow from its generator alone."""
        sizes = (budget.training, budget.validation, budget.held_out)
        first, second, third = (family.sample(n, generator(seed, _FIRST + i)) for i, n in enumerate(sizes))
        training, validation, held_out = digests(first), digests(second), digests(third)
        if digests(family.sample(sizes[0], generator(seed, _FIRST))) != training:
            raise ValueError(
                f"the sampler of {family.name} must take everything random from its generator, and gave other problems "
                "at the second call with the same one"
            )
        return cls(first, second, third, len(held_out & (training | validation)) / len(held_out))

    @property
    def warning(self) -> str:
        """One sentence where held-out problems were seen, else nothing."""
        if not self.seen:
            return ""
        return (
            f" Beware: {self.seen:.0%} of the held-out problems are among those it was tuned on, so this is no "
            "evidence for others; does the sampler draw from its generator?"
        )
