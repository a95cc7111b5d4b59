"""The import law: lower rooms never import higher ones. Read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "settlepoint"
CHAIN = (
    ("spaces",),
    ("equation", "solution", "stop"),
    ("solvers",),
    ("progress", "outcome"),
    ("search",),
    ("iterate",),
    ("adjoints",),
    ("solve",),
    ("certify",),
    ("problems",),
    ("learn",),
    ("compat",),
)
LIBRARY = {room for level in CHAIN for room in level}
UP_TO_SOLVE = {room for level in CHAIN[:8] for room in level}


def allowed() -> dict[str, set[str]]:
    """Room to the rooms it may import; "" is the package itself."""
    table = {room: {r for low in CHAIN[: i + 1] for r in low} for i, level in enumerate(CHAIN) for room in level}
    table["certify"] |= {"layers"}  # projections of weights, bounds of our own blocks
    table |= {"layers": {"layers"}, "models": {"layers", "models", "solve"}}
    table["chains"] = UP_TO_SOLVE | {"certify", "chains"}
    table |= {"data": {"data"}, "runs": {"runs"}, "report": {"report"}}
    table["training"] = UP_TO_SOLVE | {"data", "layers", "models", "training"}
    table["experiments"] = LIBRARY | {"", "chains", "layers", "models", "data", "training", "runs", "experiments"}
    table["cli"] = {"experiments", "report", "learn", "certify", "problems", "data", "runs", "cli"}
    table["__init__"] = LIBRARY | {"layers", "models"}
    table["__main__"] = {"cli"}
    return table


ALLOWED = allowed()


def room_of(path: Path) -> str:
    """The room a file of the package lies in: its folder, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, room: str) -> Iterator[tuple[int, str, str]]:
    """(line, room, name) for everything of settlepoint that the source imports, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _room(a.name), "") for a in node.names if f"{a.name}.".startswith("settlepoint."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} of {room}: write imports in full, from settlepoint"
            module = node.module or ""
            if module == "settlepoint":
                yield from ((node.lineno, a.name if a.name in ALLOWED else "", a.name) for a in node.names)
            elif module.startswith("settlepoint."):
                yield from ((node.lineno, _room(module), a.name) for a in node.names)


def _room(module: str) -> str:
    return f"{module}.".split(".")[1]


def broken(source: str, room: str) -> list[str]:
    """The imports of a source in that room which the law forbids."""
    found = []
    for line, target, name in imported(ast.parse(source), room):
        upward = target not in ALLOWED[room]
        only_fixed_point = room == "models" and target == "solve" and name != "FixedPoint"
        if upward or only_fixed_point:
            found.append(f"line {line}: {room} imports {name or 'all'} of {target or 'the package itself'}")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_lower_rooms_never_import_higher_ones(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} is no room of the design; give it a place in the law"
    assert not broken(path.read_text(encoding="utf-8"), room)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_what_may_never_be_imported(path: Path) -> None:
    """torchvision has no build beside the CPU torch; pickle runs what it reads.

    Of pickle one file uses a part that runs nothing: the class whose find_class knows a list of names.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_pickle(node.value)}
    if used and used <= PARTS.get(str(path.relative_to(PACKAGE)), set()):
        names.discard("pickle")
    assert not {name.split(".")[0] for name in names} & {"torchvision", "pickle", "cloudpickle", "dill"}


PARTS = {"data/cifar.py": {"Unpickler", "UnpicklingError"}}


def _is_pickle(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "pickle"


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("spaces", "from settlepoint.equation import Equation"),
        ("solvers", "import settlepoint.iterate"),
        ("iterate", "def f():\n    from settlepoint.adjoints import Implicit"),
        ("layers", "from settlepoint.models import Gcn"),
        ("models", "from settlepoint.solve import solve"),
        ("models", "from settlepoint.solvers import Picard"),
        ("runs", "from settlepoint.experiments import load"),
        ("report", "from settlepoint.runs import Record"),
        ("cli", "from settlepoint.solve import solve"),
        ("adjoints", "from settlepoint import solve"),
        ("solvers", "from settlepoint import Picard"),
    ],
)
def test_the_law_catches(room: str, source: str) -> None:
    assert broken(source, room)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("stop", "from settlepoint.solution import Status"),
        ("adjoints", "from settlepoint.iterate import iterate"),
        ("models", "from settlepoint.solve import FixedPoint"),
        ("experiments", "from settlepoint.runs import Record"),
        ("experiments", "from settlepoint import Picard"),
        ("compat", "from settlepoint.learn import fit"),
    ],
)
def test_the_law_allows(room: str, source: str) -> None:
    assert not broken(source, room)
