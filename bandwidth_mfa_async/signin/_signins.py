"""`SignIns`: sign-in flows on top of send and verify."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final, get_args

from .._client import executor_of
from .._clock import sleep_until
from .._frames import clears_locals
from .._logger import LOGGER_NAME
from .._models import VerifyCodeRequest, normalize_code
from .._redaction import mask_phone
from ..errors import (
    ConfigurationError,
    Delivery,
    GuardRefusedError,
    InvalidRequestError,
    RequestError,
    StoreError,
)
from ..telemetry import SignInEvent
from ._flows import CountedCheck, Flows, Refused
from ._guard import Guard, policy_of
from ._identity import is_plausible_id
from ._pace import Pace
from ._settings import Settings
from ._values import Check, CheckReason, SignIn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._client import MFAClient
    from .._models import CodeTemplate
    from ..stores import Store
    from ._flows import Flow, Text

_LOG: Final = logging.getLogger(LOGGER_NAME)
_DEFAULT_GUARD: Final = Guard()
_POLL_SECONDS: Final = 0.1
_MAX_KEY: Final = 255
_OUTCOMES: Final = {"accepted": Delivery.ACCEPTED, "unknown": Delivery.UNKNOWN, "sending": Delivery.UNKNOWN}
_CODE_LENGTHS: Final = range(4, 9)
_MAX_MINUTES: Final = 15
_CHECK_REASONS: Final[dict[str, CheckReason]] = {reason: reason for reason in get_args(CheckReason)}


class SignIns:
    """Sign-in flows: start, resend, check, with limits and one success per flow. For any web framework.

    ::

        signins = SignIns(mfa, login, guard=Guard(regions={"US", "CA"}), store=SQLiteStore("codes.db"))
        flow = await signins.start(number, visitor=ip, subject=user_id)
        check = await signins.check(flow.id, code)
        if check.valid:
            ...  # check.number and check.subject, never what the browser says

    All decisions are atomic in the store, so any number of processes may share it. If the store cannot be used, nothing
    is sent and no one is let in: a `StoreError`.

    Each flow has its own scope at the service, so a code of another flow, tab or purpose is wrong here, whatever the
    service does about resends and reuse, which it does not document. ``{SCOPE}`` in the text is replaced by the
    template's own scope before it is sent.

    Args:
        mfa: the client that sends.
        template: the text, or a dict of texts by language; the first is the default.
        purpose: what the flows are for. The id of a flow is unknown for another purpose or account. By default the
            template's scope, or ``"2FA"``.
        voice_template: the template of voice calls, whose application is a voice application; or a dict by language.
            None: `call` is refused.
        guard: limits on who may have a text sent; None for none.
        max_sends: texts and voice calls of one flow, 1 to 100.
        max_checks: codes that a person may try in one flow, 1 to 100.
        cooldown: seconds between the texts to a number, over all its flows: after the first, after the second, ...; the
            last one repeats. They begin again after a success, or after 15 minutes without a text.
        lifetime: seconds from the last text until the flow expires, 60 to 900; at most 900 from the first.
        timeout: seconds for each call to the service, and for each decision of the store; at most 45.
        store: where flows are kept: `MemoryStore` (one process), `SQLiteStore` or `RedisStore`. By default that of the
            guard, or of the client.

    Raises:
        ConfigurationError: a value is wrong, or there is no store.
    """

    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        mfa: MFAClient,
        template: CodeTemplate | Mapping[str, CodeTemplate],
        *,
        purpose: str | None = None,
        voice_template: CodeTemplate | Mapping[str, CodeTemplate] | None = None,
        guard: Guard | None = _DEFAULT_GUARD,
        max_sends: int = 3,
        max_checks: int = 5,
        cooldown: float | Sequence[float] = (30, 60),
        lifetime: float = 600,
        timeout: float = 15,
        store: Store | None = None,
    ) -> None:
        self._mfa = mfa
        self._executor = executor_of(mfa)
        guard = Guard(per_number=None, per_visitor=None, premium=True) if guard is None else guard
        if store is not None and guard.store is not None and guard.store is not store:
            raise ConfigurationError("store: must be that of the guard, because one decision uses both")
        found = guard.store if store is None else store
        use = self._executor.state.store_use
        if found is None and use.store is not None:
            found = use.require()  # the client closes it at the end
        if found is None:
            raise ConfigurationError(
                "store: pass SQLiteStore('codes.db') for one machine, RedisStore(url) for several, or MemoryStore() in "
                "tests; or give one to MFAClient"
            )
        self._settings = Settings.checked(
            template, purpose, voice_template, max_sends, max_checks, cooldown, lifetime, timeout
        )
        self._policy = policy_of(guard)
        self._flows = Flows(found, self._policy, self._settings, self._executor.state.account_id, use.tasks)
        clock = self._executor.state.clock
        self._send_pace, self._check_pace = Pace(clock), Pace(clock)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(purpose={self._settings.purpose!r})"

    @clears_locals
    async def start(  # noqa: PLR0913 - facts of a request
        self,
        number: str,
        *,
        visitor: str | None = None,
        subject: str | None = None,
        language: str | None = None,
        region: str | None = None,
        idempotency_key: str | None = None,
        cleared: bool = False,
        send: bool = True,
    ) -> SignIn:
        """Start a flow, and send its first text.

        A flow is returned also if the outcome of the text is unknown (`SignIn.delivery`): the person may hold the code.

        Args:
            number: the recipient, E.164; with `region`, as people type it there.
            visitor: where the request came from: an IP address, from the server's own trusted-proxy setting and never
                from a raw header. A port after it does not count. Needed for limits by visitor.
            subject: whom the application means, such as a user id; `Check.subject` returns it.
            language: the language of the text, if there are several templates; an unknown one gets the default.
            region: the region, such as ``"US"``, of a number without a country code; needs phonenumberslite.
            idempotency_key: an unguessable text that the server made and put into the form. A second request with it,
                such as a double click, waits for the first text and returns the same flow.
            cleared: whether the application vouches for this request: a CAPTCHA was solved, the user is signed in. Such
                requests have a second share of the limits by number, and prefixes and regions do not refuse them.
            send: False for a number without an account: everything behaves in the same way, nothing is sent, and no
                code is right. Otherwise a sign-in page shows who has an account. While the service fails, only a number
                with an account gets an error.

        Raises:
            GuardRefusedError: the guard or the cool-down refuses; `retry_after` says for how long.
            StoreError: the store cannot be used; nothing was sent.
            RequestError: nothing was sent; all limits and cool-downs are as before.
            InvalidRequestError: an argument is not text, or the idempotency key belongs to another number.
        """
        for name, value in (("subject", subject), ("language", language), ("idempotency_key", idempotency_key)):
            if value is not None and not isinstance(value, str):
                raise InvalidRequestError(name, f"must be str or None, not {type(value).__name__}")
        if idempotency_key is not None and not 0 < len(idempotency_key) <= _MAX_KEY:
            raise InvalidRequestError("idempotency_key", f"must have 1 to {_MAX_KEY} characters")
        policy = self._policy
        recipient = policy.recipient(number, region)
        try:
            started = await self._flows.start(
                recipient,
                visitor=policy.visitor(visitor),
                subject=subject,
                language=self._settings.language_of(language),
                idempotency_key=idempotency_key,
                cleared=cleared,
                fake=not send,
            )
        except Refused as refusal:
            error = self._refused(refusal, "messaging", cleared=cleared)
        else:
            if isinstance(started, str):
                return await self._known(started)
            if started.flow.observing:
                policy.warn_observing()
            self._emit("started", recipient.region, "messaging")
            return await self._send(started, "messaging")
        raise error

    @clears_locals
    async def resend(self, flow_id: str | None, *, cleared: bool = False) -> SignIn:
        """Send another text of a flow, after its cool-down.

        Args:
            flow_id: the flow's id.
            cleared: whether the application vouches for this request, as in `start`.

        Raises:
            GuardRefusedError: refused; also if the flow has sent all its texts (``sends``), or there is no such open
                flow (``expired``): start a new one.
            StoreError: the store cannot be used; nothing was sent.
            RequestError: nothing was sent; all limits are as before.
        """
        return await self._send_again(flow_id, "messaging", cleared=cleared)

    @clears_locals
    async def call(self, flow_id: str | None, *, cleared: bool = False) -> SignIn:
        """Speak another code of a flow in a voice call, because the person asked for it. It counts as a send.

        Args:
            flow_id: the flow's id.
            cleared: whether the application vouches for this request, as in `start`.

        Raises:
            ConfigurationError: there is no voice template; see `SignIn.can_call`.
            GuardRefusedError: as for `resend`.
            StoreError: the store cannot be used; no call was made.
            RequestError: no call was made; all limits are as before.
        """
        if self._settings.voice is None:
            raise ConfigurationError("voice_template: pass one to SignIns; its application must be a voice application")
        return await self._send_again(flow_id, "voice", cleared=cleared)

    async def _send_again(self, flow_id: str | None, channel: str, *, cleared: bool) -> SignIn:
        try:
            text = await self._flows.send(flow_id, cleared=cleared)
        except Refused as refusal:
            error = self._refused(refusal, channel, cleared=cleared)
        else:
            return await self._send(text, channel)
        raise error

    async def _send(self, text: Text, channel: str) -> SignIn:
        """Send one text that the store has counted, and store its outcome."""
        flow = text.flow
        outcome = "accepted"
        failure: RequestError | None = None
        try:
            if flow.fake:
                await self._send_pace.imitate()
            else:
                with self._send_pace.measured():
                    await self._request(flow, channel)
        except RequestError as error:
            failure = error
            outcome = "unknown" if error.delivery is Delivery.UNKNOWN else "not sent"
        except Exception:
            # Not a failed request: nothing was sent, or it would be a `DeliveryUnknownError`.
            await self._flows.settle(text, "not sent")
            raise
        current = await self._flows.settle(text, outcome)
        if failure is not None and outcome == "not sent":
            raise failure
        delivery = _OUTCOMES[outcome]
        if not flow.fake:
            self._emit("sent", flow.person["r"], channel, delivery=delivery)
        return self._sign_in(current, delivery=delivery)

    async def _request(self, flow: Flow, channel: str) -> None:
        request = self._settings.request(flow.person["n"], flow, channel)
        if channel == "voice":
            await self._mfa.generate_voice_code(request, timeout=self._settings.timeout)
        else:
            await self._mfa.generate_messaging_code(request, timeout=self._settings.timeout)

    @clears_locals
    async def check(self, flow_id: str | None, code: str) -> Check:
        """Check the code that a person typed: read `.valid` of the result.

        A try is counted before the service is asked, and given back if nothing was asked or the service rejected the
        request. Blanks, dashes and digits of other scripts are put right first; see `normalize_code`.

        Args:
            flow_id: the flow's id, from the person's cookie; None and whatever else a cookie may hold are unknown.
            code: what the person typed.

        Raises:
            StoreError: the store cannot be used; let no one in.
            VerificationLockedError: the service locks the number after too many wrong codes.
            RequestError: the check failed; the person may type the code again.
            InvalidRequestError: the code is not a str.
        """
        typed = normalize_code(code)
        is_code = typed.isascii() and typed.isdecimal() and len(typed) in _CODE_LENGTHS
        if flow_id is None or not is_plausible_id(flow_id):
            return self._no_success("expired", 0, None)
        counted = await self._flows.check(flow_id, str(len(typed)) if is_code else "0")
        if not isinstance(counted, CountedCheck):
            return self._no_success(*counted, None)
        if counted.fake:
            await self._check_pace.imitate()
            return await self._settle_check(counted, "wrong")
        minutes = min(_MAX_MINUTES, max(1, math.ceil(counted.age_ms / 60_000)))
        request = VerifyCodeRequest(counted.person["n"], typed, counted.scope, minutes)
        try:
            with self._check_pace.measured():
                response = await self._mfa.verify_code(request, timeout=self._settings.timeout)
        except Exception as error:
            is_unknown = isinstance(error, RequestError) and error.delivery is Delivery.UNKNOWN
            try:
                await self._flows.settle_check(counted, "unknown" if is_unknown else "back")
            except StoreError as lost:
                _LOG.warning("the outcome of a check could not be stored, and its try is spent: %s", lost)
            raise
        return await self._settle_check(counted, "valid" if response.valid else "wrong")

    async def _settle_check(self, check: CountedCheck, outcome: str) -> Check:
        state, left = await self._flows.settle_check(check, outcome)
        region = check.person["r"]
        if state != "valid":
            return self._no_success(state, left, region)
        self._emit("verified", region, None)
        return Check(valid=True, number=check.person["n"], subject=check.person["s"], checks_left=left)

    def _no_success(self, state: str, left: int, region: str | None) -> Check:
        reason = _CHECK_REASONS.get(state, "expired")
        if reason in {"wrong", "used", "expired"}:
            self._emit(reason, region, None)
        return Check(valid=False, reason=reason, checks_left=left)

    @clears_locals
    async def get(self, flow_id: str | None) -> SignIn | None:
        """Return a flow, or None if there is no such flow here: it may have expired.

        A flow that has ended has ``expires_in=0``.

        Raises:
            StoreError: the store cannot be used.
        """
        flow = await self._flows.find(flow_id)
        return None if flow is None else self._sign_in(flow)

    @clears_locals
    async def cancel(self, flow_id: str | None) -> None:
        """End a flow: its codes are right no more. Its texts stay counted as unverified.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._flows.end(flow_id, drain=False)

    @clears_locals
    async def done(self, flow_id: str | None) -> None:
        """End a flow because the user signed in in another way: its texts leave the budgets of unverified texts.

        Raises:
            StoreError: the store cannot be used.
        """
        await self._flows.end(flow_id, drain=True)

    async def _known(self, flow_id: str) -> SignIn:
        """Return the flow of an earlier request with the same key, once its text has an outcome."""
        clock = self._executor.state.clock
        deadline = clock.monotonic() + self._settings.timeout
        while True:
            flow = await self._flows.find(flow_id)
            if flow is None:
                raise GuardRefusedError(
                    "the sign-in of this idempotency key has ended; start a new one", reason="expired"
                )
            if flow.outcome != "sending" or clock.monotonic() >= deadline:
                return self._sign_in(flow)
            await sleep_until(clock, clock.monotonic() + _POLL_SECONDS)

    def _sign_in(self, flow: Flow, *, delivery: Delivery | None = None) -> SignIn:
        settings = self._settings
        left = max(0, settings.max_sends - flow.sends) if flow.expires_ms else 0
        return SignIn(
            id=flow.id,
            delivery=_OUTCOMES[flow.outcome] if delivery is None else delivery,
            masked_number=mask_phone(flow.person.get("n", "")),
            resend_in=math.ceil(flow.wait_ms / 1000),
            sends_left=left,
            checks_left=max(0, settings.max_checks - flow.checks) if flow.expires_ms else 0,
            expires_in=math.ceil(flow.expires_ms / 1000),
            can_call=settings.voice is not None and left > 0,
        )

    def _refused(self, refusal: Refused, channel: str, *, cleared: bool) -> GuardRefusedError:
        self._emit("refused", refusal.region, channel, reason=refusal.reason)
        return self._policy.refusal(refusal.reason, refusal.wait_ms, cleared=cleared)

    def _emit(self, kind: Any, region: str | None, channel: str | None, **facts: Any) -> None:
        hooks = self._executor.hooks
        if hooks:
            hooks.emit(SignInEvent(kind=kind, purpose=self._settings.purpose, region=region, channel=channel, **facts))
