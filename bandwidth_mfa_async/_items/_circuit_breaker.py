"""The circuit breaker that ends a bulk run or a job whose account is rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._item_state import is_account_error
from ..errors import APIStatusError

if TYPE_CHECKING:
    from ..errors import MFAError

MAX_CONSECUTIVE_ACCOUNT_ERRORS: Final = 10


class CircuitBreaker:
    """Opens after `MAX_CONSECUTIVE_ACCOUNT_ERRORS` items in a row that failed because of the account, and stays open.

    A bulk run has one, and so has each job in each worker process, for all of its chunks.

    Attributes:
        opened_by: the class of the error that opened it; empty while it is closed.
    """

    __slots__ = ("_consecutive", "_name", "opened_by")

    def __init__(self) -> None:
        self.opened_by = ""
        self._consecutive = 0
        self._name = ""

    def record(self, error: MFAError | None) -> bool:
        """Record an item's outcome; return whether it is one account error too many.

        Args:
            error: why the item was not accepted; None if it was.
        """
        if not is_account_error(error):
            self._consecutive = 0
            return False
        self._consecutive += 1
        # While rejected credentials are paused, calls fail with a class that does not say so.
        if not self._name or isinstance(error, APIStatusError):
            self._name = type(error).__name__
        if self._consecutive < MAX_CONSECUTIVE_ACCOUNT_ERRORS:
            return False
        self.opened_by = self.opened_by or self._name
        return True
