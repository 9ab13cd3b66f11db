"""A set of tasks that run now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Coroutine, Iterator

_Result = TypeVar("_Result")


class TaskSet:
    """Tasks that have not ended. Unlike in an `asyncio.TaskGroup`, a task that fails does not cancel the others."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def start(
        self, work: Coroutine[Any, Any, _Result], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[_Result]:
        """Start a task and return it.

        Args:
            work: what it runs.
            name: its name in the loop's reports.
            context: its context; None for a copy of the current one.
        """
        task = asyncio.get_running_loop().create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        """Cancel every task."""
        for task in self:
            task.cancel()

    async def wait_idle(self) -> None:
        """Wait until every task has ended, including those that start in the meantime."""
        while running := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(running)
