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


# Modules that a failing call or item runs through, and the functions in them that import what is loaded by then.
OF_CALLS = (
    "_auth",
    "_client",
    "_items",
    "_redis",
    "_retry",
    "_retry_after",
    "_transport",
    "_wire",
    "bulk",
    "limits",
    "stores",
)
LOADED_EARLIER = {
    "_retry.trials": "when the client binds to its loop",
    "_client._environment.settings_from_env": "before the first call",
    "stores.__getattr__": "before the first call",
    "_redis._script.run": "when the Redis client is made",
    "_redis._connect.make_client": "before the first operation",
    "_redis._durability.read_durability": "when the Redis client is made",
    "_redis._fail_fast.call": "when the Redis client is made",
    "_redis._errors.classify": "when the Redis client is made",
    "_transport._fast_path.probe": "when the client binds to its loop",
    "bulk.report._report.to_dict": "on no failure",
}


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith(OF_CALLS)], ids=name_of)
def test_no_failure_imports(path: pathlib.Path) -> None:
    """A process that is out of file descriptors cannot import what it has not loaded."""
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    late = {
        f"{name_of(path)}.{function.name}"
        for function in functions
        if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(function))
    }
    assert late <= LOADED_EARLIER.keys()
