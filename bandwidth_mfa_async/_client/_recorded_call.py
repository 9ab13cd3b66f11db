"""A call whose attempts are stored before they are written: a job item, a single code, or a call with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .._item_state import DenyReason, LedgerState, ledger_state_of
from .._models import MessagingCodeResponse
from ..errors import Delivery, DeliveryUnknownError, MFAError, RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._lease import Lease
    from .._models import CodeRequest, VoiceCodeResponse
    from .._validation import Lane
    from .._wire import Operation
    from ._executor import CallExecutor

    Response = TypeVar("Response", MessagingCodeResponse, VoiceCodeResponse)


class AttemptDenied(MFAError):  # noqa: N818 - never leaves this package
    """Raised when an attempt may not begin. Never leaves this package.

    Args:
        reason: why.
    """

    def __init__(self, reason: DenyReason) -> None:
        super().__init__(reason)
        self.reason = reason


class Entry(Protocol):
    """An item, a single code or a key, as the ledger or store knows it.

    Attributes:
        lease: the right to send it.
        maybe_delivered: whether it is unknown: an attempt of an earlier call may have been delivered.
    """

    lease: Lease
    maybe_delivered: bool

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt may begin."""
        ...

    @property
    def before_wait(self) -> Callable[[], Awaitable[None]] | None:
        """See `AttemptObserver.before_wait`."""
        return None

    def check_before_write(self) -> None:
        """Raise if the attempt may not be written, although its intent is stored: the lease may have expired."""
        if not self.lease.is_valid:
            raise AttemptDenied(DenyReason.LEASE_EXPIRED)

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

    __slots__ = ("attempts", "entry", "in_flight", "maybe_delivered", "recorded", "was_stopped")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.attempts = 0
        # Whether the ledger may hold an intent, an attempt is in flight, and an attempt may have reached the recipient.
        self.recorded = False
        self.in_flight = False
        self.maybe_delivered = entry.maybe_delivered
        # Whether the worker's stop ended the call.
        self.was_stopped = False

    @property
    def before_wait(self) -> Callable[[], Awaitable[None]] | None:
        """The entry's own, such as a wait for another call with the same key."""
        return self.entry.before_wait

    @property
    def check_before_write(self) -> Callable[[], None]:
        """The check of the lease: a process that was suspended after the reply to its intent must not write."""
        return self.entry.check_before_write

    async def before_attempt(self) -> bool:
        """Return True once the ledger holds the intent.

        Raises:
            AttemptDenied: the worker stops, or the ledger denies the attempt.
            LedgerError: the ledger cannot be used.
        """
        entry = self.entry
        if entry.is_stopping:
            raise AttemptDenied(DenyReason.STOPPING)
        # From here the ledger may hold the intent, even if the wait for its reply is cancelled.
        self.recorded = True
        reason = await entry.intent(maybe_delivered=self.maybe_delivered)
        if reason is not None:
            self.recorded = False
            raise AttemptDenied(reason)
        self.maybe_delivered = self.maybe_delivered or entry.maybe_delivered
        self.in_flight = True
        self.attempts += 1
        return True

    def may_retry(self) -> bool:
        """Return whether the worker continues; otherwise the item is left to the next one."""
        self.was_stopped = self.entry.is_stopping
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

    def is_abandoned(self, error: RequestError) -> bool:
        """Return whether a call sent nothing because of its process, not its request: the next process tries it."""
        is_ending = self.entry.is_stopping or not self.entry.lease.is_valid
        ended_call = error.delivery is Delivery.NOT_SENT or self.was_stopped
        return is_ending and ended_call and error.delivery is not Delivery.UNKNOWN

    def return_to_pending(self) -> None:
        """Make the item pending again, unless it may have been sent."""
        if self.recorded and not self.maybe_delivered:
            self.recorded = False
            self.entry.settle(LedgerState.PENDING, None, None, self.attempts)

    def settle_unknown(self, error: MFAError) -> None:
        """Settle the item as unknown, unless the ledger already says so and this call began no attempt."""
        if self.recorded or self.attempts:
            self.entry.settle(LedgerState.UNKNOWN, None, error, self.attempts)


async def send_recorded(  # noqa: PLR0913 - the arguments of a call
    executor: CallExecutor,
    operation: Operation[CodeRequest, Response],
    request: CodeRequest,
    timeout: float | None,
    lane: Lane,
    recorder: AttemptRecorder,
) -> Response:
    """Make a call with each attempt stored first, and settle the outcome.

    Args:
        executor: the client's executor.
        operation: the operation.
        request: the request.
        timeout: seconds for the whole call; None for the policy's.
        lane: the lane it waits in.
        recorder: stores the attempts.

    Raises:
        RequestError: the call failed. What is known is settled, or the entry is pending again if it was abandoned
            before anything was sent. If something denied or interrupted an attempt after another one that may have been
            delivered, that is the cause.
        AttemptDenied: an attempt may not begin. What is known is settled.
        MFAError: the client or the ledger is closed. What is known is settled.
        CancelledError: the task was cancelled. What is known is settled.
        Exception: a defect. What is known is settled.
    """
    entry = recorder.entry
    try:
        response = await executor.call(operation, request, timeout, lane, recorder)
    except RequestError as error:
        if recorder.is_abandoned(error):
            recorder.return_to_pending()
        elif error.__cause__ is None:
            entry.settle(ledger_state_of(error.delivery, error), None, error, recorder.attempts)
        else:
            recorder.settle_unknown(error)
        raise
    except BaseException:
        # Cancelled, closed, or the ledger did not reply: unknown if it may have been sent, otherwise pending.
        if recorder.maybe_delivered or recorder.in_flight:
            lost = DeliveryUnknownError("the call was interrupted while the request was in flight", operation.name)
            recorder.settle_unknown(lost)
        else:
            recorder.return_to_pending()
        raise
    state = LedgerState.POSSIBLE_DUPLICATE if response.meta.possible_duplicate else LedgerState.ACCEPTED
    entry.settle(state, _id_of(response), None, recorder.attempts)
    return response


def _id_of(response: MessagingCodeResponse | VoiceCodeResponse) -> str:
    return response.message_id if isinstance(response, MessagingCodeResponse) else response.call_id


async def send(
    executor: CallExecutor, operation: Operation[CodeRequest, Any], request: CodeRequest, lane: Lane, entry: Entry
) -> LedgerState:
    """Send one request of a job or one single code; see `send_recorded`.

    Args:
        executor: the client's executor.
        operation: the operation.
        request: the request.
        lane: the lane it waits in.
        entry: its entry in the ledger.

    Returns:
        Its state; `LedgerState.PENDING` if it was abandoned before anything was sent.

    Raises:
        BaseException: as `send_recorded`, but no `RequestError` unless it is the cause of one.
    """
    recorder = AttemptRecorder(entry)
    try:
        response = await send_recorded(executor, operation, request, None, lane, recorder)
    except RequestError as error:
        if recorder.is_abandoned(error):
            return LedgerState.PENDING
        if error.__cause__ is None:
            return ledger_state_of(error.delivery, error)
        cause = error.__cause__
    else:
        return LedgerState.POSSIBLE_DUPLICATE if response.meta.possible_duplicate else LedgerState.ACCEPTED
    # What denied or interrupted an attempt after another one that may have been delivered.
    raise cause
