"""transformers' EsmForProteinFolding: where it shows its cycles, one recycle as an operator, weights from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from settlepoint.chains.cycles import Cycle

if TYPE_CHECKING:
    from transformers import EsmForProteinFolding

CA = 1
"""Place of the CA atom, among the 14 and among the 37 atoms of a residue."""

_BINS = (3.375, 21.375)  # Angstrom, of the distances that are recycled; constants of the trunk
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def esm() -> type[EsmForProteinFolding]:
    """The class EsmForProteinFolding. Raises ImportError, naming the extra, when it is not installed."""
    try:
        from transformers import EsmForProteinFolding
    except ImportError:
        raise ImportError('ESMFold needs transformers: pip install "settlepoint[chains]"') from None
    return EsmForProteinFolding


@dataclass(frozen=True)
class Taps:
    """Where a structure predictor shows its cycles.

    representation, structure: modules of the predictor that run once a cycle, representation before structure; of a
    module that runs more often the last output counts. keep: what of their two outputs is kept, detached, while the
    predictor runs. read: what was kept to a Cycle, called when the cycles are asked for.
    """

    representation: nn.Module
    structure: nn.Module
    keep: Callable[[Any, Any], Any]
    read: Callable[[Any], Cycle]


def esm_taps(model: EsmForProteinFolding, *, pair: bool = True) -> Taps:
    """The last block of the trunk, which gives (s, z), and the structure module, which gives all its blocks.

    pair: keep z, n^2 c_z numbers a chain and cycle; without it the memory grows with n alone.
    """

    def keep(states: tuple[Tensor, Tensor], made: dict[str, Tensor]) -> tuple[Tensor | None, ...]:
        found = states[0], states[1], made["positions"][:, :, :, CA], made["frames"], made["states"][-1]
        return tuple(t.detach() if pair or t is not states[1] else None for t in found)

    def read(kept: tuple[Tensor, ...]) -> Cycle:
        s, z, blocks, frames, state = kept
        return Cycle(blocks[-1], _plddt(model, state), s, z, blocks, frames)

    blocks: Any = model.trunk.blocks
    return Taps(blocks[-1], model.trunk.structure_module, keep, read)


@torch.no_grad()
def _plddt(model: EsmForProteinFolding, state: Tensor) -> Tensor:  # (B, n, c) -> (B, n)
    """Predicted LDDT of the CA atoms, in [0, 1]: the mean of what the model's head says of its 50 bins."""
    bins = model.lddt_bins
    odds = model.lddt_head(state).unflatten(-1, (-1, bins))[:, :, CA].softmax(-1)
    return odds @ ((torch.arange(bins, device=odds.device, dtype=odds.dtype) + 0.5) / bins)


class EsmRecycle(nn.Module):
    """One recycle of ESMFold as an operator on (s, z, y), for `Equation` and `recycled`.

    s' , z' = trunk(s_0 + norm(s), z_0 + norm(z) + bins of the CB distances of y),   y' = structure(s', z')

    s: (B, n, c_s), z: (B, n, n, c_z), y: (B, n, 9), the atoms N, CA and C. From `start`, k calls give what the model
    gives with num_recycles = k - 1. y enters by the bins of its distances alone: it has no derivative, and Jacobians of
    this map leave it out. start, context: made by `of`, one leading entry a chain.
    """

    def __init__(self, model: EsmForProteinFolding):
        super().__init__()
        self.model = model

    @torch.no_grad()
    def of(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(start, context) of sequences: zeros, and what the trunk is given: s_0, z_0, residues, places, mask."""
        seen: list[tuple] = []
        handle = self.model.trunk.register_forward_pre_hook(lambda module, given: seen.append(given))
        try:
            self.model(input_ids, attention_mask=attention_mask, num_recycles=0)
        finally:
            handle.remove()
        s, z, residues, places, mask = seen[0][:5]
        start = torch.zeros_like(s), torch.zeros_like(z), s.new_zeros(*s.shape[:2], 9)
        return start, (s, z, residues, places.expand(len(s), -1), mask)

    def forward(
        self, x: tuple[Tensor, Tensor, Tensor], s_0: Tensor, z_0: Tensor, aa: Tensor, places: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        trunk, (s, z, y) = self.model.trunk, x
        bins = trunk.distogram(y.unflatten(-1, (3, 3)), *_BINS, trunk.recycle_bins)
        single = s_0 + trunk.recycle_s_norm(s)
        pair = z_0 + trunk.recycle_z_norm(z) + trunk.recycle_disto(bins)
        pair = pair + trunk.pairwise_positional_embedding(places, mask=mask)
        for block in trunk.blocks:
            single, pair = block(single, pair, mask=mask, residue_index=places, chunk_size=trunk.chunk_size)
        given = {"single": trunk.trunk2sm_s(single), "pair": trunk.trunk2sm_z(pair)}
        atoms = trunk.structure_module(given, aa, mask.float())["positions"][-1]
        return single, pair, atoms[:, :, :3].flatten(-2)


def esmfold(path: str | Path) -> EsmForProteinFolding:
    """ESMFold in evaluation mode, from a folder with config.json and weights as .safetensors; nothing is unpickled.

    Nothing is downloaded: path is a folder of this machine and no name of a hub. Raises FileNotFoundError where there
    is none, ValueError for a folder whose weights are pickles, absent, broken or not those of the whole model.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"path must be a folder with config.json and .safetensors weights, got {path}")
    names = sorted(entry.name for entry in folder.iterdir())
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if name.endswith(_PICKLES)]
        what = f"only pickles ({', '.join(pickles)}), which run code when they are read" if pickles else "none"
        raise ValueError(
            f"path must hold weights as .safetensors, got {what} in {path}; convert them where you trust them"
        )
    if "config.json" not in names:
        raise ValueError(f"path must hold config.json beside the weights, got {', '.join(names)}")
    _readable([folder / name for name in names if name.endswith(".safetensors")])
    loaded: Any = esm().from_pretrained(folder, local_files_only=True, use_safetensors=True, output_loading_info=True)
    model, report = loaded
    lost = sorted(report["missing_keys"])
    if lost:
        raise ValueError(f"path must hold all weights of ESMFold, {len(lost)} are missing, the first is {lost[0]}")
    return model.eval()


def _readable(files: list[Path]) -> None:
    """ValueError where one is no safetensors file, or cut off; only what stands at its head is read."""
    for file in files:
        try:
            with safe_open(file, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"path must hold weights that can be read, got {file}: {error}") from error
