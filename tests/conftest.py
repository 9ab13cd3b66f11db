"""Fixtures for every test: loops, servers, and a check that nothing is left running."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pathlib
import signal
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx

from bandwidth_mfa_async import BasicAuth, CodeRequest, CodeTemplate, MFAClient, RetryPolicy
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.fault_server import FaultServer
from tests.support.virtual_time import VirtualTimeLoop, virtual_uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from tests.support.clients import MakeClient

FROM = "+19195554321"
TO = "+19195551234"
HANDLERS = pytest.StashKey[dict[signal.Signals, Any]]()
APPLICATION = "93de2206-9669-4e07-948d-329f4b722ee2"
REQUEST = CodeRequest(TO, FROM, APPLICATION, scope="login")


TESTS = pathlib.Path(__file__).parent
SYSTEM = TESTS / "system"
ABOUT_RESOURCES = {TESTS / "integration" / name for name in ("faults", "transport", "worker")}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "system: everything below tests/system; set automatically")
    config.addinivalue_line("markers", "resources: collect garbage after each test; set automatically")
    config.addinivalue_line("markers", "virtual_time: run on a loop whose time jumps instead of passing")
    config.addinivalue_line("markers", "uvloop: run on uvloop as well")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run a single file in this process: that is faster, and a debugger works."""
    files = [argument for argument in config.args if argument.partition("::")[0].endswith(".py")]
    return 0 if len(config.args) == len(files) == 1 else None


def wants_system(config: pytest.Config) -> bool:
    """Return whether the system tier is asked for: by its marker, or by a path in it."""
    paths = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return "system" in config.option.markexpr.split() or any(SYSTEM in (p, *p.parents) for p in paths)


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    """Leave out the system tier unless it is asked for, and the other tiers where it alone is."""
    if collection_path == SYSTEM and not wants_system(config):
        return True
    if config.option.markexpr == "system" and collection_path in {TESTS / "unit", TESTS / "integration"}:
        return True
    return None


def pytest_itemcollected(item: pytest.Item) -> None:
    if SYSTEM in item.path.parents:
        item.add_marker("system")
    if item.path.parent in ABOUT_RESOURCES or "cancellation" in item.path.name:
        item.add_marker("resources")


def freeze() -> None:
    """Collect garbage, and have later collections look only at objects that are made from now on."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    freeze()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    if item.get_closest_marker("virtual_time"):
        loops: dict[str, Any] = {"virtual": VirtualTimeLoop}
        return loops | {"virtual uvloop": virtual_uvloop} if item.get_closest_marker("uvloop") else loops
    if item.get_closest_marker("uvloop"):
        import uvloop

        return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.SelectorEventLoop}


def signal_handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.stash[HANDLERS] = signal_handlers()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Restore the signal handlers, and fail a test that has changed one: its children inherit what is ignored."""
    yield
    before, after = item.stash[HANDLERS], signal_handlers()
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before, "the test has changed a signal handler"


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Fail the run if it leaves a process behind, and kill that process."""
    processes.adopt_orphans()
    yield
    left = processes.kill_descendants()
    assert not left, "\n".join(["processes left behind:", *left])


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_a_module() -> Iterator[None]:
    """Collect each module's garbage, so that a ResourceWarning belongs to the module that caused it."""
    yield
    freeze()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_nothing_left_in_loop")
    yield
    if request.node.get_closest_marker("resources"):
        gc.collect()


@pytest.fixture
async def _nothing_left_in_loop() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    before = asyncio.all_tasks()
    # A call of this package that blocks the event loop raises where it blocks.
    with blockbuster_ctx("bandwidth_mfa_async"):
        yield
    for _ in range(10):  # transports close in the next iterations
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"
    assert not problems, f"the loop's exception handler was called: {problems}"


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send through aiohttp's documented interface where a test asks for it, as on an aiohttp that lacks the rest."""
    if getattr(request, "param", "direct") == "documented":
        monkeypatch.setattr("bandwidth_mfa_async._transport._fast_path._request", None)


@pytest.fixture
def template() -> CodeTemplate:
    return CodeTemplate(FROM, APPLICATION, scope="login")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as fault_server:
        yield fault_server


@pytest.fixture
async def make_client(server: FaultServer) -> AsyncIterator[MakeClient]:
    """Make clients of the fault server; all are closed at the end."""
    clients: list[MFAClient] = []

    def make(**options: Any) -> MFAClient:
        settings: dict[str, Any] = {
            "account_id": "9900000",
            "auth": BasicAuth("user", "pass"),
            "base_url": server.base_url,
            "retry": RetryPolicy(wait_initial=0.001, wait_max=0.002),
        }
        client = MFAClient(**(settings | options))
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose(drain_timeout=0)
