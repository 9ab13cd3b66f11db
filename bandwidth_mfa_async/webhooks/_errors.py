"""What can go wrong with receipts. No I/O."""

from __future__ import annotations

from typing import Any

from ..errors import MFAError


class WebhookError(MFAError, ValueError):
    """A body is not a delivery receipt; the text names the rule it breaks and holds nothing of the body."""


class ReceiptTimeoutError(MFAError, TimeoutError):
    """No receipt came in time, which says nothing of the text: it may still arrive, and so may its receipt.

    Attributes:
        message_id: of the text that was waited for.
        timeout: how long, in seconds.
    """

    def __init__(self, message_id: str, timeout: float) -> None:
        # TimeoutError is an OSError, which would read two arguments as errno and text.
        Exception.__init__(self, message_id, timeout)
        self.message_id = message_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"no delivery receipt for message {self.message_id} came within {self.timeout:g} s"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__ or None
