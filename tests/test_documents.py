"""The Python blocks of README and docs run as they stand."""

import re
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/certificates.md",
        "docs/solvers.md",
        "docs/learning.md",
        "docs/problems.md",
        "docs/graph-models.md",
        "docs/fields.md",
        "docs/diffusion.md",
        "docs/autoencoders.md",
        "docs/integral-equations.md",
        "docs/chains.md",
        "docs/recycling.md",
    ],
)
def test_python_blocks_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ran(name)
    assert names["sol"].counts() == {"CONVERGED": len(names["sol"].value)}


def test_python_blocks_of_decoding_run():
    found = ran("docs/decoding.md")["found"]
    assert bool(found.converged.all())


def ran(name: str) -> dict:
    """What the names of a page are after its blocks, one after the other."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.S)
    assert blocks
    names: dict = {}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        # torch's own forward mode
        warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", DeprecationWarning)
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, name, "exec"), names)
    return names


def test_every_public_name_is_documented():
    import settlepoint

    bare = [n for n in settlepoint.__all__ if not (getattr(settlepoint, n).__doc__ or "").strip()]
    assert bare == []


def test_links_of_the_readme_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
