"""A request's headers, and its body, which records whether it may have been written."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.connector import Connection

    from ..limits._permit import Turn


Headers: TypeAlias = CIMultiDict[str]


class Body:
    """A request's body, which records whether the attempt was handed a connection (`begun`).

    Until then the service cannot have acted, whatever exception is raised; afterwards it may have. Exception types
    prove nothing, because the same ones are raised before and after.

    Args:
        value: the bytes.
        check_before_write: called immediately before the body is begun; if it raises, nothing is written.
        turn: reserved before the body is begun, notified after it is written; None without a configured rate.

    Attributes:
        denial: what `check_before_write` raised. aiohttp may replace it with an error of its own.
    """

    __slots__ = ("begun", "check_before_write", "denial", "turn", "value")

    def __init__(
        self, value: bytes, check_before_write: Callable[[], None] | None = None, turn: Turn | None = None
    ) -> None:
        self.value: bytes = value
        self.check_before_write: Callable[[], None] | None = check_before_write
        self.turn: Turn | None = turn
        self.begun: bool = False
        self.denial: Exception | None = None

    def begin(self) -> None:
        """Mark the body as begun, unless `check_before_write` raises."""
        if self.check_before_write is not None:
            try:
                self.check_before_write()
            except Exception as error:
                self.denial = error
                raise
        self.begun = True


class ConnectedForWarmUp(Exception):  # noqa: N818 - no error: it ends a request that must not be written
    """Ends a request of `warm_up` once it has a connection."""


warmed_connections: Final[ContextVar[list[Connection] | None]] = ContextVar(
    "bandwidth_mfa_async warmed connections", default=None
)
"""Takes the connection of a request that is made only to open one; our connector then ends that request."""

current_body: Final[ContextVar[Body | None]] = ContextVar("bandwidth_mfa_async body", default=None)
"""The body of a request that aiohttp's documented interface makes; our connector marks it as begun."""
