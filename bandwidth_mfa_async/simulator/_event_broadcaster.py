"""Server-sent events for open inbox pages, with one bounded queue per page."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ._responses import encode

if TYPE_CHECKING:
    from bandwidth_mfa_async._clock import Clock

    from ._faults import Faults
    from ._messages import Inbox, Message, RequestRecord
    from ._service import Service

# A page renders about this many at once. A page that is further behind reads the inbox again instead.
_MAX_QUEUE: Final = 500
_HEARTBEAT_INTERVAL: Final = 15.0
_HEARTBEAT: Final = b":\n\n"


def _event(name: str, value: Any) -> bytes:
    """Return one server-sent event. Its JSON is one line of ASCII, so the data cannot end the event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), encode(value))


_RELOAD: Final = _event("reload", {})


class Subscription:
    """The events that one page has not yet received.

    The queue of a page that reads too slowly is replaced by one "reload" event, so its memory is bounded.
    """

    def __init__(self) -> None:
        self._events: deque[bytes] = deque()
        self._is_closed = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: bytes) -> None:
        """Append an event, unless the last one is equal or a reload."""
        if self._events and self._events[-1] in {event, _RELOAD}:
            return
        if len(self._events) >= _MAX_QUEUE:
            self._events.clear()
            event = _RELOAD
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """Make `take` return None from now on."""
        self._is_closed = True
        self._wake()

    async def take(self, clock: Clock) -> bytes | None:
        """Wait for events and return all of them; return a heartbeat after a while, and None once it is closed."""
        if not self._events and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            timer = clock.call_at(clock.monotonic() + _HEARTBEAT_INTERVAL, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._is_closed:
            return None
        chunk = b"".join(self._events) or _HEARTBEAT
        self._events.clear()
        return chunk

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EventBroadcaster:
    """Sends the simulator's events to every open page.

    The events are `message` (a new one), `state` (its receipt, verification or answer changed), `request` (one was
    refused), `limits` and `faults` (read them again), and `reload` (read everything again). Without an open page
    nothing is encoded.

    Args:
        inbox: reports messages and changes of their state.
        service: reports changes of limits.
        faults: reports changes of faults.
    """

    def __init__(self, inbox: Inbox, service: Service, faults: Faults) -> None:
        self._inbox = inbox
        self._subscriptions: set[Subscription] = set()
        inbox.listeners.append(self._on_message)
        inbox.change_listeners.append(self._on_state)
        inbox.clear_listeners.append(self.reload)
        service.limit_listeners.append(self._on_limits)
        faults.on_change = self._on_faults

    def __len__(self) -> int:
        return len(self._subscriptions)

    def subscribe(self) -> Subscription:
        """Return the queue of a new page; pass it to `unsubscribe` when the page closes."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a page's queue."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End the streams of all pages."""
        for subscription in self._subscriptions:
            subscription.close()

    def reload(self) -> None:
        """Make all pages read everything again."""
        self._publish(_RELOAD)

    def publish_request(self, record: RequestRecord) -> None:
        """Send a request to all pages if it was refused."""
        if self._subscriptions and record.refused:
            self._publish(_event("request", record.as_json()))

    def _on_message(self, message: Message) -> None:
        if self._subscriptions:
            self._publish(_event("message", {"message": message.as_json(), "total": len(self._inbox.messages)}))

    def _on_state(self, message: Message) -> None:
        if self._subscriptions:
            self._publish(_event("state", message.state_as_json()))

    def _on_limits(self) -> None:
        self._publish(_event("limits", {}))

    def _on_faults(self) -> None:
        self._publish(_event("faults", {}))

    def _publish(self, event: bytes) -> None:
        for subscription in self._subscriptions:
            subscription.push(event)
