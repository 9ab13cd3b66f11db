"""The batcher: whatever ends a batch ends the wait of each of its callers."""

from __future__ import annotations

import asyncio
import sys

import pytest

from bandwidth_mfa_async import LedgerError
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async._process import PerLoop
from bandwidth_mfa_async._redis._batcher import Batcher

pytestmark = pytest.mark.filterwarnings("error")


class StrangeError(Exception):
    """An error that cannot be rebuilt from its arguments."""

    def __init__(self, one, two):
        super().__init__(one + two)


def run_of(answer):
    """Return a function that runs a batch with this answer."""

    async def run(operations):
        if isinstance(answer, BaseException):
            raise answer
        return answer(operations) if callable(answer) else answer

    return run


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [1],
        [1, 2, 3],
        None,
        StrangeError("a", "b"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        StopIteration(),
        LedgerError("refused"),
    ],
    ids=repr,
)
async def test_whatever_goes_wrong_in_a_batch_ends_every_future_in_it(answer):
    """Each caller gets an error of its own, and the next batch runs."""
    answers = [answer]

    async def run(operations):
        return await run_of(answers.pop() if answers else list)(operations)

    batcher = Batcher(run, SystemClock())
    both = [batcher.call(1), batcher.call(2)]
    async with asyncio.timeout(5):
        found = await asyncio.gather(*both, return_exceptions=True)
    assert [type(error) for error in found] == [LedgerError] * 2
    assert found[0] is not found[1]
    async with asyncio.timeout(5):
        assert await batcher.call(3) == 3
        await batcher.flush()


async def test_a_deadline_ends_a_call_and_takes_a_queued_operation_out():
    """The first batch does not end; the operation behind it never runs."""
    gate, ran = asyncio.Event(), []

    async def run(operations):
        ran.extend(operations)
        await gate.wait()
        return operations

    clock = SystemClock()
    batcher = Batcher(run, clock)
    first = batcher.call("first")
    while not ran:
        await asyncio.sleep(0)
    with pytest.raises(LedgerError, match="in time"):
        await batcher.call("second", deadline=clock.monotonic() + 0.01)
    gate.set()
    assert await first == "first"
    await batcher.flush()
    assert ran == ["first"]


async def test_a_task_that_is_cancelled_before_it_starts_does_not_block_the_batcher():
    """At the end of `asyncio.run` every task is cancelled, also one that has not run yet."""
    ran = []

    async def run(operations):
        ran.extend(operations)
        return operations

    batcher = Batcher(run, SystemClock())
    batcher.submit("outcome")
    batcher._start()
    batcher._task.cancel()
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await batcher.flush()
    assert ran == ["outcome"]


def test_what_waits_ends_with_its_loop():
    """A loop ends before its first batch leaves: outcomes are kept for the next loop, requests are not."""
    ran = []

    async def run(operations):
        ran.extend(operations)
        return operations

    batchers = PerLoop(lambda: Batcher(run, SystemClock()), Batcher.adopt)

    async def leave():
        batchers.get().submit("outcome")
        batchers.get().call("request")

    async def stay():
        async with asyncio.timeout(5):
            assert await batchers.get().call("next") == "next"

    asyncio.run(leave())
    asyncio.run(stay())
    assert sorted(ran) == ["next", "outcome"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")
@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_that_ends_inside_create_task_does_not_block_the_batcher(fails):
    """With `asyncio.eager_task_factory` a task may be done before `create_task` returns."""

    async def run(operations):
        if fails:
            raise LedgerError("refused")
        return operations

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        batcher = Batcher(run, SystemClock())
        async with asyncio.timeout(5):
            for number in range(3):
                batcher.submit(number)
                await batcher.flush()
            found = await asyncio.gather(batcher.call(7), return_exceptions=True)
            await batcher.flush()
        assert isinstance(found[0], LedgerError) if fails else found == [7]

    asyncio.run(main())
