"""`SendCode`: one code through the workers, awaited for its id or left to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from .._clock import sleep_until
from .._models import CodeRequest
from ..errors import ConfigurationError, DeadlineExceededError, Delivery, DeliveryUnknownError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._clock import Clock
    from .ledger._code_queue import CodeOutcome, CodeQueue

_LOG = logging.getLogger("bandwidth_mfa_async.worker")
_MIN_POLL_INTERVAL: Final = 0.01
_MAX_POLL_INTERVAL: Final = 0.25
_CHANNELS: Final = ("messaging", "voice")


class SendCode:
    """Single codes: put into the ledger, hinted at in the queue, sent by a worker before any chunk's.

    Args:
        codes: where they are kept.
        wake: puts a code's name into the queue.
        clock: where time comes from.
    """

    def __init__(self, codes: CodeQueue, wake: Callable[[str], Awaitable[None]], clock: Clock) -> None:
        self._codes = codes
        self._wake = wake
        self._clock = clock

    async def kiq(self, request: CodeRequest, *, key: str, channel: str = "messaging", timeout: float = 60.0) -> str:
        """Have a worker send a code, wait for what becomes of it, and return the service's id.

        The same key is sent once: asked for again it gives the same id, and one that is under way is waited for. One
        that was not sent is tried again. Being cancelled takes nothing back.

        Args:
            request: to whom, from whom, and the text.
            key: makes it the same code, for as long as the ledger keeps it: let it name one sign-in, not a person; at
                most 512 characters, like ``"login:42"``.
            channel: ``"messaging"`` or ``"voice"``.
            timeout: seconds to wait; a code that no worker has taken by then is not sent.

        Raises:
            RequestError: no success; `delivery` says whether the code may have been sent, as the client's own do.
            InvalidRequestError: not a `CodeRequest`, or the key stands for another request.
            LedgerError: the ledger cannot be used; `outcome` says later whether the code was sent.
        """
        until = self._clock.monotonic() + _checked_timeout(timeout)
        name = self._codes.name(key)
        outcome = await self._put(request, name, channel, timeout)
        wait = _MIN_POLL_INTERVAL
        while outcome.delivery is None:
            now = self._clock.monotonic()
            if now >= until:
                return _id_or_raise(await self._withdraw(name))
            await sleep_until(self._clock, min(now + wait, until))
            wait = min(1.5 * wait, _MAX_POLL_INTERVAL)
            outcome = await self._codes.read(name) or outcome
        return _id_or_raise(outcome)

    async def enqueue(
        self, request: CodeRequest, *, key: str, channel: str = "messaging", timeout: float = 60.0
    ) -> None:
        """Have a worker send a code, and do not wait for it; `outcome` says what became of it.

        Args:
            request: as for `kiq`, as are all others.
            key: see there.
            channel: see there.
            timeout: see there.

        Raises:
            InvalidRequestError: not a `CodeRequest`, or the key stands for another request.
            LedgerError: the ledger cannot be used.
        """
        await self._put(request, self._codes.name(key), channel, _checked_timeout(timeout))

    async def outcome(self, key: str) -> CodeOutcome | None:
        """Return what is known of a code; None when nothing is, or no longer.

        Args:
            key: the one it was asked for with.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        return await self._codes.read(self._codes.name(key))

    async def _put(self, request: object, name: str, channel: str, timeout: float) -> CodeOutcome:
        if not isinstance(request, CodeRequest):
            raise InvalidRequestError("request", f"must be a CodeRequest, not {type(request).__name__}")
        if channel not in _CHANNELS:
            raise ConfigurationError("channel: must be 'messaging' or 'voice'")
        if channel == "voice" and request.callback_url is not None:
            raise InvalidRequestError("callback_url", "is documented for texts only; leave it out of a call")
        outcome = await self._codes.put(name, request, channel, timeout)
        if outcome.delivery is None:
            try:
                await self._wake(name)
            except Exception as error:  # noqa: BLE001 - whatever a broker raises: workers find the code by themselves
                _LOG.warning("the queue takes no hints (%s); workers go on without", type(error).__name__)
        return outcome

    async def _withdraw(self, name: str) -> CodeOutcome:
        outcome = await self._codes.withdraw(name)
        if outcome is not None and outcome.delivery is not None:
            return outcome
        text = "a worker is sending the code, and the time to wait for it is over"
        raise DeliveryUnknownError(text, attempts=1, retry_stopped_by="deadline")


def _id_or_raise(outcome: CodeOutcome) -> str:
    if outcome.delivery is Delivery.ACCEPTED and outcome.provider_id is not None:
        return outcome.provider_id
    raise outcome.error or DeadlineExceededError("the code was not sent", attempts=0)


def _checked_timeout(timeout: Any) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 < timeout < 1e6:
        raise ConfigurationError("timeout: must be a number of seconds above 0")
    return float(timeout)
