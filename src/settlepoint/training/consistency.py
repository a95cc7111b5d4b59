"""Consistency: a causal model learns to jump from any iterate of its Jacobi sweeps to where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def token_loss(model: Any, text: Tensor) -> Tensor:
    """Mean cross entropy of the tokens of text (N, T) behind the first, in nats a token.

    model: called as those of transformers, model(input_ids=...).logits.
    """
    scores = model(input_ids=text[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten())


@dataclass(frozen=True)
class Trajectories:
    """Sweeps of a model over the n tokens behind prompts.

    prompts: (P, L). states: (S + 1, P, n), the guess and the iterates; a row that has ended stays as it is. answers:
    (P, n), where they end: the tokens of greedy decoding.

    Raises ValueError for shapes that do not fit.
    """

    prompts: Tensor
    states: Tensor
    answers: Tensor

    def __post_init__(self):
        if self.states.ndim != 3 or self.states.shape[1:] != self.answers.shape or not len(self.states):
            wanted = f"(S + 1, {', '.join(map(str, self.answers.shape))})"
            raise ValueError(f"states must be {wanted}, as answers are, got {tuple(self.states.shape)}")
        if self.prompts.ndim != 2 or len(self.prompts) != len(self.answers):
            raise ValueError(f"prompts must be ({len(self.answers)}, L), got {tuple(self.prompts.shape)}")

    @classmethod
    def joined(cls, parts: Sequence[Trajectories]) -> Trajectories:
        """Several as one; those with fewer sweeps stay at their end."""
        most = max(len(part.states) for part in parts)
        states = [torch.cat((p.states, p.states[-1:].expand(most - len(p.states), -1, -1))) for p in parts]
        return cls(torch.cat([p.prompts for p in parts]), torch.cat(states, 1), torch.cat([p.answers for p in parts]))

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:  # (count, L + 2 n)
        """Prompt, iterate and answer side by side: rows at random, an iterate at random of those before the answer."""
        away = (self.states != self.answers).any(-1).sum(0)  # (P,), iterates that are not the answer
        rows = torch.randint(len(self.prompts), (count,), generator=generator)
        sweep = (torch.rand(count, generator=generator) * away[rows]).long()
        return torch.cat((self.prompts[rows], self.states[sweep, rows], self.answers[rows]), 1)


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """token_loss(text) + weight mean_i D(q(. | x, y*_<i), q(. | x, y_<i))    (Kou et al. 2024, CLLM)

    For `fit(model, (text, chains), recipe, objective=Consistency(given=L))`, chains (N, L + 2 n) by Trajectories.drawn:
    prompts x, iterates y and answers y*. D: the cross entropy of y*_i under q(. | x, y_<i) with hard, what Jacobi
    sweeps need; else the Kullback-Leibler divergence from the model's own prediction at the answer, held still.

    Raises ValueError for a weight below 0 and chains that hold no two parts of one length behind `given`.
    """

    given: int
    weight: float = 1.0
    hard: bool = True

    def __post_init__(self):
        if self.given < 1 or self.weight < 0:
            raise ValueError(f"given must be at least 1 and weight at least 0, got {self.given} and {self.weight}")

    def __call__(self, model: Any, text: Tensor, chains: Tensor) -> Tensor:
        value = token_loss(model, text)
        return value + self.weight * self.distance(model, chains) if self.weight else value

    def distance(self, model: Any, chains: Tensor) -> Tensor:
        """The second term, without its weight."""
        n, rest = divmod(chains.shape[1] - self.given, 2)
        if n < 1 or rest:
            raise ValueError(f"chains must be (N, {self.given} + 2 n), got {tuple(chains.shape)}")
        prompt, state, answer = chains.split((self.given, n, n), 1)
        found = self._scores(model, prompt, state)
        if self.hard:
            return nn.functional.cross_entropy(found.flatten(0, 1), answer.flatten())
        with torch.no_grad():
            wanted = self._scores(model, prompt, answer).log_softmax(-1)
        each = nn.functional.kl_div(found.log_softmax(-1), wanted, log_target=True, reduction="none").sum(-1)
        return each.mean()

    def _scores(self, model: Any, prompt: Tensor, y: Tensor) -> Tensor:  # (N, n, V)
        given = torch.cat((prompt, y[:, :-1]), 1)
        return model(input_ids=given, use_cache=False).logits[:, self.given - 1 :]
