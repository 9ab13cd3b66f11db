"""Fails a test of a row that compares no columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.faults.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Generator


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that ends without a comparison."""
    result = yield
    watch: Any = pyfuncitem.funcargs["watch"]
    assert watch.compared, "a test of a row shows its outcome, ledger, pool and time"
    return result
