"""The inbox of sent messages and the records of requests."""

from __future__ import annotations

import asyncio
import enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from attrs import define, field

from bandwidth_mfa_async._concise import ConciseType

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async._clock import Clock

    from ._faults import Fault

Channel: TypeAlias = Literal["messaging", "voice"]
"""The channel of a code: a text message or a phone call."""


class ReceiptState(enum.StrEnum):
    """The state of a message's delivery receipt."""

    NONE = "none"
    """The request has no `callbackUrl`, or it is a voice call, which has no receipts."""
    PENDING = "pending"
    """Not posted yet."""
    RETRYING = "retrying"
    """The receiver did not return 2xx; the receipt will be posted again."""
    SENT = "sent"
    """The receiver returned 2xx."""
    GIVEN_UP = "given_up"
    """The receiver did not return 2xx before the time limit."""
    BLOCKED = "blocked"
    """Not posted: the address is not on this machine, and remote addresses are not allowed."""


@define(eq=False, kw_only=True)
class Message(metaclass=ConciseType):
    """A message or call with a code. Messages compare by identity."""

    to: str
    from_: str
    code: str
    text: str
    scope: str
    channel: Channel
    message_id: str
    """The `messageId` of the response; for voice its `callId`."""
    application_id: str
    time: float
    """When the message was accepted, in seconds since the Unix epoch."""
    segments: int = 1
    """SMS segments; 1 for a call."""
    queued: float = 0.0
    """Seconds that the message waits in the account's queue; only the "queue" limit has one."""
    callback_url: str | None = None
    receipt: ReceiptState = ReceiptState.NONE
    receipt_type: str | None = None
    """`message-delivered` or `message-failed`, or None while undecided."""
    verified: float | None = None
    """When its code was first verified, in seconds since the Unix epoch; None if it was not."""
    answer_status: int | None = 200
    """The status that the sender got; None if it got no complete response, or none yet, because of a fault."""
    number: int = 0
    """Its position among all messages, counted from 1; a newer message has a larger number."""

    @property
    def call_id(self) -> str:
        """The `callId` of the response.

        Raises:
            AttributeError: this is a text message, which has a `message_id`.
        """
        if self.channel != "voice":
            raise AttributeError("a text message has no call_id; read .message_id")
        return self.message_id

    def as_json(self) -> dict[str, Any]:
        """Return the message as the JSON API shows it, with the key names of the HTTP API where they exist."""
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
            "verified": self.verified,
            "answerStatus": self.answer_status,
        }

    def state_as_json(self) -> dict[str, Any]:
        """Return the id and what can change after the message was sent."""
        return {
            "id": self.message_id,
            "receipt": str(self.receipt),
            "receiptType": self.receipt_type,
            "verified": self.verified,
            "answerStatus": self.answer_status,
        }


class RequestRecord(NamedTuple):
    """One request and its result, without codes, messages and credentials."""

    time: float
    """When the request arrived, in seconds since the Unix epoch."""
    operation: str
    """`messaging`, `voice`, `verify`, `token`, or `unknown` for an unknown path."""
    method: str
    path: str
    status: int | None
    """The status of the response; None if the connection was closed instead."""
    reason: str = ""
    """Why the request was refused; empty if it was not."""
    to: str | None = None
    """The recipient's number, if the body is readable."""
    fault: Fault | None = None
    """The fault that was applied, if any."""

    @property
    def refused(self) -> bool:
        """Whether the service did not accept the request, or the code was wrong.

        A request that was accepted is not refused, although a fault may have hidden that from the sender; see
        `Message.answer_status`.
        """
        return bool(self.reason)

    def as_json(self) -> dict[str, Any]:
        """Return the record as the JSON API shows it."""
        shown = self._asdict()
        shown["fault"] = None if self.fault is None else self.fault.as_json()
        return shown


@define(eq=False)
class Inbox:
    """The messages, newest last, with an index of the newest message of each number.

    Args:
        limit: the largest number of messages to keep; the oldest ones are dropped. None keeps all.
    """

    limit: int | None = None
    added: int = 0
    """The number of messages that were ever added, including dropped and cleared ones."""
    messages: list[Message] = field(factory=list[Message])
    listeners: list[Callable[[Message], object]] = field(factory=list["Callable[[Message], object]"])
    """Called with each new message."""
    change_listeners: list[Callable[[Message], object]] = field(factory=list["Callable[[Message], object]"])
    """Called with each message whose receipt, verification or answer changed."""
    clear_listeners: list[Callable[[], object]] = field(factory=list["Callable[[], object]"])
    """Called when all messages are removed."""
    _latest: dict[str, Message] = field(factory=dict[str, Message])
    _by_id: dict[str, Message] = field(factory=dict[str, Message])
    _waiters: set[asyncio.Future[None]] = field(factory=set["asyncio.Future[None]"])

    def add(self, message: Message) -> None:
        """Append a message, drop the oldest one over the limit, and wake all waiters."""
        self.added += 1
        message.number = self.added
        self.restore(message)
        for listener in self.listeners:
            listener(message)
        if self._waiters:
            for waiter in self._waiters:
                _wake(waiter)

    def restore(self, message: Message) -> None:
        """Append a message that has its number, and drop the oldest one over the limit."""
        self.messages.append(message)
        self._latest[message.to] = self._by_id[message.message_id] = message
        if self.limit is not None and len(self.messages) > self.limit:
            oldest = self.messages.pop(0)
            self._by_id.pop(oldest.message_id, None)
            if self._latest.get(oldest.to) is oldest:
                del self._latest[oldest.to]

    def changed(self, message: Message) -> None:
        """Call the listeners, because the state of a message changed."""
        for listener in self.change_listeners:
            listener(message)

    def find(self, message_id: str) -> Message | None:
        """Return the message with this `messageId` or `callId`, or None."""
        return self._by_id.get(message_id)

    def latest(self, to: str) -> Message | None:
        """Return the newest message to a number, or None."""
        return self._latest.get(to)

    async def wait(self, to: str, clock: Clock, seconds: float, after: Message | None = None) -> Message:
        """Wait until the newest message to a number is newer than `after`, and return it.

        Raises:
            TimeoutError: no such message arrived within `seconds` of the clock.
        """
        deadline = clock.monotonic() + seconds
        oldest = 0 if after is None else after.number
        while (message := self._latest.get(to)) is None or message.number <= oldest:
            if clock.monotonic() >= deadline:
                msg = f"no message to that number arrived within {seconds:g} s"
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
        """Remove all messages; waiters continue to wait."""
        self.messages.clear()
        self._latest.clear()
        self._by_id.clear()
        for listener in self.clear_listeners:
            listener()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
