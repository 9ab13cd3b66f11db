"""Modules have docstrings and a bounded size, and the visible top level of the repository is fixed.

The layers and the place of each library are import-linter contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import pathlib

import pytest

from tests.support import processes

PACKAGE = "bandwidth_mfa_async"
ROOT = pathlib.Path(__file__).parent.parent.parent / PACKAGE

MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


def name_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", [*MODULES, ROOT / "__init__.py"], ids=name_of)
def test_modules_have_a_docstring_and_a_bounded_size(path: pathlib.Path) -> None:
    """A docstring, and not much more than 400 lines."""
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), f"{path.name} has no docstring"
    assert source.count("\n") <= 460, f"{path.name} is too long: split it"


def test_the_visible_top_level_is_fixed() -> None:
    """The root contains only the agreed names and nothing else that is committed."""
    tracked = processes.run(
        ["git", "ls-files"], cwd=ROOT.parent, capture_output=True, text=True, check=False
    ).stdout.split()
    visible = {path.split("/")[0] for path in tracked if not path.startswith(".")}
    allowed = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", PACKAGE, "tests", "benchmarks"}
    assert visible <= allowed
