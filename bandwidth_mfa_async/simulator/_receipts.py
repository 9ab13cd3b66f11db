"""Delivery receipts, posted to `callbackUrl` in the background."""

from __future__ import annotations

import asyncio
import base64
import math
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp
from attrs import define, field, frozen

from bandwidth_mfa_async._concise import ConciseType

from ._errors import InvalidOptionError, SimulatorStateError, drops_traceback
from ._loopback import is_loopback
from ._messages import ReceiptState
from ._responses import CONTENT_TYPE, encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable

    from attrs import Attribute

    from bandwidth_mfa_async._clock import Clock, TimerHandle

    from ._messages import Message

_WORKERS: Final = 8
_DELIVERED: Final = "message-delivered"
_FAILED: Final = "message-failed"


def _at_least_0(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        msg = f"receipts: {attribute.name} must be a finite number, at least 0"
        raise InvalidOptionError(msg)


def _to_set(numbers: Collection[str]) -> Collection[str]:
    return frozenset(numbers)


@drops_traceback
@frozen(kw_only=True)
class ReceiptPolicy(metaclass=ConciseType):
    """The schedule and content of receipts (https://dev.bandwidth.com/docs/mfa/webhooks). Durations are in seconds.

    Known: receipts for North America (numbers that begin with +1) are retried for 24 h, others are not retried. Not
    known: the schedule, the timeout and which statuses count as success. The defaults are those of the messaging
    platform (any 2xx, 10 s).

    Args:
        delay: from when the message leaves the queue to the first try.
        failed_numbers: recipients whose messages fail.
        failed_share: the share of the other messages that fail at random, from 0 to 1, by the simulator's seed.
        duplicates: how many times a receipt is posted again after a success; the platform delivers at least once.
        retry_for: how long North American receipts are retried, from the first try.
        retry_initial: the first pause between tries; each later pause is twice as long.
        retry_max: the longest pause.
        timeout: of one try.
        username: with `password`, answers a receiver's Basic challenge: the first request has no credentials, and
            after a 401 with ``WWW-Authenticate: Basic`` a second one has them, as Bandwidth describes for other
            callbacks (guides/callbacks). Not known: whether MFA does this.
        password: the password of `username`; both or none.
        delivered_text: the `description` of a delivered message; the pages of 2021-2023 have ``ok`` instead.

    Raises:
        InvalidOptionError: a value is out of range, or one of `username` and `password` is missing.
    """

    delay: float = field(default=0.0, validator=_at_least_0)
    failed_numbers: Collection[str] = field(default=(), converter=_to_set)
    failed_share: float = field(default=0.0, validator=_at_least_0)
    duplicates: int = field(default=0, validator=_at_least_0)
    retry_for: float = field(default=24 * 3600.0, validator=_at_least_0)
    retry_initial: float = field(default=5.0, validator=_at_least_0)
    retry_max: float = field(default=900.0, validator=_at_least_0)
    timeout: float = field(default=10.0, validator=_at_least_0)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    delivered_text: str = "Message delivered to carrier."

    def __attrs_post_init__(self) -> None:
        if self.failed_share > 1:
            raise InvalidOptionError("receipts: failed_share must be from 0 to 1")
        if not isinstance(self.duplicates, int):
            raise InvalidOptionError("receipts: duplicates must be a whole number")
        if not self.retry_initial > 0 or not self.timeout > 0:
            raise InvalidOptionError("receipts: retry_initial and timeout must be more than 0 seconds")
        if (self.username is None) != (self.password is None):
            raise InvalidOptionError("receipts: username and password must both be set")


@define(eq=False)
class _Posting:
    message: Message
    url: str
    body: bytes
    deadline: float
    pause: float
    copies_left: int


class ReceiptSender:
    """Posts receipts in background tasks.

    Args:
        policy: the schedule and content of receipts.
        clock: measures delays, pauses and timeouts.
        rng: selects the messages that fail at random.
        allow_remote: whether to post to other machines. By default only loopback addresses are used, so that a test
            never calls a made-up address.
    """

    def __init__(self, policy: ReceiptPolicy, clock: Clock, rng: random.Random, *, allow_remote: bool = False) -> None:
        self.policy = policy
        self.on_change: Callable[[Message], object] | None = None
        self._clock = clock
        self._rng = rng
        self._allow_remote = allow_remote
        self._queue: asyncio.Queue[_Posting] = asyncio.Queue()
        self._timers: dict[_Posting, TimerHandle] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def submit(self, message: Message) -> None:
        """Schedule the receipt of a message."""
        url = message.callback_url or ""
        if not self._is_allowed(url):
            self._set_state(message, ReceiptState.BLOCKED)
            return
        self._start(message, url, message.queued + self.policy.delay)

    def resend(self, message: Message) -> None:
        """Post the receipt of a message now, in addition to earlier tries, or instead of those that wait.

        Raises:
            SimulatorStateError: the message has no `callbackUrl`, or receipts are not posted to that machine.
        """
        if message.callback_url is None:
            raise SimulatorStateError("this message has no callbackUrl, so it has no receipt")
        if not self._is_allowed(message.callback_url):
            raise SimulatorStateError("receipts are not posted to other machines; see allow_remote_callbacks")
        for posting in [posting for posting in self._timers if posting.message is message]:
            self._timers.pop(posting).cancel()
        self._start(message, message.callback_url, 0.0)

    def resume(self, messages: Iterable[Message]) -> None:
        """Post the receipts that were not accepted when an earlier simulator ended."""
        for message in messages:
            if message.receipt in {ReceiptState.PENDING, ReceiptState.RETRYING}:
                self.submit(message)

    def _start(self, message: Message, url: str, wait: float) -> None:
        policy = self.policy
        if message.receipt_type is None:
            failed = message.to in policy.failed_numbers
            if not failed and policy.failed_share > 0:
                failed = self._rng.random() < policy.failed_share
            message.receipt_type = _FAILED if failed else _DELIVERED
        self._set_state(message, ReceiptState.PENDING)
        first = self._clock.monotonic() + wait
        body = receipt_body(message, self._clock.time() + wait, policy.delivered_text)
        retry_for = policy.retry_for if _is_north_american(message.to) else 0.0
        self._schedule(_Posting(message, url, body, first + retry_for, policy.retry_initial, policy.duplicates), first)
        if not self._workers:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            self._workers = [asyncio.create_task(self._post_loop(self._session)) for _ in range(_WORKERS)]

    def clear(self) -> None:
        """Drop all receipts that are not being posted."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while not self._queue.empty():
            self._queue.get_nowait()

    async def aclose(self) -> None:
        """Stop posting and close the connections."""
        self.clear()
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _set_state(self, message: Message, state: ReceiptState) -> None:
        message.receipt = state
        if self.on_change is not None:
            self.on_change(message)

    def _is_allowed(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            return False
        if parts.scheme not in {"http", "https"} or not host:
            return False
        return self._allow_remote or is_loopback(host)

    def _schedule(self, posting: _Posting, when: float) -> None:
        if when <= self._clock.monotonic():
            self._queue.put_nowait(posting)
        else:
            self._timers[posting] = self._clock.call_at(when, partial(self._on_due, posting))

    def _on_due(self, posting: _Posting) -> None:
        self._timers.pop(posting, None)
        self._queue.put_nowait(posting)

    async def _post_loop(self, session: aiohttp.ClientSession) -> None:
        while True:
            posting = await self._queue.get()
            is_accepted = await self._post_with_timeout(session, posting)
            now = self._clock.monotonic()
            if is_accepted:
                self._set_state(posting.message, ReceiptState.SENT)
                if posting.copies_left > 0:
                    posting.copies_left -= 1
                    self._schedule(posting, now)
            elif posting.message.receipt is ReceiptState.SENT:
                # A duplicate of an accepted receipt is not retried.
                continue
            elif now + posting.pause <= posting.deadline:
                self._set_state(posting.message, ReceiptState.RETRYING)
                self._schedule(posting, now + posting.pause)
                posting.pause = min(posting.pause * 2, self.policy.retry_max)
            else:
                self._set_state(posting.message, ReceiptState.GIVEN_UP)

    async def _post_with_timeout(self, session: aiohttp.ClientSession, posting: _Posting) -> bool:
        """Post once and return whether it was accepted. The clock measures the timeout, so aiohttp's own is off."""
        attempt = asyncio.create_task(self._post(session, posting))
        timer = self._clock.call_at(self._clock.monotonic() + self.policy.timeout, attempt.cancel)
        try:
            await asyncio.wait({attempt})
            return not attempt.cancelled() and attempt.result()
        finally:
            timer.cancel()
            attempt.cancel()

    async def _post(self, session: aiohttp.ClientSession, posting: _Posting) -> bool:
        status, challenge = await self._post_once(session, posting, {})
        policy = self.policy
        if status == 401 and challenge.lower().startswith("basic") and policy.username is not None:
            login = base64.b64encode(f"{policy.username}:{policy.password}".encode()).decode("ascii")
            status, _ = await self._post_once(session, posting, {"Authorization": f"Basic {login}"})
        return 200 <= status < 300

    @staticmethod
    async def _post_once(session: aiohttp.ClientSession, posting: _Posting, extra: dict[str, str]) -> tuple[int, str]:
        # The messaging platform's User-Agent; MFA's is not documented.
        headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "BandwidthAPI/v2", **extra}
        try:
            # A redirect could send a receipt to another machine.
            async with session.post(
                posting.url,
                data=posting.body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                return response.status, response.headers.get("WWW-Authenticate", "")
        except (aiohttp.ClientError, OSError, ValueError):
            return 0, ""


def receipt_body(message: Message, time: float, delivered_text: str) -> bytes:
    """Return the body of a message's receipt: one object, as in the examples of docs/mfa/webhooks.

    Args:
        message: a message whose `receipt_type` is set.
        time: seconds since the epoch.
        delivered_text: the `description` if the message was delivered.
    """
    domestic = _is_north_american(message.to)
    body: dict[str, Any] = {
        "type": message.receipt_type,
        "time": datetime.fromtimestamp(int(time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "description": delivered_text,
        "platform": "NorthAmericaSMS" if domestic else "GlobalSMS",
        "message": {"id": message.message_id},
    }
    if message.receipt_type == _FAILED:
        body["description"] = "forbidden to country" if domestic else "Undeliverable"
        body["errorCode"] = 4432 if domestic else 995
    return encode(body)


def _is_north_american(number: str) -> bool:
    return number.startswith("+1")
