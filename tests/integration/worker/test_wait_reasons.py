"""The log at level DEBUG says why a worker does not send."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bandwidth_mfa_async import Limits
from bandwidth_mfa_async._logger import WAITS
from bandwidth_mfa_async.simulator import Fault
from tests.support.secrets import assert_clean


@pytest.fixture
def reasons(caplog):
    """Return a function that returns the distinct reasons so far."""
    caplog.set_level(logging.DEBUG, logger=WAITS.name)
    return lambda: list(dict.fromkeys(record.message for record in caplog.records if record.name == WAITS.name))


async def test_a_chunk_of_a_dead_worker_waits_for_the_end_of_its_lease(make_worker, producer, template, reasons):
    """Whether a poll or a wake-up message finds it."""
    ledger = producer.ledger
    await producer.submit(["+19998887766"], name="launch", template=template)
    lease = ledger.new_lease()
    await ledger.plan("launch", lease, max_queued_chunks=4, requeue_after=60)
    await ledger.claim_chunk("launch", 0, lease)
    worker = await make_worker()
    await worker._runtime._poll_once()
    assert await worker._runtime.send_chunks("launch", 0) == {"chunks": 0, "why": "held"}
    lease = f"lease of {ledger.lease:g} s"
    assert f"job launch has no free chunk; that of a dead worker becomes free when its {lease} ends" in reasons()
    assert f"chunk 0 of job launch waits for the worker that holds it, or for the end of its {lease}" in reasons()
    assert_clean("\n".join(reasons()), "the reasons")


async def test_a_busy_worker_and_a_shutdown_say_what_they_wait_for(make_worker, simulator, template, reasons):
    """A wake-up message for a second chunk is left; at the shutdown the request in flight ends."""
    simulator.faults.chance(Fault(delay=0.3), 1.0, operation="messaging")
    worker = await make_worker(runs=1)
    await worker.submit(["+19195550001", "+19195550002"], name="launch", chunk=1, template=template)
    async with asyncio.timeout(10):
        while not worker._runtime._running:
            await asyncio.sleep(0.001)
    assert await worker._runtime.send_chunks("launch", 1) == {"chunks": 0, "why": "busy"}
    await worker.broker.shutdown()
    assert "a wake-up message of job launch waits: this worker sends 1 chunks" in reasons()
    assert any(reason.startswith("the worker stops; it waits up to 35 s for ") for reason in reasons())


async def test_an_item_that_may_not_be_sent_says_why(make_worker, simulator, template, reasons):
    """Of a job that was stopped in the middle of a chunk."""
    simulator.faults.chance(Fault(delay=0.02), 1.0, operation="messaging")
    worker = await make_worker(runs=1, limits=Limits(adaptive=False, max_in_flight=1))
    job = await worker.submit([f"+1919555{n:04}" for n in range(200)], name="launch", template=template)
    async with asyncio.timeout(10):
        while not simulator.inbox:
            await asyncio.sleep(0.001)
        await job.cancel()
        while "an item of job launch is not sent by this worker: job_stopped" not in reasons():
            await asyncio.sleep(0.001)
    assert len(simulator.inbox) < 200
