"""The tasks that work through the items of a bulk run or a chunk."""

import asyncio

import pytest

from bandwidth_mfa_async._items._task_pool import TaskPool
from bandwidth_mfa_async._tasks import TaskSet


class Run:
    """The owner of a pool, whose items wait until they are released."""

    def __init__(self, concurrency=2):
        self.begun, self.done, self.abandoned, self.cancelled = [], [], [], []
        self.in_flight = set()
        self.gates = {}
        self.pool = TaskPool(
            concurrency,
            self._work,
            is_in_flight=self.in_flight.__contains__,
            abandon=self.abandoned.append,
            on_cancelled=self._on_cancelled,
        )
        self.times_cancelled = 0

    def _on_cancelled(self):
        self.times_cancelled += 1
        self.pool.stop()

    async def _work(self, item):
        self.begun.append(item)
        self.gates[item] = asyncio.Event()
        try:
            await self.gates[item].wait()
        except asyncio.CancelledError:
            self.cancelled.append(item)
        else:
            self.done.append(item)

    async def settle(self):
        for _ in range(5):
            await asyncio.sleep(0)

    async def release(self, item):
        self.gates[item].set()
        await self.settle()


async def test_items_are_worked_on_in_order_and_within_the_bound():
    run = Run(concurrency=2)
    for item in range(4):
        run.pool.submit(item)
    await run.settle()
    assert (run.begun, run.pool.active) == ([0, 1], 2)
    await run.release(1)
    assert run.begun == [0, 1, 2]
    for item in (0, 2, 3):
        await run.release(item)
    assert run.done == [1, 0, 2, 3]
    run.pool.submit(4)  # a parked task takes it
    await run.settle()
    assert run.begun[-1] == 4
    run.pool.close()
    await run.release(4)
    await run.pool.wait_idle()
    assert not run.abandoned


async def test_a_closed_pool_works_through_its_queue():
    run = Run(concurrency=1)
    run.pool.submit(0)
    run.pool.submit(1)
    run.pool.close()
    await run.settle()
    await run.release(0)
    await run.release(1)
    await run.pool.wait_idle()
    assert run.done == [0, 1]


async def test_stopping_leaves_what_is_in_flight():
    run = Run(concurrency=2)
    for item in range(4):
        run.pool.submit(item)
    await run.settle()
    run.in_flight.add(0)
    run.pool.stop()
    run.pool.submit(4)
    await run.settle()
    assert (run.abandoned, run.cancelled, run.pool.active) == ([2, 3, 4], [1], 1)
    await run.release(0)
    await run.pool.wait_idle()
    assert run.done == [0]


async def test_cancelling_ends_what_is_in_flight():
    run = Run()
    run.pool.submit(0)
    await run.settle()
    run.in_flight.add(0)
    run.pool.cancel()
    await run.pool.wait_idle()
    assert run.cancelled == [0]


@pytest.mark.parametrize("items", [1, 0])
async def test_the_owner_learns_of_a_cancellation_by_other_code(items):
    """Such as the end of `asyncio.run`, which cancels all tasks, whether they work or are parked."""
    run = Run()
    run.pool.submit(0)
    await run.settle()
    if not items:
        await run.release(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await run.settle()
    if items:  # `work` handles it, and decides
        assert (run.cancelled, run.times_cancelled) == ([0], 0)
        run.pool.stop()
    else:
        assert run.times_cancelled == 1
    await run.pool.wait_idle()
    run.pool.submit(1)
    assert run.abandoned == [1]


async def test_a_set_waits_for_tasks_that_start_during_the_wait():
    tasks, ended = TaskSet(), []

    async def second():
        await asyncio.sleep(0)
        ended.append("second")

    async def first():
        tasks.start(second())
        ended.append("first")

    tasks.start(first(), name="the first")
    assert [task.get_name() for task in tasks] == ["the first"]
    await tasks.wait_idle()
    assert ended == ["first", "second"]
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_failed_task_does_not_cancel_the_others():
    tasks = TaskSet()

    async def fail():
        raise ValueError("failed")

    async def succeed():
        await asyncio.sleep(0)
        return 1

    failed, succeeded = tasks.start(fail()), tasks.start(succeed())
    await tasks.wait_idle()
    assert isinstance(failed.exception(), ValueError)
    assert succeeded.result() == 1
    endless = tasks.start(asyncio.Event().wait())
    tasks.cancel()
    await tasks.wait_idle()
    assert endless.cancelled()
