"""Text as characters: the source of Python's own standard library, which every Python brings along."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from settlepoint.data.registry import DataError

VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
"""Character of each token: a new line and printable ASCII."""

BLANK = len(VOCABULARY)
"""A token that stands for no character: what is not known yet."""

TOKENS = len(VOCABULARY) + 1

TRAIN = (
    "argparse", "ast", "calendar", "configparser", "contextlib", "csv", "dataclasses", "datetime", "difflib", "dis",
    "doctest", "enum", "fractions", "ftplib", "functools", "inspect", "ipaddress", "locale", "logging", "mailbox",
    "optparse", "pathlib", "pdb", "pickle", "platform", "pprint", "random", "smtplib", "socket", "subprocess",
    "tarfile", "tempfile", "threading", "tokenize", "traceback", "typing", "uuid", "weakref", "zipfile",
)  # fmt: skip
HELD_OUT = ("shutil", "statistics", "textwrap")


@dataclass(frozen=True)
class Characters:
    """Tokens of text to train on and of modules that are held out, (T,) int64. version: of the Python they are of."""

    train: Tensor
    held_out: Tensor
    version: str


def characters(train: Sequence[str] = TRAIN, held_out: Sequence[str] = HELD_OUT) -> Characters:
    """The source of standard modules, one after the other; another version of Python has slightly other text.

    Raises ValueError for modules on both sides, DataError for one whose source this Python does not bring.
    """
    both = sorted(set(train) & set(held_out))
    if both:
        raise ValueError(f"held_out must not be trained on, got {', '.join(both)} in both")
    text = ["".join(_source(name) for name in names) for names in (train, held_out)]
    return Characters(encoded(text[0]), encoded(text[1]), platform.python_version())


def encoded(text: str) -> Tensor:  # (T,) int64
    """Tokens of a text; characters outside the vocabulary are left out.

    >>> encoded("a é\\n").tolist()
    [66, 1, 0]
    """
    return torch.tensor([_NUMBER[c] for c in text if c in _NUMBER], dtype=torch.int64)


def written(tokens: Tensor) -> str:
    """The text of tokens (T,); a blank is shown as ␣.

    >>> written(encoded("def f(x):"))
    'def f(x):'

    Raises ValueError for a token that does not exist.
    """
    numbers = tokens.tolist()
    wrong = [number for number in numbers if not 0 <= number < TOKENS]
    if wrong:
        raise ValueError(f"tokens must lie in [0, {TOKENS}), got {wrong[0]}")
    return "".join((VOCABULARY + "␣")[number] for number in numbers)


def windows(tokens: Tensor, count: int, length: int, generator: torch.Generator) -> Tensor:  # (count, length)
    """Parts of the text of one length that begin anywhere. Raises ValueError when the text is shorter."""
    if not 1 <= length <= len(tokens):
        raise ValueError(f"length must lie in [1, {len(tokens)}], the length of the text, got {length}")
    first = torch.randint(len(tokens) - length + 1, (count, 1), generator=generator)
    return tokens[first + torch.arange(length)]


_NUMBER = {character: number for number, character in enumerate(VOCABULARY)}


def _source(name: str) -> str:
    try:
        spec = importlib.util.find_spec(name)
        text = spec.loader.get_source(name) if spec is not None else None  # type: ignore[union-attr]
    except (ImportError, AttributeError, OSError, ValueError):
        text = None
    if not text:
        raise DataError(f"this Python ({platform.python_version()}) brings no source of the module {name!r}")
    return text
