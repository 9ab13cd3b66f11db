"""Fixtures of the command line's tests: a simulator that commands use, and a function that runs a command."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import Simulator
from tests.conftest import APPLICATION, FROM
from tests.support.fault_server import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLAGS = ["--from", FROM, "--application-id", APPLICATION]


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator in a separate thread, so that commands can run their own event loops."""
    loop = asyncio.new_event_loop()
    sim = Simulator()
    loop.run_until_complete(sim.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for name, value in environment(sim).items():
        monkeypatch.setenv(name, value)
    yield sim
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(sim.stop())
    loop.close()


@pytest.fixture
def invoke() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *args: runner.invoke(app, list(args))
