"""Hugging Face's diffusers, imported when it is used and not before."""

from __future__ import annotations

from types import ModuleType


def diffusers() -> ModuleType:
    """The module diffusers. Raises ImportError, naming the extra, when it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise ImportError('diffusion samplers need diffusers: pip install "settlepoint[chains]"') from None
    return diffusers
