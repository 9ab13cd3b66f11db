"""A call with an idempotency key: sent once by all processes that share a store, and replayed by the others."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from .._clock import sleep_until, wait_until
from .._config import Resend
from .._item_state import DELIVERY_OF_LEDGER_STATE, LedgerState
from .._keys import MAX_KEY_LENGTH, key_digest, key_secret, request_digest, store_key
from .._lease import Lease
from .._models import MessagingCodeResponse, ResponseMeta, VoiceCodeResponse, attach_meta
from .._wire import MESSAGING
from ..errors import (
    DeadlineExceededError,
    Delivery,
    DeliveryUnknownError,
    InvalidRequestError,
    KeyInFlightError,
    NotSentError,
    RequestError,
    StoreError,
)
from ..stores._protocol import KeyStatus
from ._not_after import NotAfter
from ._observer import AttemptPostponed, CallEnded
from ._recorded_call import AttemptDenied, AttemptRecorder, Entry, send_recorded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._clock import TimerHandle
    from .._item_state import DenyReason
    from .._models import CodeRequest
    from .._validation import Lane
    from .._wire import Operation
    from ..errors import MFAError
    from ..stores import KeyRecord, Store
    from ._executor import CallExecutor
    from ._recorded_call import Response

_Reply = TypeVar("_Reply")

_LOG = logging.getLogger("bandwidth_mfa_async.stores")
_MIN_POLL_INTERVAL: Final = 0.01
_MAX_POLL_INTERVAL: Final = 0.25
_WITHDRAWAL: Final = 0.5
"""Seconds of a timeout, at most a tenth of it, that are kept for withdrawing a claim that has begun no attempt."""
_SETTLE_WAIT: Final = 2.0
"""Seconds that a call whose outcome is known waits for the store; then the write goes on without it."""
_WAITING: Final = frozenset({KeyStatus.HELD, KeyStatus.SENDING})


class KeyedSend(Entry):
    """One call with a key: claims it, stores each intent before the attempt is written, and stores the outcome.

    Args:
        executor: the client's executor.
        name: the `key_digest` of the key in hexadecimal.
        secret: the `key_secret` of the key.
        operation: the operation.
        request: the request.
        lane: the lane in which it waits.
        timeout: seconds for the call.
        not_after: when the code is no longer wanted.

    Raises:
        ConfigurationError: the client has no store.
    """

    def __init__(  # noqa: PLR0913 - what a call consists of
        self,
        executor: CallExecutor,
        name: str,
        secret: str,
        operation: Operation[CodeRequest, Any],
        request: CodeRequest,
        lane: Lane,
        timeout: float,
        not_after: NotAfter,
    ) -> None:
        self._state = executor.state
        self._clock = executor.state.clock
        self._store: Store = executor.state.store_use.require()
        account_id = executor.state.account_id
        self._key = store_key(account_id, name)
        self._digest = request_digest(secret, account_id, operation.channel or "", request)
        self._operation = operation
        self._timeout = timeout
        self._ends = None if lane == "bulk" else self._clock.monotonic() + timeout
        self._not_after = not_after
        self._resends_unknown = executor.policy.resend is Resend.AT_LEAST_ONCE
        self.lease: Lease = Lease(self._store.lease, self._clock)
        self.maybe_delivered = False
        # Whether the store may know this call as the holder, and whether it has begun an attempt or settled.
        self._holds = False
        self._write: asyncio.Task[KeyRecord | None] | None = None
        self._renewal: TimerHandle | None = None
        self._is_open = False
        # Seconds until the lease of another call ends, while its attempt is in flight as far as this call knows.
        self._in_flight_elsewhere: float | None = None

    @property
    def is_stopping(self) -> bool:
        """False: the client ends calls by itself."""
        return False

    @property
    def before_wait(self) -> Callable[[], Awaitable[None]] | None:
        """Claim the key before a wait for a permit; wait while another call holds it."""
        return None if self._holds else self._acquire

    @property
    def _deadline(self) -> float:
        # In the bulk lane a call's time begins with its first permit.
        return self._clock.monotonic() + self._timeout if self._ends is None else self._ends

    def check_before_write(self) -> None:
        """Raise if the lease may have expired, or the code is no longer wanted."""
        super().check_before_write()
        self._not_after.check()

    async def intent(self, *, maybe_delivered: bool) -> DenyReason | None:
        """Store the intent of an attempt, and claim the key before if it is not held."""
        await self._written()
        if self._holds:
            self._not_after.check()
            begun = await self._ask(
                self._store.begin(
                    self._key,
                    self.lease,
                    resends_unknown=self._resends_unknown or maybe_delivered,
                    maybe_delivered=maybe_delivered,
                    deadline=self._deadline,
                )
            )
            if begun:
                self._is_open = True
                return None
            # Withdrawn by a call that could not wait longer, or the lease has expired.
            self._let_lease_end()
        record = await (self._look() if self._not_after.is_over else self._claim(begins=True))
        if record.status is not KeyStatus.CLAIMED:
            raise AttemptPostponed("another call holds the key")
        return None

    async def _acquire(self) -> None:
        """Claim the key without an intent; wait while another call holds it."""
        if self._holds:
            return
        record = await (self._look() if self._not_after.is_over else self._claim(begins=False))
        while record.status in _WAITING:
            record = await self._wait(record)
            is_unknown = record.delivery is Delivery.UNKNOWN and not self._resends_unknown
            if is_unknown or record.delivery in {Delivery.ACCEPTED, Delivery.REJECTED}:
                raise CallEnded(self._result(record))
            self._not_after.check()
            record = await self._claim(begins=False)

    async def _look(self) -> KeyRecord:
        """Return what is known of the key, for a call that may not send any more."""
        record = await self._ask(self._store.get(self._key, self._digest, deadline=self._deadline))
        if record.status is KeyStatus.SETTLED and record.delivery in {Delivery.ACCEPTED, Delivery.UNKNOWN}:
            raise CallEnded(self._result(record))
        if record.status not in _WAITING:
            self._not_after.check()
        return record

    async def _claim(self, *, begins: bool) -> KeyRecord:
        """Claim the key; return its record if it is claimed, or held by another call. End the call otherwise."""
        while True:
            # From here the store may know this call as the holder, even if the wait for its reply is cancelled.
            self._holds = self._is_open = True
            record = await self._ask(
                self._store.claim(
                    self._key,
                    self._digest,
                    self.lease,
                    begins=begins,
                    resends_unknown=self._resends_unknown,
                    deadline=self._deadline,
                )
            )
            if record.status is KeyStatus.CLAIMED:
                self.maybe_delivered = self.maybe_delivered or record.maybe_delivered
                self._schedule_renewal()
                return record
            self._holds = self._is_open = False
            if record.status in _WAITING:
                return record
            if record.status is KeyStatus.LOST:
                self._let_lease_end()
                continue
            if record.status is KeyStatus.OTHER_REQUEST:
                raise InvalidRequestError(
                    "idempotency_key", "belongs to another request; use a new key for each request for a code"
                )
            raise CallEnded(self._result(record))

    async def _wait(self, record: KeyRecord) -> KeyRecord:
        """Wait until no other call holds the key, and return what it is then.

        Raises:
            CallEnded: the time is over.
        """
        clock, deadline, pause = self._clock, self._deadline, _MIN_POLL_INTERVAL
        withdraw_at = deadline - min(_WITHDRAWAL, self._timeout / 10)
        while record.status in _WAITING:
            now = clock.monotonic()
            self._in_flight_elsewhere = record.lease_left if record.status is KeyStatus.SENDING else None
            if now >= withdraw_at:
                return await self._withdraw(deadline)
            await sleep_until(clock, min(now + min(pause, record.lease_left + _MIN_POLL_INTERVAL), withdraw_at))
            pause = min(1.5 * pause, _MAX_POLL_INTERVAL)
            record = await self._ask(self._store.get(self._key, self._digest, deadline=deadline))
        self._in_flight_elsewhere = None
        return record

    async def _withdraw(self, deadline: float) -> KeyRecord:
        error = DeadlineExceededError(
            "the call's time ran out while another call with its key waited to send; nothing was sent",
            self._operation.name,
            attempts=0,
        )
        record = await self._ask(self._store.withdraw(self._key, self._digest, error, deadline=deadline))
        if record.status in _WAITING:  # it sends; or it holds a key that is unknown, which cannot be withdrawn
            raise CallEnded(_in_flight(record.lease_left))
        if record.status is KeyStatus.SETTLED and record.delivery is not Delivery.NOT_SENT:
            return record
        raise CallEnded(error)

    def _result(self, record: KeyRecord) -> MessagingCodeResponse | VoiceCodeResponse | RequestError:
        """Return the result of a settled key."""
        if record.delivery is Delivery.ACCEPTED and record.provider_id is not None:
            kind = MessagingCodeResponse if self._operation is MESSAGING else VoiceCodeResponse
            return kind(record.provider_id, ResponseMeta(possible_duplicate=record.possible_duplicate))
        if isinstance(record.error, RequestError):
            return record.error
        return DeliveryUnknownError("an earlier call with this key may have sent the text", self._operation.name)

    async def _ask(self, question: Awaitable[_Reply]) -> _Reply:
        try:
            return await question
        except StoreError as error:
            failure = error
        # Outside the handler, so that its frames do not stay. Not a failed attempt: it must not be tried again.
        lease_left = self._in_flight_elsewhere
        raise CallEnded(failure if lease_left is None else _in_flight(lease_left))

    # The lease.

    def _let_lease_end(self) -> None:
        self._stop_renewal()
        self._holds = self._is_open = False
        self.lease = Lease(self._store.lease, self._clock)

    def _schedule_renewal(self) -> None:
        self._stop_renewal()
        when = self._clock.monotonic() + self.lease.seconds / 4
        self._renewal = self._clock.call_at(when, lambda: self._state.store_use.tasks.start(self._renew(self.lease)))

    def _stop_renewal(self) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    def _is_renewing(self, lease: Lease) -> bool:
        return lease is self.lease and self._renewal is not None

    async def _renew(self, lease: Lease) -> None:
        if not self._is_renewing(lease):
            return
        try:
            kept = await self._store.renew(self._key, lease, deadline=self._clock.monotonic() + lease.seconds / 2)
        except StoreError:
            kept = True  # the lease ends by this process's own clocks unless a later renewal succeeds
        if self._is_renewing(lease):
            lease.lost = not kept
            if kept:
                self._schedule_renewal()

    # Outcomes.

    def settle(self, state: LedgerState, provider_id: str | None, error: MFAError | None, attempts: int) -> None:  # noqa: ARG002 - the record of a key holds no count
        """Schedule the write of an outcome; pending if the attempt sent nothing and the call goes on."""
        if not self._holds:
            return
        is_pending = state is LedgerState.PENDING
        if is_pending and not self._is_open:
            return
        self._is_open = not is_pending and self._is_open
        write = self._settle(self.lease, None if is_pending else state, provider_id, error, self._write)
        self._write = self._state.store_use.tasks.start(write)
        if not is_pending:
            self._stop_renewal()
            self._holds = False

    async def _settle(
        self,
        lease: Lease,
        state: LedgerState | None,
        provider_id: str | None,
        error: MFAError | None,
        earlier: asyncio.Task[KeyRecord | None] | None,
    ) -> KeyRecord | None:
        if earlier is not None:
            await asyncio.wait([earlier])
        delivery = None if state is None else DELIVERY_OF_LEDGER_STATE[state]
        try:
            return await self._store.settle(
                self._key,
                self._digest,
                lease,
                delivery,
                provider_id=provider_id,
                error=error,
                possible_duplicate=state is LedgerState.POSSIBLE_DUPLICATE,
                deadline=self._clock.monotonic() + lease.seconds,
            )
        except StoreError as failure:
            if state is not None:
                _LOG.warning(
                    "the outcome of a call with an idempotency key could not be stored, so its key becomes unknown "
                    "when the lease ends: %s",
                    failure,
                )
            return None

    async def _written(self, *, seconds: float | None = None) -> KeyRecord | None:
        """Wait until the store holds the last outcome, or for so many seconds; return what the key is then."""
        write = self._write
        if write is None:
            return None
        until = self._deadline if seconds is None else min(self._deadline, self._clock.monotonic() + seconds)
        if not await wait_until(self._clock, until, write) or write.cancelled() or write.exception() is not None:
            return None
        return write.result()

    def end(self) -> None:
        """Release the key if the call ends without an outcome of its own: nothing was sent, as far as it knows."""
        self._stop_renewal()
        if self._holds:
            state = LedgerState.UNKNOWN if self.maybe_delivered else LedgerState.NOT_SENT
            error = None if self.maybe_delivered else NotSentError("the call was ended before anything was sent")
            self.settle(state, None, error, 0)

    async def finish(self) -> bool:
        """Wait a moment for the write of the outcome, which goes on by itself; return whether it is a duplicate."""
        record = await self._written(seconds=_SETTLE_WAIT)
        return record is not None and bool(record.possible_duplicate)


def _in_flight(lease_left: float) -> KeyInFlightError:
    return KeyInFlightError(
        "another call with this idempotency key is in flight; call again with the same key to learn its outcome",
        attempts=0,
        retry_after=lease_left,
    )


async def send_with_options(  # noqa: PLR0913 - the arguments of a call
    executor: CallExecutor,
    operation: Operation[CodeRequest, Response],
    request: CodeRequest,
    timeout: float | None,
    lane: Lane,
    key: object,
    not_after: object,
) -> Response:
    """Make a call with an idempotency key, `not_after`, or both.

    Args:
        executor: the client's executor.
        operation: the operation.
        request: the request.
        timeout: seconds for the whole call; None for the policy's.
        lane: the lane in which to wait.
        key: the idempotency key, or None.
        not_after: when the code is no longer wanted; an aware `datetime`, Unix time or None.

    Raises:
        RequestError: the call did not succeed.
        ConfigurationError: there is a key and no store, or an argument is wrong.
        InvalidRequestError: the key is not usable, or belongs to another request.
    """
    state = executor.state
    latest = NotAfter(not_after, state.clock)
    if key is None:
        return await executor.call(operation, request, timeout, lane, latest)
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_LENGTH:
        del key
        raise InvalidRequestError("idempotency_key", f"must be a text of 1 to {MAX_KEY_LENGTH} characters")
    policy = executor.policy if timeout is None else attrs.evolve(executor.policy, timeout=timeout)
    names = key_digest(key).hex(), key_secret(key)
    del key
    entry = KeyedSend(executor, *names, operation, request, lane, policy.timeout, latest)
    response: Response | None = None
    try:
        response = await send_recorded(executor, operation, request, timeout, lane, AttemptRecorder(entry))
    except AttemptDenied:
        entry.end()
    except BaseException as error:
        entry.end()
        if isinstance(error, Exception):
            await entry.finish()
        raise
    is_duplicate = await entry.finish()
    if response is not None:
        meta = attrs.evolve(response.meta, possible_duplicate=True) if is_duplicate else response.meta
        return attach_meta(response, meta)
    raise NotSentError(
        "the lease of the idempotency key expired before the request was written", operation.name, attempts=0
    )
