"""PDB files written here: columns, alternate locations, insertion codes, modified residues, folders, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from settlepoint.chains.pdb import PdbError, read_folder, read_pdb
from settlepoint.chains.trace_metrics import joined_metrics, trace_metrics


def atom(
    x: float | str, *, name: str = " CA ", residue: str = "GLY", chain: str = "A", number: int = 1, icode: str = " ",
    alt: str = " ", occupancy: str = "  1.00", b: float = 90.0, record: str = "ATOM",
) -> str:  # fmt: skip
    """One line; columns after the PDB format 3.3. x, y = 2 x and z = 0."""
    place = f"{x:8.3f}{2 * x:8.3f}{0:8.3f}" if isinstance(x, float) else f"{x:>8}" * 3
    return f"{record:<6}{1:5d} {name}{alt}{residue:>3} {chain}{number:4d}{icode}   {place}{occupancy}{b:6.2f}\n"


def chain(length: int, shift: float = 0.0, b: float = 90.0) -> str:
    """A chain with nitrogen atoms between, which are not read."""
    lines = [
        atom(k + shift * (k % 3 == 0), number=k + 1, name=name, b=b) for k in range(length) for name in (" N  ", " CA ")
    ]
    return "".join(lines) + "TER\nEND\n"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    return path


def test_coordinates_confidence_and_names(tmp_path: Path) -> None:
    found = read_pdb(written(tmp_path / "a.pdb", chain(5, b=71.5)))
    assert found.residues == ("A 1", "A 2", "A 3", "A 4", "A 5")
    assert torch.equal(found.coordinates[:, 1], 2 * torch.arange(5.0, dtype=torch.float64))
    assert (found.b_factor == 71.5).all()
    assert found.present.all()


def test_fields_that_touch(tmp_path: Path) -> None:
    line = "ATOM      1  CA  GLY A   1    -100.123-200.456-300.789  1.00 50.00\n"
    found = read_pdb(written(tmp_path / "a.pdb", line))
    assert found.coordinates.tolist() == [[-100.123, -200.456, -300.789]]


def test_the_likeliest_alternate_location_is_taken(tmp_path: Path) -> None:
    lines = [atom(1.0, alt="A", occupancy="  0.40"), atom(2.0, alt="B", occupancy="  0.60"), atom(3.0, number=2)]
    lines += [atom(4.0, number=3, alt="A", occupancy="  0.50"), atom(5.0, number=3, alt="B", occupancy="  0.50")]
    assert read_pdb(written(tmp_path / "a.pdb", "".join(lines))).coordinates[:, 0].tolist() == [2.0, 3.0, 4.0]


def test_insertion_codes_and_several_chains(tmp_path: Path) -> None:
    lines = [atom(1.0, number=52), atom(2.0, number=52, icode="A"), atom(3.0, number=52, chain="B")]
    path = written(tmp_path / "a.pdb", "".join(lines))
    assert read_pdb(path).residues == ("A 52", "A 52A", "B 52")
    assert read_pdb(path, "B").coordinates[:, 0].tolist() == [3.0]


def test_modified_residues_count_and_calcium_does_not(tmp_path: Path) -> None:
    lines = [
        "MODRES 1ABC SEP A    2  SER  PHOSPHOSERINE\n",
        atom(1.0, record="HETATM", residue="MSE"),
        atom(2.0, record="HETATM", residue="SEP", number=2),
        atom(9.0, record="HETATM", residue="CA", name="CA  ", number=3),
        atom(9.0, record="HETATM", residue="HOH", name=" O  ", number=4),
        atom(9.0, residue="DA", name=" P  ", number=5),
    ]
    assert read_pdb(written(tmp_path / "a.pdb", "".join(lines))).coordinates[:, 0].tolist() == [1.0, 2.0]


def test_the_first_of_several_models_is_read(tmp_path: Path) -> None:
    text = "MODEL        1\n" + atom(1.0) + "ENDMDL\nMODEL        2\n" + atom(2.0) + "ENDMDL\n"
    assert read_pdb(written(tmp_path / "a.pdb", text)).coordinates[:, 0].tolist() == [1.0]


def test_missing_atoms_are_refused_or_masked(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pdb", atom(1.0) + atom(2.0, number=2, name=" N  ") + atom(3.0, number=3))
    message = "a CA atom in every residue, 1 have none, the first is A 2; missing='mask' leaves NaN in their place"
    with pytest.raises(PdbError, match=message):
        read_pdb(path)
    found = read_pdb(path, missing="mask")
    assert found.present.tolist() == [True, False, True]
    assert found.coordinates[1].isnan().all()


def test_a_reference_with_gaps(tmp_path: Path) -> None:
    found = read_pdb(written(tmp_path / "a.pdb", atom(1.0) + atom(3.0, number=3))).at(("A 3", "A 2", "A 1"))
    assert found[:, 0].nan_to_num(-1).tolist() == [3.0, -1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (atom("nan"), "line 1: coordinates must be finite, got"),
        (atom("*" * 8), "line 1: columns 31-66 must be numbers, got"),
        (atom(1.0)[:40] + "\n", "line 1: an atom must fill columns 1-54, got 40 of them"),
        (atom(123.456)[:52] + "\n", "line 1: an atom must fill columns 1-54, got 52 of them"),  # z = 0.0
        (atom(1.0, name=" N  ")[:20] + "\n" + atom(1.0), "line 1: an atom must fill columns 1-54, got 20 of them"),
        (atom(1.0, record="HETATM", residue="HOH")[:53] + "\n", "line 1: an atom must fill columns 1-54, got 53"),
        ("END\n", "has no amino acids$"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PdbError, match=message):
        read_pdb(written(tmp_path / "a.pdb", text))


def test_chains_that_are_written_twice(tmp_path: Path) -> None:
    """Two copies of a dimer under one letter: four CA atoms are no chain of two."""
    first, second = (atom(k, number=1) + atom(k + 1, number=2) for k in (1.0, 5.0))
    with pytest.raises(PdbError, match="line 4: a residue must not come again behind TER, got A 1; give chains"):
        read_pdb(written(tmp_path / "a.pdb", first + "TER\n" + second + "TER\n"))
    with pytest.raises(PdbError, match="line 3: a residue must have one CA atom a location, got another of A 1"):
        read_pdb(written(tmp_path / "a.pdb", first + second))
    with pytest.raises(PdbError, match="line 4: a residue must not come again behind TER, got A 1"):
        read_pdb(written(tmp_path / "a.pdb", first + "TER\n" + atom(5.0, name=" N  ")))
    water = atom(9.0, name=" O  ", residue="SOL") + atom(9.0, name=" O  ", record="HETATM", residue="HOH")
    text = first + "TER\n" + second.replace("GLY A", "GLY B") + "TER\n" + water
    assert read_pdb(written(tmp_path / "a.pdb", text)).residues == ("A 1", "A 2", "B 1", "B 2")


def test_a_residue_has_the_name_of_its_likeliest_location(tmp_path: Path) -> None:
    lines = [atom(1.0, alt="A", occupancy="  0.40"), atom(2.0, alt="B", occupancy="  0.60", residue="SER")]
    assert read_pdb(written(tmp_path / "a.pdb", "".join(lines))).names == ("SER",)


def test_wrong_arguments(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pdb", atom(1.0))
    with pytest.raises(PdbError, match="has no amino acids in the chains 'Z'"):
        read_pdb(path, "Z")
    with pytest.raises(ValueError, match="missing must be 'refuse' or 'mask', got 'skip'"):
        read_pdb(path, missing="skip")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="there is no PDB file"):
        read_pdb(tmp_path / "b.pdb")
    with pytest.raises(FileNotFoundError, match="path must be a folder of PDB files"):
        read_folder(tmp_path / "nowhere")


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Two targets: T1 of ColabFold with two models, T2 plain; and files that are no recycles."""
    for k in range(4):
        for model, rank in ((1, "rank_001_"), (2, "")):
            name = f"T1_a_unrelaxed_{rank}alphafold2_ptm_model_{model}_seed_000.r{k}.pdb"
            written(tmp_path / name, chain(6, shift=0.5**k, b=50.0 + 10 * k))
        written(tmp_path / "T2" / f"recycle_{k}.pdb", chain(8, shift=1.0 + k))
    written(tmp_path / "T1_a_unrelaxed_rank_001_alphafold2_ptm_model_1_seed_000.pdb", chain(6))
    written(tmp_path / "T2" / "final.pdb", chain(3))
    return tmp_path


def test_two_targets_of_a_folder(predictions: Path) -> None:
    tracks = read_folder(predictions)
    names = [f"alphafold2_ptm_model_{k}_seed_000" for k in (1, 2)]
    assert [(t.target, t.prediction) for t in tracks] == [("T1_a", names[0]), ("T1_a", names[1]), ("T2", "")]
    assert [len(t.cycles) for t in tracks] == [4, 4, 4]
    assert tracks[0].cycles[2].confidence is not None
    assert float(tracks[0].cycles[2].confidence.mean()) == 70.0
    found = joined_metrics([trace_metrics(t.cycles, t.cycles[-1].coordinates) for t in tracks])
    assert found.step.shape == (3, 3)
    assert found.rmsd is not None
    assert found.rmsd[-1].max() <= 1e-12
    assert found.kind[0] == found.kind[1] != found.kind[2]


def test_more_than_ten_recycles_are_in_order(tmp_path: Path) -> None:
    for k in range(12):
        written(tmp_path / "T" / f"recycle_{k}.pdb", chain(4, b=float(k)))
    found = [float(c.confidence.mean()) for c in read_folder(tmp_path)[0].cycles if c.confidence is not None]
    assert found == list(range(12))


def test_folders_that_are_refused(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(PdbError, match=r"has no files of recycles; their names must be <target>_unrelaxed"):
        read_folder(written(tmp_path / "none" / "x.txt", "").parent)
    written(predictions / "T2" / "recycle_2.pdb", chain(7))
    with pytest.raises(PdbError, match=r"T2 must be chains of the same residues, got 8 in recycle_0.pdb and 7 in rec"):
        read_folder(predictions)
    written(predictions / "T2" / "recycle_2.pdb", chain(8).replace("GLY A   8", "GLY A   9"))
    with pytest.raises(PdbError, match=r"got 8 in recycle_0.pdb and GLY A 9 in place of GLY A 8 in recycle_2"):
        read_folder(predictions)
    written(predictions / "T2" / "recycle_2.pdb", chain(8).replace("GLY A   8", "ALA A   8"))
    with pytest.raises(PdbError, match=r"got 8 in recycle_0.pdb and ALA A 8 in place of GLY A 8 in recycle_2.pdb"):
        read_folder(predictions)
    (predictions / "T2" / "recycle_2.pdb").unlink()
    with pytest.raises(PdbError, match=r"the recycles of T2 must count 0, 1, 2, \.\.\. without a gap, got \[0, 1, 3\]"):
        read_folder(predictions)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("T/recycle_01.pdb", "T/recycle_1.pdb"),
        ("T_unrelaxed_rank_001_m_seed_0.r1.pdb", "T_unrelaxed_rank_002_m_seed_0.r1.pdb"),
    ],
)
def test_two_files_of_one_recycle_are_refused(tmp_path: Path, first: str, second: str) -> None:
    for name in (first, first.replace("1.pdb", "0.pdb"), second):
        written(tmp_path / name, chain(4))
    with pytest.raises(PdbError, match=rf"a recycle must have one file, got \S+{first} and \S+{second} for recycle 1"):
        read_folder(tmp_path)
