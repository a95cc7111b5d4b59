"""CA atoms of PDB files, and folders of one file a recycle."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from settlepoint.chains.cycles import Cycle, Track

Missing = Literal["refuse", "mask"]

AMINO = frozenset(
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL ASX GLX SEC PYL UNK MSE".split()
)
_COLABFOLD = re.compile(r"(?P<target>.+)_unrelaxed_(rank_\d+_)?(?P<prediction>.+)\.r(?P<cycle>\d+)\.pdb")
_PLAIN = re.compile(r"recycle_(?P<cycle>\d+)\.pdb")
_COORDINATES_END = 54  # the column
NAMES = "<target>_unrelaxed_[rank_<n>_]<model>_seed_<n>.r<cycle>.pdb or <target>/recycle_<cycle>.pdb"


class PdbError(ValueError):
    """A file is no structure that can be compared; the message names the file, the residue and what to do."""


@dataclass(frozen=True, eq=False)
class Residues:
    """CA atoms of a file. coordinates: (n, 3) float64, NaN where present (n,) is False; b_factor: (n,), the pLDDT of
    predicted structures; residues: "A 12" or, with an insertion code, "A 12B"; names: "ALA", of each residue."""

    coordinates: Tensor
    b_factor: Tensor
    present: Tensor
    residues: tuple[str, ...]
    names: tuple[str, ...]

    def at(self, residues: Sequence[str]) -> Tensor:  # (len(residues), 3)
        """The coordinates of these residues, NaN where this chain has none: a reference with gaps."""
        place = {name: k for k, name in enumerate(self.residues)}
        blank = self.coordinates.new_full((1, 3), math.nan)
        rows = [place.get(name, len(self.residues)) for name in residues]
        return torch.cat((self.coordinates, blank))[rows]


@dataclass
class _Residue:
    """What was read of one residue. found: occupancy, x, y, z and B-factor of its CA; name: of the location that was
    taken; locations: the letters of those that have a CA; ended: a TER record stands behind it."""

    name: str
    known: bool = False
    found: tuple[float, ...] = ()
    locations: str = ""
    ended: bool = False

    def add(self, line: str, where: str) -> None:
        """Take the CA of this line where none as likely was read before."""
        if line[16] in self.locations:
            raise PdbError(f"{where}: a residue must have one CA atom a location, got another of {_place(line)}")
        self.locations += line[16]
        atom = _atom(line, where)
        if not self.found or atom[0] > self.found[0]:
            self.found, self.name = atom, line[17:20].strip()


def read_pdb(path: str | Path, chains: str = "", missing: Missing = "refuse") -> Residues:
    """CA atoms of the first model of a file in the PDB format 3.3, residues in the order of the file.

    chains: letters of the chains to take, all of them when empty. Of alternate locations the one of highest occupancy
    is taken, of equal ones the first. HETATM residues count when they are MSE or named by a MODRES record; calcium is
    no CA. missing: what to do about amino acids without a CA atom; "mask" leaves NaN in their place.

    Raises PdbError for lines that are cut off, columns that cannot be read, coordinates that are not finite, residues
    that come twice, such as again behind a TER record, and as missing says; FileNotFoundError where there is no file.
    """
    path = Path(path)
    if missing not in ("refuse", "mask"):
        raise ValueError(f"missing must be 'refuse' or 'mask', got {missing!r}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no PDB file {path}")
    found = {name: r for name, r in _residues(path, chains).items() if r.known or r.found}
    if not found:
        raise PdbError(f"{path} has no amino acids{f' in the chains {chains!r}' if chains else ''}")
    lost = [name for name, residue in found.items() if not residue.found]
    if lost and missing == "refuse":
        raise PdbError(
            f"{path} must have a CA atom in every residue, {len(lost)} have none, the first is {lost[0]}; "
            "missing='mask' leaves NaN in their place"
        )
    blank = (math.nan,) * 5
    table = torch.tensor([residue.found or blank for residue in found.values()], dtype=torch.float64)
    present = torch.tensor([bool(residue.found) for residue in found.values()])
    return Residues(table[:, 1:4], table[:, 4], present, tuple(found), tuple(r.name for r in found.values()))


def _residues(path: Path, chains: str) -> dict[str, _Residue]:
    found: dict[str, _Residue] = {}
    modified = {"MSE"}
    for number, line in _first_model(path):
        where = f"{path}, line {number}"
        if line.startswith("MODRES"):
            modified.add(line[12:15].strip())
        if line.startswith("TER"):
            for residue in found.values():
                residue.ended = True
        if _counts(line, where, modified) and (not chains or line[21] in chains):
            _read(line, where, found, modified)
    return found


def _counts(line: str, where: str, modified: set[str]) -> bool:
    """Whether it is an atom of a residue; no atom's line ends before its coordinates do."""
    if not line.startswith(("ATOM  ", "HETATM")):
        return False
    if len(line) < _COORDINATES_END:
        raise PdbError(f"{where}: an atom must fill columns 1-{_COORDINATES_END}, got {len(line)} of them: {line!r}")
    return line.startswith("ATOM") or line[17:20].strip() in modified


def _read(line: str, where: str, found: dict[str, _Residue], modified: set[str]) -> None:
    name, alpha = line[17:20].strip(), line[12:16] == " CA "
    known = name in AMINO | modified
    residue = found.setdefault(_place(line), _Residue(name))
    if residue.ended and (known or alpha):  # water may count from 1 again
        raise PdbError(f"{where}: a residue must not come again behind TER, got {_place(line)}; give chains letters")
    residue.known |= known
    if alpha:
        residue.add(line, where)


def _place(line: str) -> str:
    """Chain, number and insertion code."""
    return f"{line[21]} {line[22:27].strip()}"


def _first_model(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.startswith("ENDMDL"):
                return
            yield number, line.rstrip("\n")


def _atom(line: str, where: str) -> tuple[float, ...]:
    """Occupancy, x, y, z and B-factor, columns 55-60, 31-54 and 61-66; the first and the last may be blank."""
    texts = (line[54:60].strip() or "1", line[30:38], line[38:46], line[46:54], line[60:66].strip() or "nan")
    try:
        values = tuple(map(float, texts))
    except ValueError:
        raise PdbError(f"{where}: columns 31-66 must be numbers, got {line[30:66]!r}") from None
    if not all(map(math.isfinite, values[1:4])):
        raise PdbError(f"{where}: coordinates must be finite, got {line[30:54]!r}")
    return values


def read_folder(path: str | Path, chains: str = "", missing: Missing = "refuse") -> list[Track]:
    """The predictions of a folder that holds one PDB file a recycle, cycles in order, sorted by target and prediction.

    Names: those of ColabFold's --save-recycles, or <target>/recycle_0.pdb, recycle_1.pdb, ... Other files are left
    alone. chains, missing: as for `read_pdb`; the confidence of a Cycle is the B-factor.

    Raises PdbError where there are no such files, a recycle is missing or has two files, or two recycles of a
    prediction have other residues: their chains, numbers or names.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"path must be a folder of PDB files, got {path}, which is none")
    groups: dict[tuple[str, str], dict[int, Path]] = {}
    for file in sorted((*path.glob("*.pdb"), *path.glob("*/recycle_*.pdb"))):
        if (named := _named(file)) is not None:
            _put(groups.setdefault(named[:2], {}), named[2], file)
    if not groups:
        raise PdbError(f"{path} has no files of recycles; their names must be {NAMES}")
    return [_track(*key, files, chains, missing) for key, files in sorted(groups.items())]


def _put(files: dict[int, Path], cycle: int, file: Path) -> None:
    if cycle in files:
        raise PdbError(f"a recycle must have one file, got {files[cycle]} and {file} for recycle {cycle}")
    files[cycle] = file


def _named(file: Path) -> tuple[str, str, int] | None:
    """Target, prediction and cycle."""
    if match := _COLABFOLD.fullmatch(file.name):
        return match["target"], match["prediction"], int(match["cycle"])
    match = _PLAIN.fullmatch(file.name)
    return (file.parent.name, "", int(match["cycle"])) if match else None


def _track(target: str, prediction: str, files: dict[int, Path], chains: str, missing: Missing) -> Track:
    counts = sorted(files)
    if counts != list(range(len(counts))):
        raise PdbError(f"the recycles of {target} must count 0, 1, 2, ... without a gap, got {counts}")
    read_in = [read_pdb(files[k], chains, missing) for k in counts]
    first = _named_residues(read_in[0])
    for k, chain in enumerate(read_in):
        if (residues := _named_residues(chain)) != first:
            raise PdbError(
                f"the recycles of {target} must be chains of the same residues, got {len(first)} in "
                f"{files[0].name} and {_other(first, residues)} in {files[k].name}"
            )
    cycles = [Cycle(chain.coordinates[None], chain.b_factor[None]) for chain in read_in]
    return Track(target, cycles, prediction, read_in[0].residues)


def _named_residues(chain: Residues) -> list[str]:
    return [f"{name} {residue}" for name, residue in zip(chain.names, chain.residues, strict=True)]


def _other(first: Sequence[str], residues: Sequence[str]) -> str:
    """How many there are, or which is the first that differs."""
    if len(residues) != len(first):
        return str(len(residues))
    return next(f"{b} in place of {a}" for a, b in zip(first, residues, strict=True) if a != b)
