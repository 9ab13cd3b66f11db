"""Pytest fixtures: `mfa_simulator`, `mfa_client`, `mfa_signins` and `mfa_environ`.

Override `mfa_simulator_options`, `mfa_client_options` and `mfa_signins_options` to configure them. pytest loads this
module through the `pytest11` entry point, in every test run, so it imports nothing but pytest until a test requests a
fixture.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ._client import MFAClient
    from .signin import SignIns
    from .testing import ThreadedSimulator

_SCOPES: Final = ("function", "class", "module", "package", "session")
# Each set of options has a simulator. When more are running, the oldest one stops.
_MAX_SIMULATORS: Final = 4
# Seconds for which closing a client waits for the calls that the test left in flight.
_DRAIN_TIMEOUT: Final = 1.0


class _SimulatorPool:
    """The running simulators, one for each set of options."""

    def __init__(self) -> None:
        self._simulators: list[tuple[dict[str, Any], ThreadedSimulator]] = []

    def get(self, options: dict[str, Any]) -> ThreadedSimulator:
        """Return a running simulator with these options, in its initial state."""
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
        """Stop all simulators."""
        for _, simulator in self._simulators:
            simulator.close()


@pytest.fixture(scope="session")
def mfa_simulator_options() -> dict[str, Any]:
    """Arguments of `Simulator`; override this fixture in a conftest, module or class, with any scope.

    Tests with equal options share one simulator. Codes age by the simulator's own clock and not by the system's, so
    freezegun and time-machine do not age them: return ``{"clock": clock}`` with a
    `bandwidth_mfa_async.testing.ManualClock`, and call its ``tick(seconds)``.
    """
    return {}


@pytest.fixture
def mfa_client_options() -> dict[str, Any]:
    """Further arguments of `MFAClient`, besides those of the simulator; override this fixture to set them."""
    return {}


@pytest.fixture(scope="session")
def _mfa_simulators() -> Iterator[_SimulatorPool]:
    pool = _SimulatorPool()
    yield pool
    pool.close()


@pytest.fixture
def mfa_simulator(_mfa_simulators: _SimulatorPool, mfa_simulator_options: dict[str, Any]) -> ThreadedSimulator:
    """A running simulator of Bandwidth's MFA service, in its initial state when the test starts.

    The first test that requests it starts it. It runs in its own thread until the session ends. Sync and async tests
    can use it: `inbox`, `last_code(number)`, `faults.script(...)`, `client_kwargs()` and the other members of
    `bandwidth_mfa_async.simulator.Simulator`.
    """
    return _mfa_simulators.get(mfa_simulator_options)


@pytest.fixture
def mfa_environ(mfa_simulator: ThreadedSimulator, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment variables that make `MFAClient.from_env` use `mfa_simulator`, set until the test ends.

    For applications that make their own client. Request this fixture before the application starts.
    """
    variables = mfa_simulator.environ()
    monkeypatch.delenv("BW_PASSWORD_FILE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def _make_client(simulator: ThreadedSimulator, options: dict[str, Any]) -> MFAClient:
    from ._client import MFAClient

    arguments: dict[str, Any] = {**simulator.client_kwargs(), **options}
    return MFAClient(**arguments)


@pytest.fixture
def mfa_client(request: pytest.FixtureRequest) -> Any:
    """An `MFAClient` that sends to `mfa_simulator`; closed after the test, in the test's event loop.

    For async tests under pytest-asyncio (auto or strict mode, any loop scope) or anyio's plugin. In other tests, make
    a client in your own event loop: ``MFAClient(**mfa_simulator.client_kwargs())``.
    """
    mode = _asyncio_mode(request.config)
    if mode != "auto" and "anyio_backend" in request.fixturenames:
        return request.getfixturevalue("_mfa_client_anyio")
    if mode is None:
        pytest.fail("mfa_client needs pytest-asyncio, or an anyio test; or make a client in your own event loop")
    return request.getfixturevalue(f"_mfa_client_{_loop_scope(request)}")


@pytest.fixture
def mfa_signins_options() -> dict[str, Any]:
    """Arguments of `SignIns`, such as `template` and `store`; override this fixture to set them."""
    return {}


@pytest.fixture
def mfa_signins(mfa_client: Any, mfa_signins_options: dict[str, Any]) -> SignIns:
    """`SignIns` that send to `mfa_simulator` through `mfa_client`, in a `MemoryStore` of their own.

    Pass a store with ``clock=ManualClock()`` to let a test age flows, cool-downs and budgets.
    """
    from ._models import CodeTemplate
    from .signin import SignIns
    from .stores import MemoryStore

    template = CodeTemplate("+19195554321", "any application", scope="login")
    arguments: dict[str, Any] = {"template": template, "store": MemoryStore(), **mfa_signins_options}
    return SignIns(mfa_client, **arguments)


@pytest.fixture
async def _mfa_client_anyio(
    mfa_simulator: ThreadedSimulator, mfa_client_options: dict[str, Any]
) -> AsyncIterator[MFAClient]:
    client = _make_client(mfa_simulator, mfa_client_options)
    yield client
    await client.aclose(drain_timeout=_DRAIN_TIMEOUT)


def pytest_configure(config: pytest.Config) -> None:
    """Register pytest-asyncio fixtures if pytest-asyncio is in use; its strict mode accepts no others."""
    if _asyncio_mode(config) is None:
        return
    from pytest_asyncio import fixture

    plugin = types.ModuleType("bandwidth_mfa_async_asyncio_fixtures")
    for scope in _SCOPES:
        name = f"_mfa_client_{scope}"
        setattr(plugin, name, fixture(_make_fixture_function(), loop_scope=scope, name=name))
    config.pluginmanager.register(plugin, plugin.__name__)


def _make_fixture_function() -> Callable[..., AsyncIterator[MFAClient]]:
    """Return a new function for each fixture, because pytest-asyncio stores the loop scope on the function."""

    async def client(mfa_simulator: ThreadedSimulator, mfa_client_options: dict[str, Any]) -> AsyncIterator[MFAClient]:
        client = _make_client(mfa_simulator, mfa_client_options)
        yield client
        await client.aclose(drain_timeout=_DRAIN_TIMEOUT)

    return client


def _asyncio_mode(config: pytest.Config) -> str | None:
    """Return the mode of pytest-asyncio; None if it is not in use."""
    try:
        configured = config.getini("asyncio_mode")
    except ValueError:
        return None
    return str(config.getoption("asyncio_mode", None) or configured)


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Return the scope of the test's event loop, because a client is bound to one loop."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and (scope := marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")):
        return str(scope)
    try:
        return str(request.config.getini("asyncio_default_test_loop_scope") or "function")
    except ValueError:  # before pytest-asyncio 0.26
        return "function"
