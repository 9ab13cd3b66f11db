"""`SendCode`: requests one code from the workers, and optionally waits for its id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from .._clock import run_until, sleep_until
from .._frames import clears_locals
from .._keys import key_secret
from .._models import CodeRequest
from .._validation import checked_channel, checked_seconds
from ..errors import DeadlineExceededError, Delivery, DeliveryUnknownError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._clock import Clock
    from .._validation import Channel
    from .ledger._code_queue import CodeOutcome, CodeQueue

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_MIN_POLL_INTERVAL: Final = 0.01
_MAX_POLL_INTERVAL: Final = 0.25
_WITHDRAWAL: Final = 0.5
"""Seconds of a timeout, at most a tenth of it, that are kept for withdrawing a code that no worker has claimed."""


class SendCode:
    """Single codes: stored in the ledger, announced in the queue, sent by a worker before any item of a job.

    Args:
        codes: the single codes in the ledger.
        wake: sends the wake-up message of a code.
        clock: the time source.
    """

    def __init__(self, codes: CodeQueue, wake: Callable[[str], Awaitable[None]], clock: Clock) -> None:
        self._codes = codes
        self._wake = wake
        self._clock = clock

    @clears_locals
    async def kiq(
        self, request: CodeRequest, *, key: str, channel: Channel = "messaging", timeout: float = 60.0
    ) -> str:
        """Have a worker send a code, wait for the outcome, and return the service's id.

        A key is sent once: a second call returns the same id, waits for a code in flight, and sends again a code that
        was not sent. Cancelling the wait does not withdraw the code. `outcome` says whether an accepted code is a
        possible duplicate.

        Args:
            request: the request.
            key: the idempotency key, for as long as the ledger keeps it. It names one sign-in, not a person; at most
                512 characters, like ``"login:42"``.
            channel: ``"messaging"`` or ``"voice"``.
            timeout: seconds until the call has ended, also while Redis or the queue cannot be reached. They count from
                this call: a code of which no attempt has begun by then is not sent.

        Raises:
            RequestError: the code was not accepted; `delivery` says whether it may have been sent, as in the client's
                own errors.
            InvalidRequestError: not a `CodeRequest`, or the key belongs to another request.
            LedgerError: the ledger cannot be used, or did not answer within `timeout`; call `outcome` later to learn
                whether the code was sent.
        """
        deadline = self._clock.monotonic() + _checked_timeout(timeout)
        name = self._codes.name(key)
        outcome = await self._put(request, key, channel, deadline)
        withdraw_at = deadline - min(_WITHDRAWAL, timeout / 10)
        wait = _MIN_POLL_INTERVAL
        while outcome.delivery is None:
            now = self._clock.monotonic()
            if now >= withdraw_at:
                return _id_or_raise(await self._withdraw(name, deadline))
            await sleep_until(self._clock, min(now + wait, withdraw_at))
            wait = min(1.5 * wait, _MAX_POLL_INTERVAL)
            outcome = await self._codes.read(name, deadline) or outcome
        return _id_or_raise(outcome)

    @clears_locals
    async def enqueue(
        self, request: CodeRequest, *, key: str, channel: Channel = "messaging", timeout: float = 60.0
    ) -> None:
        """Have a worker send a code without waiting for it; `outcome` returns the result later.

        Args:
            request: the request.
            key: the idempotency key, for as long as the ledger keeps it. It names one sign-in, not a person; at most
                512 characters, like ``"login:42"``. A key is sent once.
            channel: ``"messaging"`` or ``"voice"``.
            timeout: seconds from this call after which a code of which no attempt has begun is not sent. They also
                bound this call, while Redis cannot be reached.

        Raises:
            InvalidRequestError: not a `CodeRequest`, or the key belongs to another request.
            LedgerError: the ledger cannot be used.
        """
        deadline = self._clock.monotonic() + _checked_timeout(timeout)
        outcome = await self._put(request, key, channel, deadline)
        if isinstance(outcome.error, DeadlineExceededError) and self._clock.monotonic() >= deadline:
            raise outcome.error

    @clears_locals
    async def outcome(self, key: str, *, timeout: float = 60.0) -> CodeOutcome | None:
        """Return what is known of a code; None if the ledger does not know it or no longer keeps it.

        Args:
            key: the key of the request.
            timeout: seconds until the call has ended, also while Redis cannot be reached.

        Raises:
            LedgerError: the ledger cannot be used, or did not answer within `timeout`.
        """
        return await self._codes.read(self._codes.name(key), self._clock.monotonic() + _checked_timeout(timeout))

    async def _put(self, request: object, key: str, channel: Channel, deadline: float) -> CodeOutcome:
        if not isinstance(request, CodeRequest):
            raise InvalidRequestError("request", f"must be a CodeRequest, not {type(request).__name__}")
        checked_channel(channel)
        if channel == "voice" and request.callback_url is not None:
            raise InvalidRequestError("callback_url", "is documented for texts only; leave it out for voice calls")
        name = self._codes.name(key)
        outcome = await self._codes.put(name, request, channel, deadline, secret=key_secret(key))
        if outcome.delivery is None:
            try:
                await run_until(self._clock, self._wake(name), deadline)
            except Exception as error:  # noqa: BLE001 - brokers raise anything; workers find the code without a message
                _LOG.warning(
                    "the queue did not accept a wake-up message (%s); workers poll the ledger until it does: "
                    "check that the broker runs",
                    type(error).__name__,
                )
        return outcome

    async def _withdraw(self, name: str, deadline: float) -> CodeOutcome:
        outcome = await self._codes.withdraw(name, deadline)
        if outcome is not None and outcome.delivery is not None:
            return outcome
        text = "the time to wait is over while a worker sends the code"
        raise DeliveryUnknownError(text, attempts=1, retry_stopped_by="deadline")


def _id_or_raise(outcome: CodeOutcome) -> str:
    if outcome.delivery is Delivery.ACCEPTED and outcome.provider_id is not None:
        return outcome.provider_id
    raise outcome.error or DeadlineExceededError("the code was not sent", attempts=0)


def _checked_timeout(timeout: object) -> float:
    return checked_seconds("timeout", timeout, exclusive=True)
