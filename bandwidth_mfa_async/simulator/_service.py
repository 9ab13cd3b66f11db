"""The service: processes a request and returns its response."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Final

from ._credentials import Credentials
from ._issued_codes import Verdict
from ._messages import Message
from ._responses import CALL_RATE_TEXT, LOCKED_TEXT, QUEUE_FULL_TEXT, SimulatedResponse, documented, rejection
from ._segments import count_segments
from ._server_limiter import AccountLimits, ServerLimiter
from ._validation import BadRequestError, parse_object, read_recipient, read_send, read_verify

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from bandwidth_mfa_async._clock import Clock

    from ._issued_codes import IssuedCode, IssuedCodes
    from ._messages import Channel, Inbox
    from ._server_limiter import Admission
    from ._settings import Settings
    from ._validation import SendRequest

_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_VALID: Final = b'{"valid":true}'
_NOT_VALID: Final = b'{"valid":false}'


class Service:
    """The endpoints and the state of the account.

    Args:
        settings: the account, and the behaviour where the real service is not known.
        codes: the issued codes.
        inbox: receives messages.
        clock: the source of time.
        rng: makes ids.
    """

    def __init__(self, settings: Settings, codes: IssuedCodes, inbox: Inbox, clock: Clock, rng: random.Random) -> None:
        self.settings = settings
        self.codes = codes
        self.inbox = inbox
        self.credentials = Credentials(settings, rng)
        self.limiters: dict[Channel, ServerLimiter] = {
            "messaging": ServerLimiter(settings.messaging_limits),
            "voice": ServerLimiter(settings.voice_limits),
        }
        self.on_callback: Callable[[Message], object] | None = None
        self.limit_listeners: list[Callable[[], object]] = []
        self.reset_listeners: list[Callable[[], object]] = []
        self.has_changed_limits = False
        """Whether the limits may differ from the initial ones."""
        codes.on_valid = self._on_valid
        self._clock = clock
        self._rng = rng

    def handle(self, operation: str, account_id: str, authorization: str | None, body: bytes) -> SimulatedResponse:
        """Process one request.

        Args:
            operation: "messaging", "voice", "verify" or "token".
            account_id: the account in the path; "" for a token.
            authorization: the header's value, or None if it is missing.
            body: the complete body.
        """
        now = self._clock.monotonic()
        if operation == "token":
            return self.credentials.issue_token(authorization, body, now, self._clock.time())
        rejected = self.credentials.reject(account_id, authorization, now)
        if rejected is not None:
            return rejected
        try:
            value = parse_object(body)
            if operation == "verify":
                return self._verify(value, now)
            request = read_send(value, require_message=self.settings.require_message)
            applications = self.settings.applications
            if applications is not None and request.application_id not in applications:
                # Bandwidth's live tests: 400 for an unknown id; C#'s: a 500 in 2026-04 (Bandwidth/csharp-sdk 83bf524).
                raise BadRequestError("applicationId is not valid")
            return self._send("voice" if operation == "voice" else "messaging", request, now)
        except BadRequestError as error:
            return rejection(400, str(error), self.request_id(), to=read_recipient(body))

    def documented(self, status: int, operation: str) -> bytes:
        """Return the body for a status, for a fault without a body."""
        return documented(status, operation, self.request_id())

    def request_id(self) -> str:
        """Return a new `requestId`: a UUID, "from AWS"."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def change_limits(self, channel: Channel, limits: AccountLimits | None) -> None:
        """Change the limit of a channel immediately; None removes it."""
        self.limiters[channel].change(limits, self._clock.monotonic())
        self.has_changed_limits = True
        self._notify(self.limit_listeners)

    def set_answer(self, message_id: str, status: int | None) -> None:
        """Record the status that the sender of a message got; None for no response."""
        message = self.inbox.find(message_id)
        if message is not None:
            message.answer_status = status
            self.inbox.changed(message)

    def clear(self) -> None:
        """Remove messages, codes, locks and counted sends, and restore the initial settings; tokens stay valid."""
        self.credentials.reset()
        self.inbox.clear()
        self.codes.clear()
        self.limiters["messaging"] = ServerLimiter(self.settings.messaging_limits)
        self.limiters["voice"] = ServerLimiter(self.settings.voice_limits)
        self._notify(self.limit_listeners)
        self.has_changed_limits = False
        self._notify(self.reset_listeners)

    @staticmethod
    def _notify(listeners: list[Callable[[], object]]) -> None:
        for listener in listeners:
            listener()

    def _on_valid(self, issued: IssuedCode) -> None:
        message = self.inbox.find(issued.message_id)
        if message is not None and message.verified is None:
            message.verified = self._clock.time()
            self.inbox.changed(message)

    def _send(self, channel: Channel, request: SendRequest, now: float) -> SimulatedResponse:
        settings = self.settings
        text = request.message.replace("{NAME}", settings.application_name).replace("{SCOPE}", request.scope)
        # Count before a code is issued, so that a rejected send leaves no code. All digits have the same width.
        segments = 1 if channel == "voice" else count_segments(text.replace("{CODE}", "0" * request.digits))
        limiter = self.limiters[channel]
        admission = limiter.admit(now, segments, request.from_, request.to)
        if not admission.accepted:
            return self._over_limit(channel, limiter.limits, admission, request.to)
        code = self.codes.issue(request.to, request.scope, request.digits, now)
        wall = self._clock.time()
        identifier = self._message_id(wall) if channel == "messaging" else self._call_id()
        message = Message(
            to=request.to,
            from_=request.from_,
            code=code,
            text=text.replace("{CODE}", code),
            scope=request.scope,
            channel=channel,
            message_id=identifier,
            application_id=request.application_id,
            time=wall,
            segments=segments,
            queued=admission.wait,
            # Receipts are documented for text messages only.
            callback_url=request.callback_url if channel == "messaging" else None,
        )
        self.codes.label(request.to, request.scope, identifier)
        self.inbox.add(message)
        if message.callback_url is not None and self.on_callback is not None:
            self.on_callback(message)
        if channel == "messaging":
            key = "MessageId" if settings.legacy_response_keys else "messageId"
        else:
            key = "CallId" if settings.legacy_response_keys else "callId"
        # Both consist of letters, digits and hyphens, so nothing needs escaping.
        body = b'{"%b":"%b"}' % (key.encode(), identifier.encode())
        return SimulatedResponse(200, body, to=request.to, message_id=identifier)

    def _verify(self, value: dict[str, object], now: float) -> SimulatedResponse:
        request = read_verify(value, require_expiration=self.settings.require_message)
        match self.codes.verify(request.to, request.scope, request.code, request.window, now):
            case Verdict.VALID:
                return SimulatedResponse(200, _VALID, to=request.to)
            case Verdict.INVALID:
                return SimulatedResponse(200, _NOT_VALID, "no such code in that window and scope", to=request.to)
            case Verdict.LOCKED:
                wait = math.ceil(self.codes.locked_for(request.to, now))
                retry_after = wait if self.settings.lockout_retry_after else None
                return rejection(429, LOCKED_TEXT, self.request_id(), to=request.to, retry_after=retry_after)

    def _over_limit(
        self, channel: Channel, limits: AccountLimits | None, admission: Admission, to: str
    ) -> SimulatedResponse:
        """Return a 429. Not known: MFA's body; it has MFA's error format and the platform's text here."""
        limits = limits or AccountLimits()
        text = CALL_RATE_TEXT
        if channel == "messaging":
            text = QUEUE_FULL_TEXT.format(
                rate=f"{limits.per_second * 60:g}",
                capacity=f"{limits.capacity:g}",
                minutes=f"{limits.queue_seconds / 60:g}",
            )
        # Whole seconds, at least 1: with 0 the client would retry immediately and be rejected again.
        retry_after = max(1, math.ceil(admission.wait)) if limits.retry_after else None
        return rejection(429, text, self.request_id(), to=to, retry_after=retry_after)

    def _message_id(self, wall: float) -> str:
        """Return 29 characters that start with 13 digits of epoch milliseconds: ``1589228074636lm4k2je7j7jklbn2``."""
        return f"{int(wall * 1000):013d}{''.join(self._rng.choices(_ALPHABET, k=16))}"

    def _call_id(self) -> str:
        """Return 47 characters, like the documented ``c-15ac29a2-1331029c-2cb0-4a07-b215-b22865662d85``."""
        return f"c-{self._rng.getrandbits(32):08x}-{self.request_id()}"
