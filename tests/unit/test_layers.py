"""Modules have docstrings and a bounded size.

The layers and the place of each library are import-linter contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent / "bandwidth_mfa_async"

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
