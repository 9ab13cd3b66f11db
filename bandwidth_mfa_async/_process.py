"""Values that must differ between processes, and values that belong to one event loop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_generation = 0
# What the parent of a fork made. The child neither uses it nor lets it be finalized: closing an inherited connection
# would end the parent's TLS session and remove its socket from the parent's selector.
_inherited: Final[list[Any]] = []


def _after_fork() -> None:
    global _generation  # noqa: PLW0603 - one number for the process
    _generation += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def fork_generation() -> int:
    """Return a number that differs between a process and the processes that a fork makes of it."""
    return _generation


class PerProcess(Generic[T]):
    """A value that is made at its first use, and made again in a process that a fork made.

    Args:
        make: makes the value.
    """

    __slots__ = ("_generation", "_make", "_value")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._generation = -1
        self._value: T | None = None

    def get(self) -> T:
        """Return this process's value."""
        if self._generation != _generation or self._value is None:
            if self._value is not None:
                _inherited.append(self._value)
            self._value = self._make()
            self._generation = _generation
        return self._value


class PerLoop(Generic[T]):
    """A value that is made at its first use in each event loop of each process.

    Args:
        make: makes the value of the running loop.
        adopt: called with the new value and the value of a loop of this process that has been closed.
    """

    __slots__ = ("_adopt", "_make", "_values")

    def __init__(self, make: Callable[[], T], adopt: Callable[[T, T], None] | None = None) -> None:
        self._make = make
        self._adopt = adopt
        self._values: PerProcess[dict[asyncio.AbstractEventLoop, T]] = PerProcess(dict)

    def get(self) -> T:
        """Return the value of the running loop."""
        loop = asyncio.get_running_loop()
        values = self._values.get()
        value = values.get(loop)
        if value is None:
            value = values[loop] = self._make()
            for closed in [other for other in values if other.is_closed()]:
                old = values.pop(closed)
                if self._adopt is not None:
                    self._adopt(value, old)
        return value
