"""Cancels a coroutine at its n-th suspension: at once, or in the very moment in which it would have gone on."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator


class Suspensions:
    """Runs a coroutine as a task, counts how often it waits, and cancels it at one of the waits.

    Args:
        at: the wait to cancel at, from 0; None for none.
        late: cancel when what is waited for has come, instead of when the wait begins.
    """

    def __init__(self, at: int | None = None, *, late: bool = False) -> None:
        self.at = at
        self.late = late
        self.count = 0
        self.struck = False

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Return the task once it is done, whatever it came to."""
        task = asyncio.create_task(self._step(coroutine))
        await asyncio.wait([task])
        return task

    async def _step(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await self._drive(coroutine)

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as end:
                return end.value
            error = None
            if self.count == self.at:
                self._strike(waited_for)
            self.count += 1
            try:
                yield waited_for
            except BaseException as thrown:  # noqa: BLE001 - a cancellation goes where the wait stands
                error = thrown

    def _strike(self, waited_for: Any) -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel(_future: Any = None) -> None:
            self.struck = task.cancel()

        if self.late and waited_for is not None:
            # Ours comes before the task's own: it finds its wait done, and the cancellation on top.
            waited_for.add_done_callback(cancel)
        else:
            cancel()


async def every_suspension(
    make: Callable[[], Coroutine[Any, Any, Any]], *, most: int = 400
) -> AsyncIterator[tuple[Suspensions, asyncio.Task[Any]]]:
    """Give a coroutine's runs, each cancelled at another wait, early and late, until one comes to its end by itself.

    Args:
        make: makes the coroutine anew.
        most: waits of one run; more are a loop that never ends.
    """
    for late in (False, True):
        for at in range(most):
            suspensions = Suspensions(at, late=late)
            task = await suspensions.run(make())
            yield suspensions, task
            if suspensions.count <= at:
                break
        else:
            raise AssertionError("it waits without end")
