"""ESMFold with random weights, of any size: shows a tracer at work and what it costs, and says nothing of proteins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from settlepoint.chains.cycles import Cycle
from settlepoint.chains.esmfold import esm, esm_taps
from settlepoint.chains.recycling import RecycleTracer
from settlepoint.experiments.measuring import cpu_seconds
from settlepoint.runs import generator_from, seeded


def random_esmfold(seed: int, *, single: int = 48, pair: int = 32, depth: int = 2, blocks: int = 4) -> Any:
    """EsmForProteinFolding in evaluation mode. single, pair: features; depth: of the trunk; blocks: of structure."""
    model = esm()
    from transformers import EsmConfig
    from transformers.models.esm.configuration_esm import get_default_vocab_list

    heads = 4
    structure = {
        "sequence_dim": single, "pairwise_dim": pair, "ipa_dim": 8, "resnet_dim": single, "num_heads_ipa": heads,
        "num_blocks": blocks,
    }  # fmt: skip
    trunk = {
        "num_blocks": depth, "sequence_state_dim": single, "pairwise_state_dim": pair, "max_recycles": 4,
        "sequence_head_width": single // heads, "pairwise_head_width": pair // heads, "structure_module": structure,
    }  # fmt: skip
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=single, num_hidden_layers=2,
        num_attention_heads=heads, intermediate_size=2 * single, position_embedding_type="rotary",
        is_folding_model=True, vocab_list=get_default_vocab_list(),
        esmfold_config={"fp16_esm": False, "lddt_head_hid_dim": single, "trunk": trunk},
    )  # fmt: skip
    with seeded("random esmfold", seed):
        return model(config).eval()


def sequences(count: int, residues: int, seed: int) -> Tensor:  # (count, residues)
    """Random residues, 0 to 19."""
    return torch.randint(20, (count, residues), generator=generator_from("random esmfold", "sequences", seed))


class Clocked:
    """Stands for a module where hooks are registered, and notes the CPU seconds of every call of a hook in spent."""

    def __init__(self, module: Any, spent: list[float]):
        self.module, self.spent = module, spent

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> Any:
        """As of nn.Module."""
        return self.module.register_forward_pre_hook(self._clocked(hook))

    def register_forward_hook(self, hook: Callable[..., Any]) -> Any:
        """As of nn.Module."""
        return self.module.register_forward_hook(self._clocked(hook))

    def _clocked(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            start = time.process_time()
            made = hook(*given)
            self.spent.append(time.process_time() - start)
            return made

        return timed


def clocked_tracer(model: Any, spent: list[float]) -> RecycleTracer:
    """A tracer of ESMFold that notes the CPU seconds of every call of one of its hooks."""
    taps: Any = esm_taps(model)
    places: dict[str, Any] = {name: Clocked(vars(taps)[name], spent) for name in ("representation", "structure")}
    stand_in: Any = Clocked(model, spent)
    return RecycleTracer(stand_in, replace(taps, **places))


def watched(model: Any, ids: Tensor, recycles: int, repeats: int) -> tuple[dict[str, float], list[Cycle]]:
    """What a tracer costs a call and whether it changes it, and the cycles that it saw.

    own: CPU time inside of the tracer's hooks, per cent of that of the calls in which they ran, all calls together.
    overhead, with reading: per cent of the least CPU time of `repeats` untraced calls, taken in turn; reading makes the
    cycles of what was kept, the confidence among it. placebo: the same of untraced calls timed a second time, which is
    the noise of the other two. equal: 1 where every output is the same bit for bit.
    """
    hooks: list[float] = []
    calls: list[float] = []
    tracer = clocked_tracer(model, hooks)

    def plain() -> Any:
        return model(ids, num_recycles=recycles)

    def traced() -> Any:
        start = time.process_time()
        with tracer:
            made = plain()
        calls.append(time.process_time() - start)
        return made

    def read() -> list[Cycle]:
        traced()
        return tracer.cycles

    with torch.no_grad():
        spent = cpu_seconds({"plain": plain, "traced": traced, "read": read, "again": plain}, repeats)
        before, after = plain(), traced()
    same = all(torch.equal(before[name], after[name]) for name in ("positions", "s_s", "s_z", "plddt"))
    metrics = {
        "recycle": 1000 * spent["plain"] / (recycles + 1),
        "own": 100 * sum(hooks) / sum(calls),
        "overhead": 100 * (spent["traced"] / spent["plain"] - 1),
        "with reading": 100 * (spent["read"] / spent["plain"] - 1),
        "placebo": 100 * (spent["again"] / spent["plain"] - 1),
        "equal": float(same),
        "cycles": float(len(tracer.cycles)),
    }
    return metrics, tracer.cycles
