"""`Simulator`: assembles the parts, starts and stops the server, and changes its state."""

from __future__ import annotations

import random
from collections import deque
from types import EllipsisType
from typing import TYPE_CHECKING, Self

from bandwidth_mfa_async._clock import SystemClock

from ._access import Access
from ._control import Control
from ._endpoint import Endpoint
from ._errors import InvalidOptionError, SimulatorStateError, drops_traceback
from ._event_broadcaster import EventBroadcaster
from ._faults import Faults
from ._http import HTTPFront
from ._issued_codes import IssuedCodes
from ._listener import Listener
from ._messages import Inbox
from ._page import page_handlers
from ._persistence import Persistence, read_secrets
from ._receipts import ReceiptPolicy, ReceiptSender
from ._service import Service
from ._settings import MadeUp, Settings, check_sizes

if TYPE_CHECKING:
    import os
    from collections.abc import Collection
    from types import TracebackType

    from bandwidth_mfa_async._clock import Clock

    from ._messages import Message, RequestRecord
    from ._server_limiter import AccountLimits
    from ._tls import Certificate


class Simulator(Endpoint):
    """A local server that behaves like Bandwidth's MFA service, as far as its behaviour is known.

    ``async with Simulator() as sim, MFAClient(**sim.client_kwargs()) as mfa: ...``

    It never reaches a phone, nor another machine unless `allow_remote_callbacks` is set. "Not known" marks behaviour
    that no source of Bandwidth's describes.

    Args:
        port: the port to listen on; 0 for a free one.
        host: the address to listen on.
        account_id: the only account.
        username: the API user's name.
        password: the API user's password; None makes a random one.
        client_id: the OAuth2 client's id.
        client_secret: the OAuth2 client's secret; None makes a random one.
        accept_basic: False simulates the time after 2026-12-02, the announced end of API users.
        accept_bearer: False rejects bearer tokens with 403. Not known: MFA's status; in June 2026 Bandwidth staff saw
            it reject them (phoneware/bandwidth-mcp, commit eaa2db8).
        token_lifetime: seconds. Not known: the real value; Bandwidth's SDKs assume 3600.
        bad_token_status: 401 or 403 for an unknown or expired token. Not known.
        application_name: the value of ``{NAME}``.
        applications: the existing application ids; others get 400. None accepts every id.
        require_message: reject code requests without `message` and `digits`, as documented since 2020-07-16, and
            verifications without `expirationTimeInMinutes`. By default the four-key body of 2020-06 is accepted too,
            with the text ``Your {NAME} {SCOPE} code is {CODE}`` and 6 digits, and so is the verification of that time.
            Not known: its window; here it is 15 minutes.
        legacy_response_keys: respond with the keys `MessageId` and `CallId`, as documented from 2020-05 to 2020-12.
        messaging_limits: the account's limit on text messages; None for no limit, `AccountLimits()` for Bandwidth's
            default.
        voice_limits: the same for calls; `AccountLimits.voice()` for Bandwidth's default.
        lockout_after: the number of wrong tries that get ``{"valid": false}`` before a number is locked. Not known,
            except that it is at least two.
        lockout_seconds: how long a number stays locked. The documented text says two minutes; Bandwidth's own live test
            finds the lock gone after 30 s.
        lockout_retry_after: whether that 429 has a `Retry-After`. None is documented.
        consume_on_success: whether a code is valid only once. Not known.
        reset_on_success: whether a right code resets the count of wrong tries. Not known.
        latest_code_only: whether only the newest code of a number and scope is valid. The documentation speaks of any
            code in the window; this is to test an application that promises otherwise.
        receipts: the schedule and content of delivery receipts; None for `ReceiptPolicy()`.
        allow_remote_callbacks: whether to post receipts to other machines.
        tls: serve HTTPS with a certificate that is made at start; needs the `trustme` package.
        certificate: "valid", "expired" or "wrong_host"; only with `tls`.
        inbox_limit: the largest number of messages to keep; the oldest ones are dropped, and the oldest codes above ten
            times as many. None keeps all.
        request_log_limit: the largest number of requests to keep.
        max_body: the largest request body in bytes; a larger one gets 413. Not known.
        control_hosts: additional host names, without port, for the page and the JSON API below ``/_simulator``;
            loopback names and `host` are always allowed.
        control_token: what the page and the JSON API require, except ``/_simulator/ready``: a text, True for a random
            one, or False for nothing. Use it when other machines can reach the simulator.
        state: a file that keeps the inbox, the codes, wrong tries, limits, and the credentials that the simulator made
            up, across restarts; None for no file. It is readable by its owner only, and for one simulator at a time.
            The levels of queues and buckets, faults, requests and tokens are not kept.
        clock: the source of time; None for real time. Codes age by this clock and not by the system's: tools that
            freeze or shift time, such as freezegun and time-machine, do not age them. Pass
            `bandwidth_mfa_async.testing.ManualClock()` and call its ``tick(seconds)``.
        seed: makes codes, ids and random faults repeatable; None for different ones every time.

    Raises:
        InvalidOptionError: an argument has an invalid value.
        StateFileError: the `state` file is damaged or cannot be read; it is not changed.
    """

    @drops_traceback
    def __init__(  # noqa: PLR0913 - a server's options, each with a default
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        account_id: str = "9900000",
        username: str = "simulator",
        password: str | None = None,
        client_id: str = "simulator-client",
        client_secret: str | None = None,
        accept_basic: bool = True,
        accept_bearer: bool = True,
        token_lifetime: float = 3600.0,
        bad_token_status: int = 403,
        application_name: str = "Simulator",
        applications: Collection[str] | None = None,
        require_message: bool = False,
        legacy_response_keys: bool = False,
        messaging_limits: AccountLimits | None = None,
        voice_limits: AccountLimits | None = None,
        lockout_after: int = 5,
        lockout_seconds: float = 30.0,
        lockout_retry_after: bool = False,
        consume_on_success: bool = False,
        reset_on_success: bool = True,
        latest_code_only: bool = False,
        receipts: ReceiptPolicy | None = None,
        allow_remote_callbacks: bool = False,
        tls: bool = False,
        certificate: Certificate = "valid",
        inbox_limit: int | None = None,
        request_log_limit: int = 10_000,
        max_body: int = 256 * 1024,
        control_hosts: Collection[str] = (),
        control_token: str | bool = False,
        state: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
        seed: int | str | None = None,
    ) -> None:
        check_sizes(port, inbox_limit, request_log_limit, max_body)
        if certificate != "valid" and not tls:
            raise InvalidOptionError("certificate needs tls=True")
        made_up = MadeUp({} if state is None else read_secrets(str(state)))
        settings = Settings(
            account_id=account_id,
            username=username,
            password=made_up("password", 12) if password is None else password,
            client_id=client_id,
            client_secret=made_up("client_secret", 24) if client_secret is None else client_secret,
            accept_basic=accept_basic,
            accept_bearer=accept_bearer,
            token_lifetime=token_lifetime,
            bad_token_status=bad_token_status,
            application_name=application_name,
            applications=applications,
            require_message=require_message,
            legacy_response_keys=legacy_response_keys,
            lockout_retry_after=lockout_retry_after,
            messaging_limits=messaging_limits,
            voice_limits=voice_limits,
        )
        token = made_up("control_token", 18) if control_token is True else control_token or None
        self._clock: Clock = SystemClock() if clock is None else clock
        listener = Listener(host, port, certificate if tls else None, self._clock, control_hosts)
        super().__init__(settings, listener, token)
        rng = random.Random(seed)  # noqa: S311 - repeatable test data, not secrets
        codes = IssuedCodes(
            rng,
            lockout_after=lockout_after,
            lockout_seconds=lockout_seconds,
            consume_on_success=consume_on_success,
            reset_on_success=reset_on_success,
            latest_only=latest_code_only,
            limit=None if inbox_limit is None else 10 * inbox_limit,
        )
        self.faults: Faults = Faults(rng)
        """The injected faults: `faults.script(...)`, `faults.chance(...)`, `faults.clear()`."""
        self._inbox = Inbox(inbox_limit)
        self._records: deque[RequestRecord] = deque(maxlen=request_log_limit)
        self._service = Service(self._settings, codes, self._inbox, self._clock, rng)
        self._receipts = ReceiptSender(
            ReceiptPolicy() if receipts is None else receipts, self._clock, rng, allow_remote=allow_remote_callbacks
        )
        self._receipt_policy = self._receipts.policy
        self._receipts.on_change = self._inbox.changed
        self._service.on_callback = self._receipts.submit
        self._control = Control(
            inbox=self._inbox,
            records=self._records,
            service=self._service,
            faults=self.faults,
            receipts=self._receipts,
            clock=self._clock,
            access=Access({host, *control_hosts}, token),
        )
        self._events = EventBroadcaster(self._inbox, self._service, self.faults)
        self._control.pages |= page_handlers(self._events, self._clock)
        self._front = HTTPFront(
            service=self._service,
            faults=self.faults,
            records=self._records,
            clock=self._clock,
            max_body=max_body,
            fallback=self._control,
        )
        self._front.on_request = self._events.publish_request
        self._persistence = None
        if state is not None:
            self._persistence = Persistence(str(state), made_up.values, self._service, self._clock)

    def __repr__(self) -> str:
        where = self.base_url if self._listener.is_open else "not running"
        return f"<Simulator {where}, {len(self.inbox)} messages, {len(self._records)} requests>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server. It can be started again after `stop()` and keeps its inbox.

        Raises:
            SimulatorStateError: it is already running, or `tls` is set and the trustme package is not installed.
            StateFileError: the `state` file is damaged, in use, or cannot be written.
            OSError: the port is in use.
        """
        if self._persistence is not None and not self._listener.is_open:
            await self._persistence.open()
        try:
            await self._listener.open(self._front.make_server())
        except BaseException:
            if self._persistence is not None and not self._listener.is_open:
                await self._persistence.close()
            raise
        if self._persistence is not None:
            self._receipts.resume(self._inbox.messages)

    async def stop(self) -> None:
        """Close all connections and sockets and stop posting receipts; do nothing if it is not running."""
        self._front.cancel_delays()
        self._events.close()
        await self._receipts.aclose()
        await self._listener.close()
        if self._persistence is not None:
            await self._persistence.close()

    @property
    def inbox(self) -> list[Message]:
        """The messages, newest last."""
        return self._inbox.messages

    @property
    def sent_count(self) -> int:
        """The number of messages that were ever sent, including those that were dropped from the inbox or cleared."""
        return self._inbox.added

    @property
    def requests(self) -> list[RequestRecord]:
        """The latest requests, newest last: at most `request_log_limit` of them."""
        return list(self._records)

    @property
    def limits(self) -> dict[str, AccountLimits | None]:
        """The current limits, by channel."""
        return {channel: limiter.limits for channel, limiter in self._service.limiters.items()}

    @drops_traceback
    def last_code(self, to: str) -> str:
        """Return the newest code sent to a number.

        Raises:
            LookupError: the inbox has no message to that number.
        """
        message = self._inbox.latest(to)
        if message is None:
            raise LookupError("no message to that number is in the inbox")
        return message.code

    async def wait_for_message(self, to: str, *, timeout: float = 5.0, after: Message | None = None) -> Message:
        """Wait until a number has a message and return its newest one.

        Args:
            to: the number.
            timeout: seconds.
            after: wait for a newer message than this one.

        Raises:
            TimeoutError: no message arrived in time.
        """
        try:
            return await self._inbox.wait(to, self._clock, timeout, after)
        except TimeoutError as error:
            del to  # crash reporters show local variables
            raise error.with_traceback(None) from None

    def clear(self) -> None:
        """Remove messages, requests, codes, locks, faults and receipts, and restore the initial settings.

        Tokens stay valid, so that a client that tests share continues to work.
        """
        self._service.clear()
        self._records.clear()
        self.faults.clear()
        self._receipts.clear()
        self._receipts.policy = self._receipt_policy
        if self._listener.tls is not None:
            self._listener.tls.server.failures_left = 0

    def set_limits(
        self,
        *,
        messaging: AccountLimits | EllipsisType | None = ...,
        voice: AccountLimits | EllipsisType | None = ...,
    ) -> None:
        """Change limits immediately; queued and counted messages stay if the model stays the same.

        Args:
            messaging: the limit on text messages; None for no limit; unchanged if omitted.
            voice: the same for calls.
        """
        if not isinstance(messaging, EllipsisType):
            self._service.change_limits("messaging", messaging)
        if not isinstance(voice, EllipsisType):
            self._service.change_limits("voice", voice)

    def set_receipts(self, policy: ReceiptPolicy) -> None:
        """Change the receipt policy of new messages, until `clear()`."""
        self._receipts.policy = policy

    @drops_traceback
    def resend_receipt(self, message: Message) -> None:
        """Post the delivery receipt of a message again, now.

        Args:
            message: a message of the inbox.

        Raises:
            SimulatorStateError: it has no `callbackUrl`, or receipts are not posted to that machine.
        """
        self._receipts.resend(message)

    def set_credentials(self, *, basic: bool | EllipsisType = ..., bearer: bool | EllipsisType = ...) -> None:
        """Change which kinds of credentials are accepted, until `clear()`; a rejected one gets 403.

        Args:
            basic: whether Basic credentials are accepted; unchanged if omitted.
            bearer: the same for bearer tokens.
        """
        credentials = self._service.credentials
        if not isinstance(basic, EllipsisType):
            credentials.accept_basic = basic
        if not isinstance(bearer, EllipsisType):
            credentials.accept_bearer = bearer

    def revoke_tokens(self) -> None:
        """Revoke all bearer tokens."""
        self._service.credentials.revoke_tokens()

    def fail_handshakes(self, count: int = 1) -> None:
        """Make the next TLS handshakes fail with an alert.

        Args:
            count: the number of handshakes.

        Raises:
            SimulatorStateError: the simulator is not running with `tls`.
        """
        if self._listener.tls is None:
            raise SimulatorStateError("fail_handshakes() needs a running simulator with tls=True")
        self._listener.tls.server.failures_left = count

    async def refuse_connections(self, seconds: float | None = None) -> None:
        """Close all connections and refuse new ones; the port stays reserved.

        Args:
            seconds: accept connections again after this time; None to wait for `accept_connections()`.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        await self._listener.refuse(seconds)

    async def accept_connections(self) -> None:
        """Accept connections again; do nothing if it already accepts them.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        await self._listener.accept()
