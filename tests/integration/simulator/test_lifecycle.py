"""Start, stop, access to the state, and the imports of the simulator."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

import bandwidth_mfa_async.simulator as package
from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.simulator import Simulator, SimulatorError, SimulatorStateError
from tests.integration.simulator.conftest import SEND, TO, ApiClient, until
from tests.support import processes
from tests.support.suspensions import every_suspension


async def test_client_kwargs_are_the_arguments_of_a_client(sim):
    kwargs = sim.client_kwargs()
    assert kwargs.keys() == {"account_id", "auth", "base_url"}
    assert (kwargs["auth"].username, kwargs["auth"].password) == (sim.username, sim.password)
    assert kwargs["base_url"] == sim.base_url == f"http://127.0.0.1:{sim.port}/api/v1"
    assert sim.token_url == f"{sim.base_url}/oauth2/token"


async def test_the_address_raises_before_start_and_after_stop():
    sim = Simulator()
    for _ in range(2):
        for name in ("base_url", "token_url", "port", "control_url"):
            with pytest.raises(SimulatorStateError, match="not running"):
                getattr(sim, name)
        with pytest.raises(RuntimeError):
            sim.client_kwargs()
        with pytest.raises(SimulatorError):
            await sim.refuse_connections()
        assert "not running" in repr(sim)
        await sim.start()
        assert sim.base_url in repr(sim)
        await sim.stop()
        await sim.stop()


async def test_a_second_start_raises_and_the_server_continues(api, sim):
    with pytest.raises(SimulatorStateError, match="running already"):
        await sim.start()
    assert (await api.send())[0] == 200


async def test_it_keeps_its_inbox_when_it_is_started_again(session, clock):
    sim = Simulator(clock=clock)
    for count in (1, 2):
        async with sim:
            assert (await ApiClient(session, sim).send())[0] == 200
            assert len(sim.inbox) == count


async def test_a_port_in_use_raises_oserror_and_leaves_no_socket_open():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sim = Simulator(taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await sim.start()
    gc.collect()


async def test_passwords_are_random_and_not_in_repr(sim):
    other = Simulator()
    assert other.password != sim.password
    assert other.client_secret != sim.client_secret
    assert sim.password not in repr(sim) + repr(sim._settings)
    assert sim.client_secret not in repr(sim) + repr(sim._settings)


async def test_last_code_returns_the_newest_code_and_clear_removes_it(api, sim):
    with pytest.raises(LookupError):
        sim.last_code(TO)
    await api.send()
    await api.send(to="+19195550000")
    assert sim.last_code(TO) == sim.inbox[0].code
    code = sim.last_code(TO)
    sim.clear()
    assert not sim.inbox
    assert not sim.requests
    with pytest.raises(LookupError):
        sim.last_code(TO)
    assert await api.verify(code) == (200, {"valid": False})


async def test_wait_for_message_returns_the_newest_or_a_newer_message(api, sim, clock):
    waiting = asyncio.create_task(sim.wait_for_message(TO, timeout=5))
    await until(lambda: clock.pending)
    await api.send(to="+19195550000")
    assert not waiting.done()
    await api.send()
    first = await waiting
    assert first is sim.inbox[1]
    assert await sim.wait_for_message(TO) is first
    newer = asyncio.create_task(sim.wait_for_message(TO, timeout=5, after=first))
    await until(lambda: clock.pending)
    clock.tick(5)
    with pytest.raises(TimeoutError, match="within 5 s"):
        await newer
    assert clock.pending == 0
    assert not sim._inbox._waiters


async def test_limits_bound_the_inbox_and_the_request_log(session):
    async with Simulator(inbox_limit=3, request_log_limit=2) as sim:
        api = ApiClient(session, sim)
        for index in range(5):
            await api.send(to=f"+1919555000{index}")
        assert [message.to[-1] for message in sim.inbox] == ["2", "3", "4"]
        assert len(sim.requests) == 2
        with pytest.raises(LookupError):
            sim.last_code("+19195550001")
        assert len(sim._inbox._latest) == 3
        sim.clear()
        assert sim.sent_count == 5


async def test_stop_is_quick_and_leaves_no_task_and_no_socket():
    """50 keep-alive connections are closed within 0.5 s."""
    before = asyncio.all_tasks()
    async with Simulator() as sim, aiohttp.ClientSession() as session:
        api = ApiClient(session, sim)
        await asyncio.gather(*(api.send() for _ in range(50)))
        assert len(sim.inbox) == 50
        url = sim.base_url
        start = asyncio.get_running_loop().time()
        await sim.stop()
        assert asyncio.get_running_loop().time() - start < 0.5
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(url)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    gc.collect()


async def test_it_listens_on_ipv6():
    try:
        async with Simulator(host="::1") as sim, aiohttp.ClientSession() as session:
            assert sim.base_url.startswith("http://[::1]:")
            assert (await ApiClient(session, sim).send())[0] == 200
    except OSError:
        pytest.skip("no IPv6 here")


def test_it_runs_on_uvloop():
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with Simulator(clock=ManualClock()) as sim, aiohttp.ClientSession() as session:
            api = ApiClient(session, sim)
            assert (await api.send())[0] == 200
            await sim.refuse_connections()
            with pytest.raises(aiohttp.ClientConnectionError):
                await api.post("voice", SEND)
            await sim.accept_connections()
            assert (await api.send())[0] == 200

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_the_simulator_does_not_import_the_sdk():
    """A test double that shares the codec or the models cannot find their bugs. There are no import cycles either."""
    folder = Path(package.__file__).parent
    graph = {path.stem: _imports(ast.parse(path.read_text())) for path in folder.glob("*.py")}
    for name, imports in graph.items():
        own_imports = {each for each in imports if each.startswith(("bandwidth_mfa_async", ".."))}
        allowed = {"bandwidth_mfa_async._clock", "bandwidth_mfa_async._concise"} | (
            {"bandwidth_mfa_async._credentials"} if name == "_endpoint" else set()
        )
        assert own_imports <= allowed, name
        others = {each.split(".")[0] for each in imports - own_imports if not each.startswith(".")}
        assert others <= sys.stdlib_module_names | {"attrs", "aiohttp", "trustme"}, name
    inner = {name: {each[1:] for each in imports if each.startswith("._")} for name, imports in graph.items()}
    while leaves := {name for name, needs in inner.items() if not needs & inner.keys()}:
        inner = {name: needs for name, needs in inner.items() if name not in leaves}
    assert not inner, f"import cycle among {sorted(inner)}"


def test_importing_the_simulator_loads_no_other_sdk_module():
    code = (
        "import sys, types; stub = types.ModuleType('bandwidth_mfa_async');"
        f"stub.__path__ = [{str(Path(package.__file__).parents[1])!r}]; sys.modules['bandwidth_mfa_async'] = stub;"
        "import bandwidth_mfa_async.simulator;"
        "ours = [name for name in sys.modules if name.startswith('bandwidth_mfa_async.') and 'simulator' not in name];"
        "print(sorted(ours))"
    )
    out = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['bandwidth_mfa_async._clock', 'bandwidth_mfa_async._concise']"


def test_every_exported_name_exists_and_is_documented():
    for name in package.__all__:
        assert getattr(package, name).__doc__, name


@pytest.mark.parametrize("call", ["start", "stop", "refuse_connections", "accept_connections", "wait_for_message"])
async def test_cancellation_at_every_suspension_leaves_it_restartable(call):
    """After the cancellation the simulator can stop, start again and accept connections."""
    sims = []

    async def make():
        sims.append(Simulator())
        if call == "start":
            await sims[-1].start()
            return
        await asyncio.shield(sims[-1].start())
        if call == "wait_for_message":
            with contextlib.suppress(TimeoutError):
                await sims[-1].wait_for_message(TO, timeout=0.01)
            return
        if call == "accept_connections":
            await asyncio.shield(sims[-1].refuse_connections())
        await getattr(sims[-1], call)()

    ends = set()
    async for suspensions, task in every_suspension(make):
        assert task.cancelled() == suspensions.struck
        assert task.cancelled() or task.exception() is None
        ends.add(task.cancelled())
        for _ in range(5):
            await asyncio.sleep(0)  # let the shielded operation end
        await sims[-1].stop()
        async with sims[-1] as sim:
            _, writer = await asyncio.open_connection("127.0.0.1", sim.port)
            writer.close()
            await writer.wait_closed()
    assert ends == {True, False}
