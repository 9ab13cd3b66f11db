"""What was sent and what was asked: the inbox and the records of requests. No I/O."""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async._clock import Clock

    from ._faults import Fault

Channel: TypeAlias = Literal["messaging", "voice"]
"""How a code travels: as a text message or in a phone call."""


class ReceiptState(enum.StrEnum):
    """How far a message's delivery receipt has come."""

    NONE = "none"
    """No `callbackUrl` was given, or it was a voice call: those have no receipts."""
    PENDING = "pending"
    """Not posted yet."""
    RETRYING = "retrying"
    """Posted without a 2xx answer; it will be posted again."""
    SENT = "sent"
    """A receiver answered 2xx."""
    GIVEN_UP = "given_up"
    """No receiver answered 2xx in the time allowed."""
    BLOCKED = "blocked"
    """Never posted: the address is not on this machine, and remote addresses are not allowed."""


@define(eq=False, kw_only=True)
class Message:
    """One code as a phone would show or say it. Two messages are equal only when they are the same one."""

    to: str
    from_: str
    code: str
    text: str
    scope: str
    channel: Channel
    message_id: str
    """The `messageId` of the answer; for voice its `callId`."""
    application_id: str
    time: float
    """When it was accepted, in seconds since the Unix epoch."""
    segments: int = 1
    """SMS segments; 1 for a call."""
    queued: float = 0.0
    """Seconds it stood in the account's queue before it went out; only the "queue" limit makes it wait."""
    callback_url: str | None = None
    receipt: ReceiptState = ReceiptState.NONE
    receipt_type: str | None = None
    """`message-delivered` or `message-failed`, once that is decided."""

    @property
    def call_id(self) -> str:
        """The `callId` of the answer.

        Raises:
            AttributeError: it is a text message, which has a `message_id`.
        """
        if self.channel != "voice":
            raise AttributeError("a text message has no call_id; read .message_id")
        return self.message_id

    def as_json(self) -> dict[str, Any]:
        """Return what the JSON API shows, under the HTTP API's own key names where it has them."""
        return {
            "to": self.to,
            "from": self.from_,
            "code": self.code,
            "text": self.text,
            "scope": self.scope,
            "channel": self.channel,
            "callId" if self.channel == "voice" else "messageId": self.message_id,
            "applicationId": self.application_id,
            "time": self.time,
            "segments": self.segments,
            "queued": self.queued,
            "callbackUrl": self.callback_url,
            "receipt": str(self.receipt),
            "receiptType": self.receipt_type,
        }


class RequestRecord(NamedTuple):
    """One request and what became of it; no code, message or credential is kept."""

    time: float
    """When it came, in seconds since the Unix epoch."""
    operation: str
    """`messaging`, `voice`, `verify`, `token`, or `unknown` for a path the service has not."""
    method: str
    path: str
    status: int | None
    """What was answered; None where the connection was cut instead."""
    reason: str = ""
    """Why it was refused; empty when it was not."""
    to: str | None = None
    """The number in question, where the body was good enough to tell."""
    fault: Fault | None = None
    """The injected fault, if one was applied."""

    @property
    def refused(self) -> bool:
        """Whether the caller did not get what it asked for: a refusal, a wrong code, or no answer at all."""
        return bool(self.reason) or self.status is None or self.status >= 400

    def as_json(self) -> dict[str, Any]:
        """Return what the JSON API shows."""
        shown = self._asdict()
        shown["fault"] = None if self.fault is None else self.fault.as_json()
        return shown


@define(eq=False)
class Inbox:
    """The messages, newest last, with the newest of each number at hand and a way to wait for the next.

    Args:
        limit: how many to keep; the oldest go first. None keeps all.
    """

    limit: int | None = None
    messages: list[Message] = field(factory=list[Message])
    listeners: list[Callable[[Message], object]] = field(factory=list["Callable[[Message], object]"])
    """Called with each new message, for pages that show the inbox live."""
    on_clear: Callable[[], object] | None = None
    _latest: dict[str, Message] = field(factory=dict[str, Message])
    _waiters: set[asyncio.Future[None]] = field(factory=set["asyncio.Future[None]"])

    def add(self, message: Message) -> None:
        """Append a message, drop what is over the limit, and wake whoever waits."""
        self.messages.append(message)
        self._latest[message.to] = message
        if self.limit is not None and len(self.messages) > self.limit:
            oldest = self.messages.pop(0)
            if self._latest.get(oldest.to) is oldest:
                del self._latest[oldest.to]
        for listener in self.listeners:
            listener(message)
        if self._waiters:
            for waiter in self._waiters:
                _wake(waiter)

    def latest(self, to: str) -> Message | None:
        """Return the newest message to a number, or None."""
        return self._latest.get(to)

    async def wait(self, to: str, clock: Clock, seconds: float, after: Message | None = None) -> Message:
        """Return the newest message to a number, waiting until there is one that is not `after`.

        Raises:
            TimeoutError: none came in that many seconds of the clock.
        """
        deadline = clock.monotonic() + seconds
        while (message := self._latest.get(to)) is None or message is after:
            if clock.monotonic() >= deadline:
                msg = f"no message to that number came within {seconds:g} s"
                raise TimeoutError(msg)
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            timer = clock.call_at(deadline, partial(_wake, waiter))
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiters.discard(waiter)
        return message

    def clear(self) -> None:
        """Forget every message; whoever waits goes on waiting."""
        self.messages.clear()
        self._latest.clear()
        if self.on_clear is not None:
            self.on_clear()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
