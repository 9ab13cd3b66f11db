"""`DeliveryTracker`, which waits for the delivery receipt of a text."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._clock import SystemClock
from ..errors import ConfigurationError
from ._errors import ReceiptTimeoutError

if TYPE_CHECKING:
    from .._clock import Clock
    from ._receipt import DeliveryReceipt

_Kept = TypeVar("_Kept", bound=tuple[float, Any])


class DeliveryTracker:
    """Passes received receipts to the tasks that wait for them.

    Use it as the callback of `add_receipt_route` or `receipt_asgi_app`, or call it with receipts yourself. A receipt
    may arrive before a task waits for it, and any number of tasks may wait for the same receipt. A tracker works in
    one event loop of one process: with several worker processes, the receipt may reach another process than the one
    that waits.

    Without credentials in front of the route, receipts with made-up ids can be posted. They push out only receipts
    of messages that the application has not named yet: `expect`, `get` and `wait` name one.

    Args:
        max_receipts: maximum number of receipts to keep, of named messages and of others; the oldest are dropped first.
        max_age: seconds for which to keep a receipt.
        clock: clock for ages and timeouts; None for real time.

    Raises:
        ConfigurationError: `max_receipts` or `max_age` is not above 0.
    """

    def __init__(self, *, max_receipts: int = 10_000, max_age: float = 900.0, clock: Clock | None = None) -> None:
        if max_receipts < 1 or not max_age > 0:
            raise ConfigurationError("max_receipts and max_age: must be above 0")
        self._max_receipts = max_receipts
        self._max_age = max_age
        self._clock: Clock = clock or SystemClock()
        # Receipts of messages that the application has named, receipts of others, and the names: each with its expiry.
        self._receipts: OrderedDict[str, tuple[float, DeliveryReceipt]] = OrderedDict()
        self._others: OrderedDict[str, tuple[float, DeliveryReceipt]] = OrderedDict()
        self._expected: OrderedDict[str, tuple[float, None]] = OrderedDict()
        self._waiting: dict[str, set[asyncio.Future[DeliveryReceipt | None]]] = {}

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<DeliveryTracker {len(self._receipts) + len(self._others)} receipts, {waiting} waiting>"

    def __call__(self, receipt: DeliveryReceipt) -> None:
        """Store a receipt and wake its waiters; a later receipt of the same message replaces it."""
        self._evict_expired()
        kept = self._receipts if receipt.message_id in self._expected else self._others
        self._put(kept, receipt.message_id, (self._clock.monotonic() + self._max_age, receipt))
        for waiter in self._waiting.get(receipt.message_id, ()):
            _resolve(waiter, receipt)

    def expect(self, message_id: str) -> None:
        """Keep the receipt of this message, which may have arrived already, however many others arrive.

        Call it with the id of each text whose receipt you will ask for later than at once.
        """
        self._evict_expired()
        self._put(self._expected, message_id, (self._clock.monotonic() + self._max_age, None))
        arrived = self._others.pop(message_id, None)
        if arrived is not None:
            self._put(self._receipts, message_id, arrived)

    def get(self, message_id: str) -> DeliveryReceipt | None:
        """Return the receipt of a message; None if it has not arrived or has been dropped."""
        self.expect(message_id)
        expiry, receipt = self._receipts.get(message_id, (0.0, None))
        return receipt if expiry > self._clock.monotonic() else None

    async def wait(self, message_id: str, timeout: float | None = 30.0) -> DeliveryReceipt:
        """Wait until the receipt of a message arrives and return it.

        The usual delay of a receipt is not documented; Bandwidth waits up to two hours for the carrier's own receipt
        (error code 9902). There is no receipt for voice calls and for texts without a `callback_url`.

        Args:
            message_id: id from a `MessagingCodeResponse`.
            timeout: seconds; 0 to return only a receipt that has arrived already, None to wait forever.

        Raises:
            ReceiptTimeoutError: no receipt arrived in time; a `TimeoutError`.
        """
        if (receipt := self.get(message_id)) is not None:
            return receipt
        if timeout is not None and timeout <= 0:
            raise ReceiptTimeoutError(message_id, timeout)
        waiter: asyncio.Future[DeliveryReceipt | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(message_id, set()).add(waiter)
        timer = None
        if timeout is not None:
            timer = self._clock.call_at(self._clock.monotonic() + timeout, partial(_resolve, waiter, None))
        try:
            receipt = await waiter
        finally:
            if timer is not None:
                timer.cancel()
            others = self._waiting[message_id]
            others.discard(waiter)
            if not others:
                del self._waiting[message_id]
        if receipt is None:
            assert timeout is not None  # noqa: S101 - only the timer sets None
            raise ReceiptTimeoutError(message_id, timeout)
        return receipt

    def _put(self, kept: OrderedDict[str, _Kept], message_id: str, entry: _Kept) -> None:
        kept.pop(message_id, None)
        kept[message_id] = entry
        if len(kept) > self._max_receipts:
            kept.popitem(last=False)

    def _evict_expired(self) -> None:
        now = self._clock.monotonic()
        for kept in (self._receipts, self._others, self._expected):
            while kept and next(iter(kept.values()))[0] <= now:
                kept.popitem(last=False)


def _resolve(waiter: asyncio.Future[DeliveryReceipt | None], receipt: DeliveryReceipt | None) -> None:
    # The result is the receipt itself: when the task resumes, the tracker may have dropped it already.
    if not waiter.done():
        waiter.set_result(receipt)
