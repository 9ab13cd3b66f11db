"""Errors of the webhooks package."""

from __future__ import annotations

from typing import Any

from ..errors import MFAError


class WebhookError(MFAError, ValueError):
    """A body is not a delivery receipt. The message names the broken rule and quotes nothing of the body."""


class ReceiptTimeoutError(MFAError, TimeoutError):
    """No receipt arrived in time. The text and its receipt may still arrive.

    Attributes:
        message_id: id of the text.
        timeout: seconds waited.
    """

    def __init__(self, message_id: str, timeout: float) -> None:
        # TimeoutError is an OSError, whose __init__ would take two arguments as errno and strerror.
        Exception.__init__(self, message_id, timeout)
        self.message_id = message_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"no delivery receipt for message {self.message_id} arrived within {self.timeout:g} s"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__ or None
