"""Pytest fixtures: `mfa_simulator`, `mfa_client`, and `mfa_simulator_options` and `mfa_client_options` to override.

Found by pytest through the `pytest11` entry point. Nothing but pytest is imported before a test asks for a fixture.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ._client import MFAClient
    from .testing import ThreadedSimulator

_SCOPES: Final = ("function", "class", "module", "package", "session")
# Options that differ from test to test make a server each; the oldest are stopped beyond so many.
_MAX_SIMULATORS: Final = 4
# Seconds that calls of a test that is over are given to end.
_DRAIN_TIMEOUT: Final = 1.0


class _SimulatorPool:
    """The running simulators, one for each set of options that was asked for."""

    def __init__(self) -> None:
        self._simulators: list[tuple[dict[str, Any], ThreadedSimulator]] = []

    def get(self, options: dict[str, Any]) -> ThreadedSimulator:
        """Return a simulator with these options, as good as new."""
        for known, simulator in self._simulators:
            if known == options:
                simulator.reset()
                return simulator
        from .testing import ThreadedSimulator

        simulator = ThreadedSimulator(**options)
        simulator.open()
        self._simulators.append((dict(options), simulator))
        if len(self._simulators) > _MAX_SIMULATORS:
            self._simulators.pop(0)[1].close()
        return simulator

    def close(self) -> None:
        """Stop them all."""
        for _, simulator in self._simulators:
            simulator.close()


@pytest.fixture(scope="session")
def mfa_simulator_options() -> dict[str, Any]:
    """Arguments for `Simulator`; override it in a conftest, module or class, in any scope, to give your own.

    Tests with equal options share a server.
    """
    return {}


@pytest.fixture
def mfa_client_options() -> dict[str, Any]:
    """Arguments for `MFAClient` besides those that lead to the simulator; override it to give your own."""
    return {}


@pytest.fixture(scope="session")
def _mfa_simulators() -> Iterator[_SimulatorPool]:
    pool = _SimulatorPool()
    yield pool
    pool.close()


@pytest.fixture
def mfa_simulator(_mfa_simulators: _SimulatorPool, mfa_simulator_options: dict[str, Any]) -> ThreadedSimulator:
    """A running simulator of Bandwidth's MFA service, empty when the test begins.

    It is started by the first test that asks for it, runs in a thread of its own until the session ends, and may be
    used from the test's thread, async or not: `inbox`, `last_code(number)`, `faults.script(...)`, `client_kwargs()`
    and the rest of `bandwidth_mfa_async.simulator.Simulator`.
    """
    return _mfa_simulators.get(mfa_simulator_options)


@pytest.fixture
def mfa_environ(mfa_simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that lead `MFAClient.from_env` to `mfa_simulator`, set for the length of the test.

    For an application that makes its own client: ask for this before the application starts.
    """
    variables = mfa_simulator.environ()
    monkeypatch.delenv("BW_AUTH", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def _make_client(simulator: ThreadedSimulator, options: dict[str, Any]) -> MFAClient:
    from ._client import MFAClient

    arguments: dict[str, Any] = {**simulator.client_kwargs(), **options}
    return MFAClient(**arguments)


@pytest.fixture
def mfa_client(request: pytest.FixtureRequest) -> Any:
    """An `MFAClient` that talks to `mfa_simulator`; closed after the test, in the test's event loop.

    For async tests, under pytest-asyncio (auto or strict mode, any loop scope) or anyio's plugin. In other tests make
    a client where your loop runs: ``MFAClient(**mfa_simulator.client_kwargs())``.
    """
    mode = _asyncio_mode(request.config)
    if mode != "auto" and "anyio_backend" in request.fixturenames:
        return request.getfixturevalue("_mfa_client_anyio")
    if mode is None:
        pytest.fail("mfa_client needs pytest-asyncio, or an anyio test; or make a client in your own event loop")
    return request.getfixturevalue(f"_mfa_client_{_loop_scope(request)}")


@pytest.fixture
async def _mfa_client_anyio(
    mfa_simulator: ThreadedSimulator, mfa_client_options: dict[str, Any]
) -> AsyncIterator[MFAClient]:
    client = _make_client(mfa_simulator, mfa_client_options)
    yield client
    await client.aclose(drain_timeout=_DRAIN_TIMEOUT)


def pytest_configure(config: pytest.Config) -> None:
    """Add pytest-asyncio's kind of fixtures where it is in use; strict mode takes no others."""
    if _asyncio_mode(config) is None:
        return
    from pytest_asyncio import fixture

    plugin = types.ModuleType("bandwidth_mfa_async_asyncio_fixtures")
    for scope in _SCOPES:
        name = f"_mfa_client_{scope}"
        setattr(plugin, name, fixture(_make_fixture_function(), loop_scope=scope, name=name))
    config.pluginmanager.register(plugin, plugin.__name__)


def _make_fixture_function() -> Callable[..., AsyncIterator[MFAClient]]:
    """Return a new function, because pytest-asyncio writes the loop's scope on it."""

    async def client(mfa_simulator: ThreadedSimulator, mfa_client_options: dict[str, Any]) -> AsyncIterator[MFAClient]:
        client = _make_client(mfa_simulator, mfa_client_options)
        yield client
        await client.aclose(drain_timeout=_DRAIN_TIMEOUT)

    return client


def _asyncio_mode(config: pytest.Config) -> str | None:
    """Return pytest-asyncio's mode; None where it is not in use."""
    try:
        configured = config.getini("asyncio_mode")
    except ValueError:
        return None
    return str(config.getoption("asyncio_mode", None) or configured)


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Return the scope of the event loop that the test runs in: a client is bound to one."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and (scope := marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")):
        return str(scope)
    try:
        return str(request.config.getini("asyncio_default_test_loop_scope") or "function")
    except ValueError:  # before pytest-asyncio 0.26
        return "function"
