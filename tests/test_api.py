"""What the package exports, and that asking for one name loads no more than it needs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import bandwidth_mfa_async
from bandwidth_mfa_async import errors


def test_every_exported_name_is_there() -> None:
    """Names are loaded on first use, so each is used once."""
    for name in bandwidth_mfa_async.__all__:
        assert getattr(bandwidth_mfa_async, name) is not None
    assert set(bandwidth_mfa_async.__all__) <= set(dir(bandwidth_mfa_async))
    assert set(bandwidth_mfa_async.__all__) - {"__version__"} == set(bandwidth_mfa_async._HOMES)


def test_every_error_is_exported() -> None:
    """What can be raised can be caught by a name of the package."""
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.MFAError):
            assert getattr(bandwidth_mfa_async, name) is cls


def test_a_wrong_name_is_an_attribute_error() -> None:
    """As from any module."""
    with pytest.raises(AttributeError, match="nothing_such"):
        bandwidth_mfa_async.nothing_such  # noqa: B018
    with pytest.raises(ImportError):
        from bandwidth_mfa_async import nothing_such  # noqa: F401


def test_importing_the_package_loads_no_library() -> None:
    """The HTTP client comes with the first name that needs it."""
    code = "import sys, bandwidth_mfa_async; print([n for n in ('aiohttp', 'attrs', 'cattrs') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(set(bandwidth_mfa_async.__all__) - {"__version__"}))
def test_every_public_name_explains_itself(name: str) -> None:
    """A docstring on each, and on each of its public methods."""
    thing = getattr(bandwidth_mfa_async, name)
    assert inspect.getdoc(thing)
    for attribute, member in vars(thing).items():
        if not attribute.startswith("_") and (
            inspect.isfunction(member) or isinstance(member, (property, classmethod))
        ):
            assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{attribute}"
