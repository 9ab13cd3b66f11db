"""The worker service of the guide in a separate process, against the simulator: it reads, sends, drains and ends."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
from typing import IO, TYPE_CHECKING

import pytest

from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.fault_server import environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HERE = pathlib.Path(__file__).parent
TIMEOUT = 30.0
WORKERS = 10
QUEUED = 100
# The request is processed, but the response is delayed until the test advances the simulator's clock.
DELAYED = Fault(delay=1.0)
NUMBERS = [f"+1919555{n:04}" for n in range(200)]


class Worker:
    """The recipe, and a simulator with a manual clock."""

    def __init__(self, sim: Simulator, clock: ManualClock, process: asyncio.subprocess.Process) -> None:
        self.sim, self.clock, self.process = sim, clock, process

    def write(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def received(self, count: int) -> None:
        """Wait until the service has received `count` requests."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.sim.requests) < count:
                await asyncio.sleep(0.005)

    async def idle(self) -> None:
        """Wait until the process sleeps: by then it has read as many numbers as its queue can hold."""
        async with asyncio.timeout(TIMEOUT):
            while not is_sleeping(self.process.pid):
                await asyncio.sleep(0.005)

    async def output(self) -> list[str]:
        """Wait until the process has ended without an error, and return its output."""
        async with asyncio.timeout(TIMEOUT):
            out, err = await self.process.communicate()
        assert (self.process.returncode, err) == (0, b"")
        return out.decode().splitlines()


def is_sleeping(pid: int) -> bool:
    """Return whether all threads of a process sleep; without /proc, assume that they do."""
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rpartition(")")[2].split()[0] == "S" for stat in threads)


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


async def test_it_sends_all_numbers_and_ends_at_the_end_of_its_input(worker: Worker) -> None:
    """Failures are printed without the number."""
    worker.sim.faults.script(Fault(status=400), operation="messaging", to=NUMBERS[7])
    worker.write(*NUMBERS, "no-number")
    assert worker.process.stdin is not None
    worker.process.stdin.close()
    lines = await worker.output()
    assert sum(line.startswith("accepted") for line in lines) == len(NUMBERS) - 1
    assert sum(line.startswith("not accepted") for line in lines) == 2
    assert sorted(message.to for message in worker.sim.inbox) == NUMBERS[:7] + NUMBERS[8:]
    assert not any(number[1:] in line or "no-number" in line for number in NUMBERS for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_loses_no_number_that_was_read(worker: Worker, number: signal.Signals) -> None:
    """With ten sends in flight and a full queue, it sends every number that it has read and reads no more."""
    worker.sim.faults.script(*[DELAYED] * WORKERS, operation="messaging")
    worker.write(*NUMBERS)
    await worker.received(WORKERS)
    await worker.idle()
    worker.process.send_signal(number)
    worker.clock.tick(1.0)
    lines = await worker.output()
    sent = sorted(message.to for message in worker.sim.inbox)
    # Those in flight, those in the queue, and the one that waits for the queue.
    assert len(sent) >= WORKERS + QUEUED + 1
    assert sent == NUMBERS[: len(sent)]
    assert len(lines) == len(sent)
    assert all(line.startswith("accepted") for line in lines)


@pytest.fixture(params=["file", "/dev/null"])
def standard_input(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A regular file with 30 numbers, or a device that is at its end."""
    file = pathlib.Path("/dev/null")
    if request.param == "file":
        file = tmp_path / "numbers"
        file.write_text("".join(f"{number}\n" for number in NUMBERS[:30]))
    with file.open("rb") as lines:
        yield lines


async def test_standard_input_may_be_a_file(standard_input: IO[bytes]) -> None:
    """The event loop cannot wait for a regular file or for /dev/null, so a thread reads it."""
    async with Simulator() as sim:
        process = await processes.start_async(
            sys.executable,
            HERE / "worker.py",
            env=os.environ | environment(sim),
            stdin=standard_input,
            stdout=processes.PIPE,
            stderr=processes.PIPE,
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate()
        finally:
            await processes.end_async(process)
    assert (process.returncode, err) == (0, b"")
    assert sorted(message.to for message in sim.inbox) == ([] if standard_input.name == "/dev/null" else NUMBERS[:30])
    assert len(out.splitlines()) == len(sim.inbox)


def test_the_guide_quotes_the_worker() -> None:
    """The guide shows the file that is tested here."""
    guide = (HERE.parents[2] / ".github" / "guides" / "workers.md").read_text()
    assert f"```python\n{(HERE / 'worker.py').read_text()}```" in guide
