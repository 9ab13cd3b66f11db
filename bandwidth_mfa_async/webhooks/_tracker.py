"""`DeliveryTracker`, which waits for the delivery receipt of a text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .._clock import SystemClock, wait_until
from .._ttl_map import TTLMap
from ..errors import ConfigurationError
from ._errors import ReceiptTimeoutError

if TYPE_CHECKING:
    from .._clock import Clock
    from ._receipt import DeliveryReceipt


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
        self._clock: Clock = clock or SystemClock()
        # Receipts of messages that the application has named, receipts of others, and the names.
        self._receipts: TTLMap[str, DeliveryReceipt] = TTLMap(max_receipts, max_age, self._clock)
        self._others: TTLMap[str, DeliveryReceipt] = TTLMap(max_receipts, max_age, self._clock)
        self._expected: TTLMap[str, None] = TTLMap(max_receipts, max_age, self._clock)
        self._waiting: dict[str, set[asyncio.Future[DeliveryReceipt]]] = {}

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<DeliveryTracker {len(self._receipts) + len(self._others)} receipts, {waiting} waiting>"

    def __call__(self, receipt: DeliveryReceipt) -> None:
        """Store a receipt and wake its waiters; a later receipt of the same message replaces it."""
        kept = self._receipts if receipt.message_id in self._expected else self._others
        kept.put(receipt.message_id, receipt)
        for waiter in self._waiting.get(receipt.message_id, ()):
            if not waiter.done():
                waiter.set_result(receipt)

    def expect(self, message_id: str) -> None:
        """Keep the receipt of this message, which may have arrived already, however many others arrive.

        Call it with the id of each text whose receipt you will ask for later than at once.
        """
        self._expected.put(message_id, None)
        self._others.transfer(self._receipts, message_id)

    def get(self, message_id: str) -> DeliveryReceipt | None:
        """Return the receipt of a message; None if it has not arrived or has been dropped."""
        self.expect(message_id)
        return self._receipts.get(message_id)

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
        waiter: asyncio.Future[DeliveryReceipt] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(message_id, set()).add(waiter)
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        try:
            if await wait_until(self._clock, deadline, waiter):
                return waiter.result()  # the tracker may have dropped it already
        finally:
            others = self._waiting[message_id]
            others.discard(waiter)
            if not others:
                del self._waiting[message_id]
        assert timeout is not None  # noqa: S101 - without one the wait ends with the receipt
        raise ReceiptTimeoutError(message_id, timeout)
