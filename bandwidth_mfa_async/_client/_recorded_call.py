"""Sends one job item or single code and stores each attempt in the ledger before it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .._item_state import DenyReason, LedgerState, ledger_state_of
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
    """Raised when an attempt may not begin. Never leaves this package.

    Args:
        reason: why.
    """

    def __init__(self, reason: DenyReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Entry(Protocol):
    """An item or a single code as the ledger knows it.

    Attributes:
        lease: the right to send it.
        maybe_delivered: whether the ledger calls it unknown: an attempt of an earlier call may have been delivered.
    """

    lease: Lease
    maybe_delivered: bool

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt may begin."""
        ...

    async def intent(self, *, maybe_delivered: bool) -> DenyReason | None:
        """Store the intent of an attempt; return None, or why the attempt may not begin.

        Args:
            maybe_delivered: whether an earlier attempt of the same call may have been delivered.
        """
        ...

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Schedule the write of an outcome."""


class AttemptRecorder:
    """Stores the intent of each attempt of one call before the attempt is written.

    Args:
        entry: the item or single code.
    """

    __slots__ = ("_entry", "attempts", "in_flight", "maybe_delivered", "recorded", "was_stopped")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.attempts = 0
        # Whether the ledger may hold an intent, an attempt is in flight, and an attempt may have reached the recipient.
        self.recorded = False
        self.in_flight = False
        self.maybe_delivered = entry.maybe_delivered
        # Whether the worker's stop ended the call.
        self.was_stopped = False

    @property
    def check_before_write(self) -> Callable[[], None]:
        """The check of the lease: a worker that was suspended after the ledger's reply must not write."""
        return self._check_lease

    def _check_lease(self) -> None:
        if not self._entry.lease.is_valid:
            raise AttemptDenied(DenyReason.LEASE_EXPIRED)

    async def before_attempt(self) -> bool:
        """Return True once the ledger holds the intent.

        Raises:
            AttemptDenied: the worker stops, or the ledger denies the attempt.
            LedgerError: the ledger cannot be used.
        """
        entry = self._entry
        if entry.is_stopping:
            raise AttemptDenied(DenyReason.STOPPING)
        # From here the ledger may hold the intent, even if the wait for its reply is cancelled.
        self.recorded = True
        reason = await entry.intent(maybe_delivered=self.maybe_delivered)
        if reason is not None:
            self.recorded = False
            raise AttemptDenied(reason)
        self.in_flight = True
        self.attempts += 1
        return True

    def may_retry(self) -> bool:
        """Return whether the worker continues; otherwise the item is left to the next one."""
        self.was_stopped = self._entry.is_stopping
        return not self.was_stopped

    def attempt_failed(self, error: RequestError) -> None:
        """Record a failed attempt. If it sent nothing, the item is pending again."""
        if not self.in_flight:
            return
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        self.return_to_pending()

    def interrupted(self, delivery: Delivery) -> None:
        """Record that a cancellation or an unexpected error ended the call."""
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or delivery is Delivery.UNKNOWN

    def return_to_pending(self) -> None:
        """Make the item pending again, unless it may have been sent."""
        if self.recorded and not self.maybe_delivered:
            self.recorded = False
            self._entry.settle(LedgerState.PENDING, None, None, self.attempts)

    def settle_unknown(self, error: MFAError) -> None:
        """Settle the item as unknown, unless the ledger already says so and this call began no attempt."""
        if self.recorded or self.attempts:
            self._entry.settle(LedgerState.UNKNOWN, None, error, self.attempts)


async def send(executor: CallExecutor, channel: str, request: CodeRequest, lane: Lane, entry: Entry) -> LedgerState:
    """Send one request, with each attempt stored in the ledger first, and settle the outcome.

    Args:
        executor: the client's executor.
        channel: ``"messaging"`` or ``"voice"``.
        request: the request.
        lane: the lane it waits in.
        entry: its entry in the ledger.

    Returns:
        Its state; `LedgerState.PENDING` if it was abandoned before anything was sent.

    Raises:
        AttemptDenied: an attempt may not begin. What is known is settled.
        MFAError: the client or the ledger is closed. What is known is settled.
        CancelledError: the task was cancelled. What is known is settled.
        Exception: a defect. What is known is settled.
    """
    recorder = AttemptRecorder(entry)
    operation: Any = MESSAGING if channel == "messaging" else VOICE
    try:
        response: Response = await executor.call(operation, request, None, lane, recorder)
    except RequestError as error:
        is_ending = entry.is_stopping or not entry.lease.is_valid
        ended_call = error.delivery is Delivery.NOT_SENT or recorder.was_stopped
        if is_ending and ended_call and error.delivery is not Delivery.UNKNOWN:
            # The cause is this worker, not the item: the next worker tries it.
            recorder.return_to_pending()
            return LedgerState.PENDING
        if error.__cause__ is None:
            state = ledger_state_of(error.delivery, error)
            entry.settle(state, None, error, recorder.attempts)
            return state
        recorder.settle_unknown(error)
        cause = error.__cause__
    except BaseException:
        # Cancelled, closed, or the ledger did not reply: unknown if it may have been sent, otherwise pending.
        if recorder.maybe_delivered or recorder.in_flight:
            lost = DeliveryUnknownError("the worker was stopped while the request was in flight", operation.name)
            recorder.settle_unknown(lost)
        else:
            recorder.return_to_pending()
        raise
    else:
        provider_id = response.message_id if isinstance(response, MessagingCodeResponse) else response.call_id
        state = LedgerState.POSSIBLE_DUPLICATE if response.meta.possible_duplicate else LedgerState.ACCEPTED
        entry.settle(state, provider_id, None, recorder.attempts)
        return state
    # What denied or interrupted an attempt after another one that may have been delivered.
    raise cause
