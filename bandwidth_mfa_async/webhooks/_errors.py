"""Errors of the webhooks package."""

from __future__ import annotations

from typing import Any

from ..errors import MFAError


class WebhookError(MFAError, ValueError):
    """A body is not a delivery receipt. The message names the broken rule and quotes nothing of the body."""


class OtherEventError(WebhookError):
    """A body is a well-formed event of another type, such as `message-received`. Answer it with a 2xx.

    Such events arrive if the callback URL is also that of a messaging application. Bandwidth posts an event again for a
    day if the answer is not 2xx (https://dev.bandwidth.com/docs/mfa/webhooks). The receivers of this package answer 204
    and log each type once.

    Attributes:
        type: the event's type.
    """

    def __init__(self, type: str) -> None:  # noqa: A002 - the event's own key
        super().__init__("this event is not a delivery receipt: type must be 'message-delivered' or 'message-failed'")
        self.type = type

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type,), self.__dict__ or None


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
