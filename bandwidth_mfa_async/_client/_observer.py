"""The protocol of an observer of a call's attempts, such as a journal or a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import MFAError, NotSentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._models import MessagingCodeResponse, VoiceCodeResponse
    from ..errors import Delivery, RequestError


class CallEnded(MFAError):  # noqa: N818 - never leaves this package
    """Raised by an observer to end the call with a result that it knows. Never leaves this package.

    Args:
        result: the call's response, or its error.
    """

    def __init__(self, result: MessagingCodeResponse | VoiceCodeResponse | RequestError) -> None:
        super().__init__(type(result).__name__)
        self.result = result


class AttemptPostponed(NotSentError):  # noqa: N818 - never leaves this package
    """Raised by `before_attempt` to have the attempt made after another `before_wait`. Never leaves this package."""


class AttemptObserver(Protocol):
    """Records the attempts of a call, for example in a bulk run's journal, and can prevent them.

    An error that it raises ends the call: unchanged if no attempt may have been delivered, otherwise as the cause of a
    `DeliveryUnknownError`.

    Attributes:
        maybe_delivered: whether an attempt of an earlier call for the same item may have been delivered.
    """

    maybe_delivered: bool

    @property
    def check_before_write(self) -> Callable[[], None] | None:
        """A function to call when an attempt has a connection; if it raises, the request is not written."""

    @property
    def before_wait(self) -> Callable[[], Awaitable[None]] | None:
        """A function to call before the call waits for a token, a permit or a slot; it holds none of them then."""

    async def before_attempt(self) -> bool:
        """Record the coming attempt; return False, or raise, to prevent it."""
        ...

    def attempt_failed(self, error: RequestError) -> None:
        """Record that an attempt failed, or that the call failed before one; success is the call's result."""

    def may_retry(self) -> bool:
        """Return whether the call, whose attempt failed, may make another one; otherwise it ends with that error."""
        ...

    def interrupted(self, delivery: Delivery) -> None:
        """Record that a cancellation or an unexpected error ended the call; `delivery` is what is known of its text."""
