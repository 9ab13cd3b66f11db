"""The recipes of the guide to task queues, each with its engine in an environment of its own: one text per key.

The engines need versions of redis-py that exclude each other. `BW_TEST_ENGINES` names a folder with one virtual
environment for each, ``arq``, ``saq``, ``faststream`` and ``celery``; without it, the tests are skipped.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import time
from typing import TYPE_CHECKING

import pytest
from attrs import frozen

from bandwidth_mfa_async import RedisStore
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = pathlib.Path(__file__).parent
NUMBER, ATTEMPT = "+19195551234", "42"
TIMEOUT = 150.0
# The request is processed, but the response is delayed until the test advances the simulator's clock.
DELAYED = Fault(delay=1.0)


@frozen
class Engine:
    """How to use an engine.

    Attributes:
        worker: the arguments that start a worker.
        submit: a program that queues one task; if the engine has results, it prints the task's, or its error's class.
        ready: a key in the queue's Redis that a started worker sets, if tasks must not be queued earlier: SAQ's first
            sweep may abort a task that has just begun, and FastStream's worker makes the group that reads the stream.
    """

    worker: list[str]
    submit: str
    ready: str = ""


ENGINES = {
    "arq": Engine(
        ["-m", "arq", "with_arq.WorkerSettings"],
        """
import asyncio, sys, with_arq
from arq import create_pool
async def main():
    pool = await create_pool(with_arq.WorkerSettings.redis_settings)
    job = await pool.enqueue_job("send_code", sys.argv[1], sys.argv[2], float(sys.argv[3]))
    try:
        print(await job.result(timeout=140, poll_delay=0.05))
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
""",
    ),
    "saq": Engine(
        ["-m", "saq", "with_saq.settings"],
        """
import asyncio, sys, with_saq
async def main():
    await with_saq.queue.connect()
    number, attempt_id, not_after = sys.argv[1:]
    job = await with_saq.queue.enqueue(
        "send_code", number=number, attempt_id=attempt_id, not_after=float(not_after), timeout=20, retries=5
    )
    await job.refresh(140)
    print(job.result or job.error.strip().splitlines()[-1].partition(":")[0].rpartition(".")[2])
    await with_saq.queue.disconnect()
asyncio.run(main())
""",
        "saq:default:sweep",
    ),
    "faststream": Engine(
        ["-m", "faststream", "run", "with_faststream:app"],
        """
import asyncio, sys, with_faststream
async def main():
    number, attempt_id, not_after = sys.argv[1:]
    async with with_faststream.broker as broker:
        value = {"number": number, "attempt_id": attempt_id, "not_after": float(not_after)}
        await broker.publish(value, stream="codes")
asyncio.run(main())
""",
        "codes",
    ),
    "celery": Engine(
        ["-m", "celery", "-A", "with_celery", "worker", "--concurrency", "1", "--loglevel", "INFO"],
        """
import sys, with_celery
task = with_celery.send_code.delay(sys.argv[1], sys.argv[2], float(sys.argv[3]))
try:
    print(task.get(timeout=140))
except Exception as error:
    print(type(error).__name__)
""",
    ),
}


class Queue:
    """An engine with its queue and its store, each on a Redis of its own, and the simulator."""

    def __init__(
        self,
        name: str,
        python: pathlib.Path,
        sim: Simulator,
        clock: ManualClock,
        servers: list[RedisServer],
        log: pathlib.Path,
    ) -> None:
        self.engine, self._python, self.sim, self.clock, self.log = ENGINES[name], python, sim, clock, log
        self.queue, self.store = servers
        self.has_results = name != "faststream"
        self._environ = os.environ | sim.environ() | {"QUEUE_URL": self.queue.url, "BW_STORE_URL": self.store.url}
        self._started: list[asyncio.subprocess.Process] = []

    async def _start(self, *arguments: str, output: object) -> asyncio.subprocess.Process:
        process = await processes.start_async(
            self._python, *arguments, cwd=HERE, env=self._environ, stdout=output, stderr=processes.STDOUT
        )
        self._started.append(process)
        return process

    async def start_worker(self) -> asyncio.subprocess.Process:
        with self.log.open("ab") as output:
            process = await self._start(*self.engine.worker, output=output)
        async with asyncio.timeout(TIMEOUT):
            while self.engine.ready and not self._exists(self.engine.ready):
                await asyncio.sleep(0.01)
        return process

    def _exists(self, key: str) -> bool:
        with self.queue.client() as client:
            return bool(client.exists(key))

    async def submit(self) -> asyncio.subprocess.Process:
        latest = str(time.time() + 600)
        return await self._start("-c", self.engine.submit, NUMBER, ATTEMPT, latest, output=asyncio.subprocess.PIPE)

    async def result(self, submitted: asyncio.subprocess.Process) -> str:
        """Return the result of a task, or an empty text if the engine has none; wait until its queue is empty then."""
        async with asyncio.timeout(TIMEOUT):
            out, _ = await submitted.communicate()
            assert submitted.returncode == 0, out.decode()
            while not self.has_results and not self._is_drained():
                await asyncio.sleep(0.05)
        return out.decode().strip()

    def _is_drained(self) -> bool:
        with self.queue.client() as client:
            groups = client.xinfo_groups("codes") if client.exists("codes") else []
        return bool(groups) and groups[0]["pending"] == 0 and groups[0]["lag"] == 0

    async def is_accepted_key(self) -> bool:
        store = RedisStore(self.store.url)
        counts = await store.counts(deadline=store.clock.monotonic() + 10)
        await store.aclose()
        return sum(number for kind in counts.values() for state, number in kind.items() if state in "ab") == 1

    async def received(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while len(self.sim.requests) < count:
                await asyncio.sleep(0.01)

    async def aclose(self) -> None:
        for process in self._started:
            await processes.end_async(process)


@pytest.fixture(params=ENGINES)
async def queue(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[Queue]:
    folder = os.environ.get("BW_TEST_ENGINES")
    python = pathlib.Path(folder or "/nowhere") / request.param / "bin" / "python"
    if not python.exists():
        pytest.skip("BW_TEST_ENGINES names no folder with an environment of this engine")
    folders = [tmp_path / "queue", tmp_path / "store"]
    for each in folders:
        each.mkdir()
    servers = [RedisServer(each) for each in folders]
    clock = ManualClock()
    async with Simulator(clock=clock) as sim:
        made = Queue(request.param, python, sim, clock, servers, tmp_path / "worker.log")
        yield made
        await made.aclose()
    for server in servers:
        server.kill()
    assert NUMBER not in made.log.read_text(), "a log shows the number"


@pytest.mark.timeout(200)
async def test_a_worker_that_dies_after_the_text_and_before_the_acknowledgement_texts_once(queue: Queue) -> None:
    queue.sim.faults.script(DELAYED)
    worker = await queue.start_worker()
    submitted = await queue.submit()
    await queue.received(1)
    with queue.queue.client() as client:
        # Every write, so that it cannot acknowledge: what it writes is lost with its connection.
        client.client_pause(600_000, all=False)
    queue.clock.tick(1.0)
    async with asyncio.timeout(TIMEOUT):
        while not await queue.is_accepted_key():
            await asyncio.sleep(0.01)
    os.killpg(worker.pid, signal.SIGKILL)
    await worker.wait()
    with queue.queue.client() as client:
        client.client_unpause()
    await queue.start_worker()
    result = await queue.result(submitted)
    assert [message.message_id for message in queue.sim.inbox] == [result or queue.sim.inbox[0].message_id]


@pytest.mark.parametrize(
    ("fault", "error", "texts"),
    [(Fault(drop="after_read", accepted=True), "DisconnectedError", 1), (Fault(status=400), "BadRequestError", 0)],
    ids=["unknown", "rejected"],
)
async def test_a_text_that_is_unknown_or_rejected_is_not_retried(
    queue: Queue, fault: Fault, error: str, texts: int
) -> None:
    queue.sim.faults.script(fault)
    await queue.start_worker()
    result = await queue.result(await queue.submit())
    assert result == (error if queue.has_results else "")
    assert len(queue.sim.inbox) == texts
