"""README's worker service in a process of its own, against the simulator: it takes, sends, drains and ends."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.fault_server import environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = pathlib.Path(__file__).parent
PATIENCE = 30.0
WORKERS = 10
QUEUED = 100
# Held until the test moves the simulator's clock: the request is processed, and its answer is not out yet.
HELD = Fault(delay=1.0)
NUMBERS = [f"+1919555{n:04}" for n in range(200)]


class Worker:
    """The recipe, and a simulator whose time belongs to the test."""

    def __init__(self, sim: Simulator, clock: ManualClock, process: asyncio.subprocess.Process) -> None:
        self.sim, self.clock, self.process = sim, clock, process

    def give(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def asked(self, count: int) -> None:
        """Wait until so many requests have come to the service."""
        async with asyncio.timeout(PATIENCE):
            while len(self.sim.requests) < count:
                await asyncio.sleep(0.005)

    async def idle(self) -> None:
        """Wait until it waits: what it was given it has read by then, as far as there was room for it."""
        async with asyncio.timeout(PATIENCE):
            while not sleeps(self.process.pid):
                await asyncio.sleep(0.005)

    async def said(self) -> list[str]:
        """Wait for its end, which must be a good one, and return what it printed."""
        async with asyncio.timeout(PATIENCE):
            out, err = await self.process.communicate()
        assert (self.process.returncode, err) == (0, b"")
        return out.decode().splitlines()


def sleeps(pid: int) -> bool:
    """Tell whether a process waits for something; where there is no /proc, it very probably does by now."""
    stat = pathlib.Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "S"


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    clock = ManualClock()
    pipe = processes.PIPE
    async with (
        Simulator(clock=clock) as sim,
        processes.running_async(
            sys.executable,
            HERE / "worker.py",
            env=os.environ | environment(sim),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
        ) as process,
    ):
        yield Worker(sim, clock, process)


async def test_it_ends_with_its_input(worker: Worker) -> None:
    """Everything that was given is sent; what cannot be is told without the number."""
    worker.sim.faults.script(Fault(status=400), operation="messaging", to=NUMBERS[7])
    worker.give(*NUMBERS, "nobody")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    said = await worker.said()
    assert sum(line.startswith("accepted") for line in said) == len(NUMBERS) - 1
    assert sum(line.startswith("not accepted") for line in said) == 2
    assert sorted(message.to for message in worker.sim.inbox) == NUMBERS[:7] + NUMBERS[8:]
    assert not any(number[1:] in line or "nobody" in line for number in NUMBERS for line in said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_loses_nothing(worker: Worker, number: signal.Signals) -> None:
    """Told to stop with ten sends under way and the queue full: what was taken goes out, the rest was not taken."""
    worker.sim.faults.script(*[HELD] * WORKERS, operation="messaging")
    worker.give(*NUMBERS)
    await worker.asked(WORKERS)
    await worker.idle()
    worker.process.send_signal(number)
    worker.clock.tick(1.0)
    said = await worker.said()
    sent = sorted(message.to for message in worker.sim.inbox)
    # All those under way, all that were queued, and the one that waited for room in the queue.
    assert len(sent) >= WORKERS + QUEUED + 1
    assert sent == NUMBERS[: len(sent)]
    assert len(said) == len(sent)
    assert all(line.startswith("accepted") for line in said)


def test_the_readme_quotes_it() -> None:
    """What is tested here is what is shown there."""
    readme = (HERE.parents[2] / "README.md").read_text()
    assert f"```python\n{(HERE / 'worker.py').read_text()}```" in readme
