"""The protocol of an observer of a call's attempts, such as a journal or a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import Delivery, RequestError


class AttemptObserver(Protocol):
    """Who keeps a record of a call's attempts, such as a bulk run's journal."""

    @property
    def check_before_write(self) -> Callable[[], None] | None:
        """Called when an attempt has its connection; what it raises keeps the request from being written."""

    async def before_attempt(self) -> None:
        """Return once the coming attempt is on record; raising stops it before it is written."""

    def attempt_failed(self, error: RequestError) -> None:
        """Note how the attempt that was begun ended; its success is the call's."""

    def cancelled(self, delivery: Delivery) -> None:
        """Note that the call was cancelled, and what is known of its message."""
