"""`FakeTransport`: scripted outcomes in place of a client's connections."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias, Unpack
from urllib.parse import parse_qsl

from attrs import evolve, field, frozen

from .._client import MFAClient, executor_of
from .._clock import Sleeper
from .._concise import ConciseType
from .._config import RetryPolicy
from .._credentials import BasicAuth
from .._frames import clears_locals
from .._redaction import hide, mask_phone_repr, show_host_only
from .._transport import Headers, Transport
from .._wire import RawResponse
from ..errors import (
    ClientStateError,
    ConnectTimeoutError,
    DisconnectedError,
    NotSentError,
    ReadTimeoutError,
)
from ._outcome import Outcome, documented_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._client._options import ClientOptions
    from .._clock import Clock
    from .._transport import Body
    from ..errors import RequestError
    from ._outcome import Operation

_OPERATIONS: Final[dict[str, Operation]] = {
    "generate_messaging_code": "messaging",
    "generate_voice_code": "voice",
    "verify_code": "verify",
    "token": "token",
}
_MASKS: Final[dict[str, Callable[[Any], str]]] = {
    "to": mask_phone_repr,
    "from": mask_phone_repr,
    "code": hide,
    "message": hide,
    "callbackUrl": show_host_only,
}


def _masked_repr(document: dict[str, Any]) -> str:
    shown = (f"{key!r}: {_MASKS.get(key, repr)(value)}" for key, value in document.items())
    return f"{{{', '.join(shown)}}}"


@frozen(kw_only=True)
class SentRequest(metaclass=ConciseType):
    """One attempt of a client, as it would appear on the wire. Its `repr` shows no number, code or text.

    Attributes:
        operation: ``"messaging"``, ``"voice"``, ``"verify"`` or ``"token"``.
        document: the request body, with the keys of the HTTP API: ``to``, ``from``, ``applicationId``, ...
        time: time of the attempt in `monotonic()` seconds of the client's clock.
        written: False if the attempt failed before the request was written.
    """

    operation: Operation
    document: dict[str, Any] = field(repr=_masked_repr)
    time: float
    written: bool


Scripted: TypeAlias = "Outcome | Callable[[SentRequest], Outcome]"
"""An outcome, or a function that returns one for a request. The function must not use `SentRequest.written`."""


class FakeTransport:
    """Replaces a client's connections: nothing leaves the process, and the test scripts the outcomes.

    Everything else is real: validation, retries, rate limits, events::

        fake = FakeTransport()
        async with fake.client() as mfa:
            fake.script(Outcome.answer(503), Outcome.accepted())
            await sign_in(mfa)
        assert [request.document["to"] for request in fake.sent] == ["+19195551234"] * 2

    When the script is used up, texts and voice calls are accepted with a new id, and a verify is valid if it asks for
    `code`.

    Args:
        code: the valid code.
    """

    def __init__(self, *, code: str = "123456") -> None:
        self.code = code
        self.requests: list[SentRequest] = []
        """All attempts in order, including those that failed before their request was written."""
        self._script: list[tuple[Scripted, Operation | None]] = []
        self._defaults: dict[Operation | None, Scripted] = {}
        self._response_count = 0

    def __repr__(self) -> str:
        return f"<FakeTransport {len(self.requests)} requests, {len(self._script)} outcomes to come>"

    @property
    def sent(self) -> list[SentRequest]:
        """The requests that were written; each ``messaging`` and ``voice`` request may have reached a person."""
        return [request for request in self.requests if request.written]

    @property
    def pending(self) -> int:
        """Number of scripted outcomes not used yet."""
        return len(self._script)

    def script(self, *outcomes: Scripted, operation: Operation | None = None) -> None:
        """Append outcomes for the next attempts, one per attempt, in order.

        Args:
            outcomes: outcomes of the next attempts.
            operation: only for attempts of this operation; None for texts, voice calls and verifies, but not for
                tokens.

        Raises:
            TypeError: an argument is neither an `Outcome` nor a function.
        """
        self._script.extend((_checked_outcome(outcome), operation) for outcome in outcomes)

    def always(self, outcome: Scripted, *, operation: Operation | None = None) -> None:
        """Set the outcome of every attempt for which the script has none.

        Args:
            outcome: for example ``Outcome.answer(500)`` for a service that is down.
            operation: as in `script`; an outcome for one operation has precedence over one for all.

        Raises:
            TypeError: `outcome` is neither an `Outcome` nor a function.
        """
        self._defaults[operation] = _checked_outcome(outcome)

    def clear(self) -> None:
        """Remove the script, the outcomes set with `always` and the recorded requests."""
        self._script.clear()
        self._defaults.clear()
        self.requests.clear()

    @clears_locals
    def client(self, **options: Unpack[ClientOptions]) -> MFAClient:
        """Return a new client on this transport.

        Args:
            **options: arguments of `MFAClient`; `account_id` and `auth` have defaults. Without `retry` and `clock`,
                backoffs take no time. Waits for a `Retry-After` or a limiter take real time; test them with a
                `ManualClock`.
        """
        settings: dict[str, Any] = {"account_id": "9900000", "auth": BasicAuth("user", "password")}
        if "clock" not in options:
            settings["retry"] = RetryPolicy(wait_initial=0.0, wait_max=0.0)
        settings.update(options)
        client = MFAClient(**settings)
        self.attach(client)
        return client

    def attach(self, client: MFAClient) -> None:
        """Replace the transport of an existing client and of all its views.

        Args:
            client: a client that has not made a call yet.

        Raises:
            ClientStateError: the client has made a call.
        """
        state = executor_of(client).state
        if state.transport.bound:
            raise ClientStateError("the client has made a call already; attach the FakeTransport before its first call")
        state.transport = _ScriptedTransport(self, state.clock)

    def _record(self, name: str, payload: Body, now: float) -> tuple[Operation, Outcome, dict[str, Any]]:
        """Record an attempt and choose its outcome."""
        operation = _OPERATIONS[name]
        text = payload.value.decode()
        document: dict[str, Any] = dict(parse_qsl(text)) if operation == "token" else json.loads(text)
        request = SentRequest(operation=operation, document=document, time=now, written=True)
        scripted = self._pick_outcome(operation)
        outcome = scripted if isinstance(scripted, Outcome) else scripted(request)
        self.requests.append(evolve(request, written=outcome.written))
        return operation, outcome, document

    def _pick_outcome(self, operation: Operation) -> Scripted:
        accepted = {operation, None} - ({None} if operation == "token" else set())
        for index, (outcome, wanted) in enumerate(self._script):
            if wanted in accepted:
                del self._script[index]
                return outcome
        for wanted in (operation, None):
            if wanted in accepted and wanted in self._defaults:
                return self._defaults[wanted]
        return Outcome.accepted()

    def _response_body(self, operation: Operation, outcome: Outcome, document: dict[str, Any]) -> bytes:
        if outcome.body is not None:
            return outcome.body
        status = outcome.status or 200
        if status != 200:
            return documented_body(status, operation)
        self._response_count += 1
        answer: dict[str, Any]
        if operation == "verify":
            answer = {"valid": document.get("code") == self.code}
        elif operation == "token":
            answer = {"access_token": f"fake-token-{self._response_count}", "expires_in": 3600, "token_type": "Bearer"}
        elif operation == "voice":
            answer = {"callId": outcome.identifier or f"c-fake0000-0000-4000-8000-{self._response_count:021d}"}
        else:
            answer = {"messageId": outcome.identifier or f"1750000000000fake{self._response_count:012d}"}
        return json.dumps(answer).encode()


class _ScriptedTransport(Transport):
    """A `Transport` without sockets; bound to an event loop and a process like its base class."""

    def __init__(self, fake: FakeTransport, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._fake = fake
        self._sleeper = Sleeper(clock)

    async def send(  # noqa: PLR0913 - the arguments of `Transport.send`
        self, url: Any, headers: Headers, payload: Body, *, operation: str, timeout: float, connect_timeout: float
    ) -> RawResponse:
        del url, headers
        turn = payload.turn
        if turn is not None and not turn.try_reserve():
            await turn.reserve()
        kind, outcome, document = self._fake._record(operation, payload, self._clock.monotonic())  # noqa: SLF001
        payload.begun = outcome.written
        if turn is not None and outcome.written:
            turn.written()
        limit = timeout if outcome.written else min(timeout, connect_timeout)
        error: RequestError | None = None
        if outcome.delay > 0:
            if not await self._sleeper.sleep(min(outcome.delay, limit)):
                error = _closed_error(operation, written=outcome.written)
            elif outcome.delay >= limit:
                error = _timeout_error(operation, written=outcome.written)
        else:
            # Yield, so that concurrent attempts overlap like real ones.
            await asyncio.sleep(0)
        if error is None and outcome.error is not None:
            error = outcome.error("a scripted failure", operation)
        if error is not None:
            del document  # crash reporters show local variables
            raise error
        body = self._fake._response_body(kind, outcome, document)  # noqa: SLF001
        return RawResponse(outcome.status or 200, Headers(outcome.headers), body)

    async def warm_up(self, url: Any, connections: int, connect_timeout: float) -> None:
        """Do nothing."""

    def abort(self) -> None:
        super().abort()
        self._sleeper.end()


def _closed_error(operation: str, *, written: bool) -> RequestError:
    if written:
        return DisconnectedError("the client was closed before the response arrived", operation)
    return NotSentError("the client was closed before the request was written", operation)


def _timeout_error(operation: str, *, written: bool) -> RequestError:
    if written:
        return ReadTimeoutError("the request was written and no response arrived in time", operation)
    return ConnectTimeoutError("the connection was not established in time", operation)


def _checked_outcome(outcome: Scripted) -> Scripted:
    if not isinstance(outcome, Outcome) and not callable(outcome):
        raise TypeError("an outcome must be an Outcome or a function that returns one")
    return outcome
