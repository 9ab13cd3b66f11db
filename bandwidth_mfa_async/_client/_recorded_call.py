"""One row or single code on its way through the client: the recorder that asks the ledger before each attempt."""

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
    """The ledger said no to an attempt; its one argument is the ledger's letter. Never leaves this package."""


class Entry(Protocol):
    """What is sent, as the ledger knows it."""

    lease: Lease

    @property
    def is_stopping(self) -> bool:
        """Whether no further attempt is to begin."""
        ...

    async def intent(self) -> str:
        """Put an attempt on record; return ``1``, or the letter that says why not."""
        ...

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:
        """Write soon what became of it."""


class AttemptRecorder:
    """The attempts of one call, each on record before it is written.

    Args:
        entry: what is sent.
    """

    __slots__ = ("_entry", "attempts", "in_flight", "maybe_delivered", "recorded")

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.attempts = 0
        # Whether the ledger says sending; whether an attempt is under way; whether one may have reached a person.
        self.recorded = False
        self.in_flight = False
        self.maybe_delivered = False

    @property
    def check_before_write(self) -> Callable[[], None]:
        """The lease's check: a worker that was frozen after it had asked the ledger must not write."""
        return self._entry.lease.check

    async def before_attempt(self) -> None:
        """Return once the ledger has the intent.

        Raises:
            AttemptDenied: it says no: the lease is lost, the job stopped, or the row done by somebody else.
            LedgerError: it cannot be asked.
        """
        entry = self._entry
        if entry.is_stopping:
            raise AttemptDenied("S")
        # From here on it may stand in the ledger, whether or not the answer is waited for.
        self.recorded = True
        letter = await entry.intent()
        if letter != LedgerState.SENDING:
            self.recorded = False
            raise AttemptDenied(letter)
        self.in_flight = True
        self.attempts += 1

    def attempt_failed(self, error: RequestError) -> None:
        """Note a failed attempt: one that certainly sent nothing leaves the row as if it had not begun."""
        if not self.in_flight:
            return
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or error.delivery is Delivery.UNKNOWN
        self.return_to_pending()
        if self._entry.is_stopping and (task := asyncio.current_task()) is not None:
            task.cancel()  # no further attempt

    def cancelled(self, delivery: Delivery) -> None:
        """Note that the call was cancelled."""
        self.in_flight = False
        self.maybe_delivered = self.maybe_delivered or delivery is Delivery.UNKNOWN

    def return_to_pending(self) -> None:
        """Let the row be pending again, unless it may have been sent."""
        if self.recorded and not self.maybe_delivered:
            self.recorded = False
            self._entry.settle(LedgerState.PENDING, None, None, self.attempts)


async def send(executor: CallExecutor, channel: str, request: CodeRequest, lane: Lane, entry: Entry) -> LedgerState:
    """Send one request under the ledger's eyes, and settle what became of it.

    Args:
        executor: the client's engine.
        channel: ``"messaging"`` or ``"voice"``.
        request: what to send.
        lane: where it waits.
        entry: what the ledger knows it as.

    Returns:
        Its state; `State.PENDING` when it was let go of before anything was sent.

    Raises:
        AttemptDenied: the ledger said no, with its letter.
        MFAError: the client or the ledger is closed; what is known was settled.
        CancelledError: the same.
    """
    recorder = AttemptRecorder(entry)
    operation: Any = MESSAGING if channel == "messaging" else VOICE
    try:
        response: Response = await executor.call(operation, request, None, lane, recorder)
    except RequestError as error:
        delivery = Delivery.UNKNOWN if recorder.maybe_delivered else error.delivery
        if delivery is Delivery.NOT_SENT and (entry.is_stopping or not entry.lease.is_valid):
            # Not its fault: whoever works at it next tries it.
            recorder.return_to_pending()
            return LedgerState.PENDING
        state = ledger_state_of(delivery, error)
        entry.settle(state, None, error, recorder.attempts)
        return state
    except BaseException:
        # Cancelled, closed, or no answer from the ledger: what may have been sent is unknown, the rest is pending.
        if recorder.maybe_delivered or recorder.in_flight:
            lost = DeliveryUnknownError("the worker was stopped while the request was under way", operation.name)
            entry.settle(LedgerState.UNKNOWN, None, lost, recorder.attempts)
        else:
            recorder.return_to_pending()
        raise
    provider_id = response.message_id if isinstance(response, MessagingCodeResponse) else response.call_id
    entry.settle(LedgerState.ACCEPTED, provider_id, None, recorder.attempts)
    return LedgerState.ACCEPTED
