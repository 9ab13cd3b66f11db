"""Sends one job item or single code through the client, and records each attempt in the ledger before it is made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from .._item_state import LedgerState, ledger_state_of
from .._models import MessagingCodeResponse
from .._wire import MESSAGING, VOICE
from ..errors import Delivery, DeliveryUnknownError, MFAError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._lease import Lease
    from .._models import CodeRequest, VoiceCodeResponse
    from .._validation import Lane
    from ._executor import CallExecutor

    Response = MessagingCodeResponse | VoiceCodeResponse


class AttemptDenied(MFAError):  # noqa: N818 - never leaves this package
    """The ledger denied an attempt; the argument is the ledger's letter. Never leaves this package."""


class Entry(Protocol):
    """An entry of the ledger: the item that is sent."""

    lease: Lease

    @property
    def stopping(self) -> bool:
        """Whether no further attempt may begin."""
        ...

    async def intent(self) -> str:
        """Record the intent to make an attempt; return ``1``, or the letter of the reason for a denial."""
        ...

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Record the outcome; it is written with the next batch."""


class AttemptRecorder:
    """Records the attempts of one call, each before it is written.

    Args:
        entry: the item that is sent.
    """

    __slots__ = ("_entry", "attempts", "in_flight", "maybe_delivered", "recorded")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.attempts = 0
        # Whether the ledger may have the item as being sent.
        self.recorded = False
        self.in_flight = False
        # Whether an attempt may have reached a person.
        self.maybe_delivered = False

    @property
    def check_before_write(self) -> Callable[[], None]:
        """The lease's check: a worker that was suspended after it recorded the intent must not write."""
        return self._entry.lease.check

    async def before_attempt(self) -> None:
        """Record the intent in the ledger.

        Raises:
            AttemptDenied: the lease is lost, the job is stopped, or another worker has settled the item.
            LedgerError: the ledger cannot be used.
        """
        entry = self._entry
        if entry.is_stopping:
            raise AttemptDenied("S")
        # From here on the ledger may have the intent, even if this wait is cancelled.
        self.recorded = True
        letter = await entry.intent()
        if letter != LedgerState.SENDING:
            self.recorded = False
            raise AttemptDenied(letter)
        self.in_flight = True
        self.attempts += 1

    def attempt_failed(self, error: RequestError) -> None:
        """Record a failed attempt; if it certainly sent nothing, the item is pending again."""
        if not self.in_flight:
            return
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        self.return_to_pending()
        if self._entry.is_stopping and (task := asyncio.current_task()) is not None:
            task.cancel()  # no further attempt

    def cancelled(self, delivery: Delivery) -> None:
        """Record that the call was cancelled."""
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or delivery is Delivery.UNKNOWN

    def reset_to_pending(self) -> None:
        """Set the item to pending again, unless it may have been sent."""
        if self.recorded and not self.maybe_delivered:
            self.recorded = False
            self._entry.settle(LedgerState.PENDING, None, None, self.attempts)


async def send(executor: CallExecutor, channel: str, request: CodeRequest, lane: Lane, entry: Entry) -> LedgerState:
    """Send one request, record its attempts in the ledger, and settle its outcome.

    Args:
        executor: the client's executor.
        channel: ``"messaging"`` or ``"voice"``.
        request: the request.
        lane: the lane in which it waits.
        entry: the ledger's entry for the request.

    Returns:
        Its state; `LedgerState.PENDING` if it was abandoned before anything was sent.

    Raises:
        AttemptDenied: the ledger denied an attempt; the argument is its letter.
        MFAError: the client or the ledger is closed; what is known is settled.
        CancelledError: the call was cancelled; what is known is settled.
    """
    recorder = AttemptRecorder(entry)
    operation: Any = MESSAGING if channel == "messaging" else VOICE
    try:
        response: Response = await executor.call(operation, request, None, lane, recorder)
    except RequestError as error:
        delivery = Delivery.UNKNOWN if recorder.maybe_delivered else error.delivery
        if delivery is Delivery.NOT_SENT and (entry.stopping or not entry.lease.holds):
            # The worker stopped, not the item: the next worker that claims it tries again.
            recorder.reset_to_pending()
            return LedgerState.PENDING
        state = ledger_state_of(delivery, error)
        entry.settle(state, None, error, recorder.attempts)
        return state
    except BaseException:
        # Cancelled, closed, or the ledger failed: what may have been sent is unknown, the rest is pending.
        if recorder.maybe_delivered or recorder.in_flight:
            lost = DeliveryUnknownError("the worker was stopped while the request was in flight", operation.name)
            entry.settle(LedgerState.UNKNOWN, None, lost, recorder.attempts)
        else:
            recorder.return_to_pending()
        raise
    provider_id = response.message_id if isinstance(response, MessagingCodeResponse) else response.call_id
    entry.settle(LedgerState.ACCEPTED, provider_id, None, recorder.attempts)
    return LedgerState.ACCEPTED
