"""What the package exports."""

from __future__ import annotations

import ast
import importlib
import inspect
import pathlib
import pydoc
import re
import typing

import pytest

import bandwidth_mfa_async
from bandwidth_mfa_async import errors


def test_every_exported_name_can_be_loaded() -> None:
    """Names are loaded on first use, so use each of them once."""
    for name in bandwidth_mfa_async.__all__:
        assert getattr(bandwidth_mfa_async, name) is not None
    assert set(bandwidth_mfa_async.__all__) <= set(dir(bandwidth_mfa_async))
    assert set(bandwidth_mfa_async.__all__) - {"__version__"} == set(bandwidth_mfa_async._HOMES)


def test_every_error_is_exported() -> None:
    """Every error that can be raised can be caught by a name of the package."""
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.MFAError):
            assert getattr(bandwidth_mfa_async, name) is cls


def test_a_wrong_name_is_an_attribute_error() -> None:
    """As in any module."""
    with pytest.raises(AttributeError, match="nothing_such"):
        bandwidth_mfa_async.nothing_such  # noqa: B018
    with pytest.raises(ImportError):
        from bandwidth_mfa_async import nothing_such  # noqa: F401


@pytest.mark.parametrize("name", sorted(set(bandwidth_mfa_async.__all__) - {"__version__"}))
def test_every_public_name_has_a_docstring(name: str) -> None:
    """Each name, and each of its public methods."""
    thing = getattr(bandwidth_mfa_async, name)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items():
        if not attribute.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, (property, classmethod))
        ):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"


# The modules that users import.
PUBLIC = ("", ".bulk", ".signin", ".simulator", ".stores", ".telemetry", ".testing", ".webhooks", ".worker")


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_used_in_the_type_checked_program(module: str) -> None:
    """A name that no checked program uses can lose its types unnoticed."""
    program = (pathlib.Path(__file__).parents[1] / "typing" / "api.py").read_text()
    used = {node.id for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Name)}
    imported = {
        alias.name: alias.asname or alias.name
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    exported = importlib.import_module(f"bandwidth_mfa_async{module}").__all__
    assert not [name for name in exported if imported.get(name) not in used]


def test_a_star_import_provides_every_name() -> None:
    """As do completion in an editor and `dir`, although names are loaded on first use."""
    namespace: dict[str, object] = {}
    exec("from bandwidth_mfa_async import *", namespace)
    assert set(bandwidth_mfa_async.__all__) <= namespace.keys()


@pytest.mark.parametrize("module", PUBLIC)
def test_pydoc_shows_every_public_name(module: str) -> None:
    """`python -m pydoc bandwidth_mfa_async` is the reference."""
    thing = importlib.import_module(f"bandwidth_mfa_async{module}")
    text = pydoc.plain(pydoc.render_doc(thing))
    for name in set(thing.__all__) - {"__version__"}:
        assert name in text, name


@pytest.mark.parametrize("module", PUBLIC)
def test_no_any_in_public_signatures(module: str) -> None:
    """Every parameter has a type; only methods that read and write JSON accept anything."""
    thing = importlib.import_module(f"bandwidth_mfa_async{module}")
    for cls in (getattr(thing, name) for name in thing.__all__):
        if not inspect.isclass(cls) or issubclass(cls, Exception):
            continue
        for name, member in vars(cls).items():
            function = getattr(member, "__func__", member)
            if name.startswith("_") or "json" in name or not inspect.isfunction(function):
                continue
            for seen in typing.get_overloads(function) or [function]:
                for parameter in inspect.signature(seen).parameters.values():
                    assert not re.search(r"\bAny\b", str(parameter.annotation)), f"{cls.__name__}.{name}({parameter})"
