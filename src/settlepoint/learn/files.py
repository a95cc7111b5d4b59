"""Solvers as files: safetensors with a JSON header. Nothing is unpickled or executed, ever."""

from __future__ import annotations

import ast
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

import settlepoint.solvers as solvers
from settlepoint.solvers.solver import Solver

FORMAT = 1
_KEY = "settlepoint"
_NAMES = tuple(name for name in solvers.__all__ if name not in ("Solver", "State", "Mann", "Auto"))
_DEPTH = 5  # of solvers in solvers
_LARGEST = 1000  # of a count in a header: no file makes us build more
_HEADER = 1_000_000  # characters


class SolverFileError(ValueError):
    """The file holds no solver that this version can read; the message names the file and what is wrong."""


def save(solver: Solver, path: str | Path, evidence: dict[str, Any] | None = None) -> None:
    """Writes solver to path: its weights as tensors, its construction and the evidence as JSON in the header.

    Raises TypeError for solvers that hold functions (Mann with a schedule, a preconditioner): functions are not data.
    """
    text = repr(solver)
    try:
        _built(text)
    except (ValueError, TypeError, SyntaxError) as error:
        raise TypeError(f"{text[:200]} cannot be saved: {error}") from None
    header = {"format": FORMAT, "version": _version(), "solver": text, "evidence": evidence or {}}
    tensors = {name: p.detach().contiguous().cpu() for name, p in solver.state_dict().items()}
    save_file(tensors, Path(path), metadata={_KEY: json.dumps(header, allow_nan=True)})


def load(path: str | Path) -> Solver:
    """The solver in the file at path. Raises SolverFileError, and FileNotFoundError where there is none."""
    text, tensors = _read(Path(path))["solver"], _tensors(Path(path))
    try:
        solver = _built(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise SolverFileError(f"{path} describes no solver of this library: {error}") from None
    wanted = {name: p.shape for name, p in solver.state_dict().items()}
    found = {name: t.shape for name, t in tensors.items()}
    if wanted != found:
        raise SolverFileError(f"{path} must hold the weights {_shapes(wanted)}, got {_shapes(found)}")
    if not all(t.is_floating_point() and bool(torch.isfinite(t).all()) for t in tensors.values()):
        raise SolverFileError(f"{path} must hold finite weights of a floating dtype; tune or save it anew")
    solver.load_state_dict(tensors)
    return solver


def evidence(path: str | Path) -> dict[str, Any]:
    """The header of the file at path: version, solver, and the evidence it was saved with."""
    return _read(Path(path))


def _read(path: Path) -> dict[str, Any]:
    """The header, checked."""
    if not path.exists():
        raise FileNotFoundError(f"there is no solver file {path}")
    if path.is_dir():
        raise SolverFileError(f"{path} is a folder and no whole safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise SolverFileError(f"{path} is no whole safetensors file: {error}") from None
    if text is None or len(text) > _HEADER:
        raise SolverFileError(f"{path} was not written by settlepoint: its header has no readable entry {_KEY!r}")
    try:
        header = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SolverFileError(f"{path} has a broken header: {error}") from None
    if (
        not isinstance(header, dict)
        or type(header.get("format")) is not int
        or header["format"] != FORMAT
        or not isinstance(header.get("solver"), str)
    ):
        found = header.get("format") if isinstance(header, dict) else None
        raise SolverFileError(
            f"{path} has format {found!r}; this version reads format {FORMAT}, so tune or save it anew"
        )
    return header


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def _built(text: str) -> Solver:
    """The solver a repr describes: calls of solvers by name, with literals as arguments, and nothing else."""
    return _solver(ast.parse(text, mode="eval").body, 0)


def _solver(node: ast.AST, depth: int) -> Solver:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _NAMES:
        raise ValueError(f"expected one of {', '.join(_NAMES)}, got {ast.unparse(node)[:80]!r}")
    if depth >= _DEPTH:
        raise ValueError(f"more than {_DEPTH} solvers lie inside each other")
    positional = [_argument(a, depth) for a in node.args]
    named = {k.arg: _argument(k.value, depth) for k in node.keywords if k.arg is not None}
    if len(named) != len(node.keywords):
        raise ValueError("arguments must be written out")
    return getattr(solvers, node.func.id)(*positional, **named)


def _argument(node: ast.AST, depth: int) -> Any:
    if isinstance(node, ast.Call):
        return _solver(node, depth + 1)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    value = ast.literal_eval(node)
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"counts go up to {_LARGEST}, got {value}")
    return value


def _version() -> str:
    return version("settlepoint")


def _shapes(shapes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes.items())) or "none"
