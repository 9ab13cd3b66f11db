"""Many processes of one application: one success, `max_checks` guesses, one text for a double click."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.signin import SignIn, SignIns
from bandwidth_mfa_async.simulator import Simulator
from tests.support import processes
from tests.support.signins import LOGIN, NUMBER, VISITOR
from tests.system.signin._checks import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractContextManager

PROCESSES = 8


class App:
    """An application: a simulator, a store, and the sign-ins of this process."""

    def __init__(self, where: str, sim: Simulator, signins: SignIns) -> None:
        self.where, self.sim, self.signins = where, sim, signins

    async def start(self) -> SignIn:
        return await self.signins.start(NUMBER, visitor=VISITOR, subject="7")

    def process(self, what: str, codes: list[str], mode: str = "check") -> AbstractContextManager[Any]:
        sim = self.sim
        account = [sim.base_url, sim.account_id, sim.username, sim.password]
        command = [sys.executable, "-m", "tests.system.signin._checks", self.where, *account]
        pipes = {"stdin": processes.PIPE, "stdout": processes.PIPE}
        return processes.running([*command, what, ",".join(codes), mode], text=True, **pipes)

    async def in_processes(self, what: str, codes: list[list[str]], mode: str = "check") -> Counter[str]:
        """Return how often each result came, of checks that begin in all processes at once."""

        def run() -> Counter[str]:
            results: Counter[str] = Counter()
            with self._all(what, codes, mode) as children:
                for child in children:
                    assert child.stdout.readline() == "ready\n"
                for child in children:
                    child.stdin.write("go\n")
                    child.stdin.flush()
                for child in children:
                    results.update(json.loads(child.stdout.readline()))
            return results

        return await asyncio.to_thread(run)

    def _all(self, what: str, codes: list[list[str]], mode: str) -> Any:
        from contextlib import ExitStack, contextmanager

        @contextmanager
        def all_of_them() -> Iterator[list[Any]]:
            with ExitStack() as stack:
                yield [stack.enter_context(self.process(what, each, mode)) for each in codes]

        return all_of_them()


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    url: str = request.getfixturevalue("redis_server").url
    return url


@pytest.fixture
async def app(where: str) -> AsyncIterator[App]:
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator(lockout_after=1000))
        mfa = await stack.enter_async_context(MFAClient(**sim.client_kwargs()))
        made = await asyncio.to_thread(open_store, where)
        store = await stack.enter_async_context(made)
        if hasattr(store, "_file"):
            await asyncio.to_thread(store._file)
        yield App(where, sim, SignIns(mfa, LOGIN, store=store))


async def test_64_checks_of_the_right_code_have_one_success(app: App) -> None:
    flow = await app.start()
    code = app.sim.inbox[-1].code
    # Only five reach the service; the others find the flow used or its tries spent.
    results = await app.in_processes(flow.id, [[code] * 8] * PROCESSES)
    assert results["valid"] == 1
    assert results.total() == 64
    assert set(results) <= {"valid", "used", "exhausted"}


async def test_1000_guesses_reach_the_service_max_checks_times(app: App) -> None:
    flow = await app.start()
    code = app.sim.inbox[-1].code
    guesses = [f"{n:06}" for n in range(1001) if f"{n:06}" != code][:1000]
    asked = len(app.sim.requests)
    results = await app.in_processes(flow.id, [guesses[n::PROCESSES] for n in range(PROCESSES)])
    assert results == {"wrong": 5, "exhausted": 995}
    assert len(app.sim.requests) - asked == 5


async def test_a_double_click_on_two_servers_sends_one_text(app: App) -> None:
    results = await app.in_processes("the key of a form", [["", ""]] * 4, "start")
    assert len(results) == 1
    assert results.total() == 8
    assert len(app.sim.inbox) == 1


async def test_a_process_killed_after_the_services_yes(app: App) -> None:
    """At most one success follows, and the try is spent."""
    flow = await app.start()
    code = app.sim.inbox[-1].code

    def kill() -> None:
        with app.process(flow.id, [code], "hang") as child:
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "ready\n"
            assert child.stdout.readline() == "valid at the service\n"

    await asyncio.to_thread(kill)
    known = await app.signins.get(flow.id)
    assert known is not None
    assert known.checks_left == 4
    results = await app.in_processes(flow.id, [[code] * 4] * 2)
    assert results["valid"] == 1
