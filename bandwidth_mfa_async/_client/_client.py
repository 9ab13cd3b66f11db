"""The public client class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload

import attrs

from .._clock import SystemClock
from .._config import DEFAULT_BASE_URL, Limits, RetryPolicy
from .._frames import clears_locals
from .._models import CodeRequest, CodeTemplate, VerifyCodeRequest
from .._redaction import scrub
from .._validation import checked_count, checked_seconds
from .._wire import MESSAGING, VERIFY, VOICE
from ..errors import ConfigurationError, InvalidRequestError
from ..telemetry import HookList
from ._environment import settings_from_env
from ._executor import CallExecutor
from ._keyed import send_with_options
from ._shared_state import SharedState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from ssl import SSLContext
    from types import TracebackType

    import aiohttp

    from .._clock import Clock
    from .._credentials import AuthOrProvider
    from .._models import MessagingCodeResponse, VerifyCodeResponse, VoiceCodeResponse
    from .._validation import Lane
    from ..stores import Store
    from ..telemetry import Hook
    from ._options import ClientOptions

_Option = TypeVar("_Option", Limits, RetryPolicy)

DEFAULT_RETRY: Final = RetryPolicy()
DEFAULT_LIMITS: Final = Limits()
DRAIN_TIMEOUT: Final = 10.0
_VERIFY_KEYWORDS: Final = {"to", "code", "scope", "expiration_time_in_minutes"}


class MFAClient:
    """Sends codes by text and voice and verifies them; each outcome states what is known of the delivery.

    Cheap to construct: its pool opens on first use in the running loop. Use it with ``async with``, or call
    ``await client.aclose()`` at the end. One client serves any number of concurrent tasks of one event loop.

    Args:
        account_id: the Bandwidth account.
        auth: `BasicAuth`, `OAuth2ClientCredentials`, or both as a `CredentialChain`; or a function that returns one
            of them (or an awaitable of it), called before the first call and again after a 401 or 403, once for all
            concurrent calls and at most every 5 s while its answer stays the same.
        base_url: another address of the service, such as a simulator's; plain http for loopback only.
        retry: how often, for how long and after which failures a call is retried.
        limits: rate and concurrency limits.
        hooks: receive an event for each attempt and each call.
        store: where the calls with an `idempotency_key` are recorded: a `MemoryStore`, `SQLiteStore` or `RedisStore`,
            or another `Store`. The client closes it at the end, unless another client uses it too; a store that was
            closed reopens when it is used.
        session: an `aiohttp.ClientSession` whose connection pool to use. It is never closed, and its headers,
            cookies, credentials, timeouts and middlewares are not used. Its connector decides how certificates are
            verified unless `ssl` is given, and in which context connections are opened.
        ssl: an `ssl.SSLContext`, used as it is. None verifies against the system's certificate authorities, or those
            of `SSL_CERT_FILE` and `SSL_CERT_DIR`, as they are on disk when a connection is opened.
        proxy: the URL of an http(s) proxy, for an https base URL; proxies of the environment are not read. A user name
            and password in it are sent as UTF-8.
        clock: the source of time, for tests.

    Raises:
        ConfigurationError: an argument is wrong; raised before any I/O.
    """

    @clears_locals
    def __init__(  # noqa: PLR0913 - keyword arguments with defaults
        self,
        account_id: str,
        auth: AuthOrProvider,
        *,
        base_url: str = DEFAULT_BASE_URL,
        retry: RetryPolicy = DEFAULT_RETRY,
        limits: Limits = DEFAULT_LIMITS,
        hooks: Iterable[Hook] = (),
        store: Store | None = None,
        session: aiohttp.ClientSession | None = None,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        state = SharedState(account_id, auth, base_url, clock or SystemClock(), session, ssl, proxy, store)
        policy = _checked(retry, RetryPolicy, "retry")
        state.token_policy = policy
        self._executor = CallExecutor(state, policy, HookList(hooks), _checked(limits, Limits, "limits"))
        self._owns_pool = True

    @classmethod
    @clears_locals
    def from_env(cls, **overrides: Unpack[ClientOptions]) -> Self:
        """Return a client configured by environment variables.

        Reads `BW_ACCOUNT_ID`, and `BW_USERNAME` and `BW_PASSWORD` or `BW_CLIENT_ID` and `BW_CLIENT_SECRET`. If both
        pairs are set, a `CredentialChain` uses both, OAuth2 first, unless `BW_AUTH` is ``basic`` or ``oauth2``.
        `BW_PASSWORD_FILE` and `BW_CLIENT_SECRET_FILE` name files that are read again after a rejection. Also reads
        `BW_MFA_URL`, `BW_TOKEN_URL` and `BW_STORE_URL` (``sqlite:///codes.db``, ``redis://...``; see `store_from_url`).

        Args:
            **overrides: constructor arguments that take precedence over the environment.

        Raises:
            ConfigurationError: variables are missing; names all of them. Or a file cannot be read.
        """
        return cls(**settings_from_env(overrides))

    def with_options(
        self,
        *,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        hooks: Iterable[Hook] | None = None,
    ) -> Self:
        """Return a view: the same account, pool and retry budget with other options.

        Closing a view does nothing; the original client closes the pool for all views.

        Args:
            retry: another policy.
            timeout: seconds for a whole call, instead of the policy's.
            limits: separate limits for the view; by default it shares this client's.
            hooks: hooks instead of this client's.

        Raises:
            ConfigurationError: an option is wrong.
        """
        executor = self._executor
        policy = executor.policy if retry is None else _checked(retry, RetryPolicy, "retry")
        if timeout is not None:
            policy = attrs.evolve(policy, timeout=timeout)
        hook_list = executor.hooks if hooks is None else HookList(hooks)
        own_limits = executor.limits if limits is None else _checked(limits, Limits, "limits")
        view = object.__new__(type(self))
        parent = executor if limits is None else None
        view._executor = CallExecutor(executor.state, policy, hook_list, own_limits, parent)
        view._owns_pool = False
        return view

    def __setattr__(self, name: str, value: object) -> None:
        # `client.auth = ...` would have no effect.
        if name not in {"_executor", "_owns_pool"} and not hasattr(type(self), name):
            del value
            raise AttributeError(
                f"MFAClient has no attribute {name!r} to set; options are constructor arguments, and auth= may be a "
                "function that returns the current credentials"
            )
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        state = self._executor.state
        closed = ", closed" if state.closed else ""
        return f"{type(self).__name__}(account_id={state.account_id!r}, base_url={state.base_url!r}{closed})"

    async def __aenter__(self) -> Self:
        self._executor.state.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self, *, drain_timeout: float = DRAIN_TIMEOUT) -> None:
        """Refuse new calls, wait for current ones, then cancel those that remain and close the pool.

        Safe to repeat. A call that is cancelled so raises its own error; `delivery` says what is known.

        Args:
            drain_timeout: seconds to wait for current calls.

        Raises:
            ConfigurationError: the drain timeout is not a number of at least 0.
            ClientStateError: called in another event loop or process than the client was used in.
        """
        drain_timeout = checked_seconds("drain_timeout", drain_timeout)
        if self._owns_pool:
            await self._executor.state.aclose(drain_timeout)

    async def warm_up(self, n: int = 1) -> None:
        """Open connections ahead of the first call, so that it needs no TLS handshake.

        An idle connection is kept for 10 seconds, and every connection for about a minute.

        Args:
            n: the number of connections, at least 1.

        Raises:
            ConfigurationError: n is not a whole number of at least 1.
            NotSentError: the service could not be reached.
            ClientStateError: the client is closed or belongs to another loop.
        """
        checked_count("n", n)
        state = self._executor.state
        state.call_started()
        try:
            await state.transport.warm_up(state.urls[MESSAGING.name], n, self._executor.policy.connect_timeout)
        finally:
            state.call_finished()

    async def generate_messaging_code(
        self,
        request: CodeRequest,
        *,
        timeout: float | None = None,
        lane: Lane = "interactive",
        idempotency_key: str | None = None,
        not_after: datetime | float | None = None,
    ) -> MessagingCodeResponse:
        """Have the service generate a code and text it to a person.

        Args:
            request: recipient, sender and text.
            timeout: seconds for the whole call; by default the retry policy's. In the bulk lane they begin with the
                first permit; use `asyncio.timeout` to bound the wait before it.
            lane: ``"interactive"``, or ``"bulk"`` for what can wait behind sign-ins.
            idempotency_key: names this request for one code, such as ``"login:<id of the attempt>"``: all calls with
                it send one text between them, in any process that uses the same store and account, and return its id;
                `meta.replayed` says that this call sent nothing. At most 512 characters, stored as a digest.
            not_after: when the code is no longer wanted, an aware `datetime` or seconds of Unix time. After it the
                call sends nothing, and its error is not `retryable`.

        Raises:
            RequestError: the call failed; `delivery` says whether the text may have been sent, and `retryable` whether
                the same call can be made again.
            KeyInFlightError: another call with the key is in flight.
            StoreError: the store cannot be used; nothing was sent.
            InvalidRequestError: not a `CodeRequest`, or the key belongs to another request.
            ConfigurationError: there is a key and no store.
            ClientStateError: the client is closed or belongs to another loop.
        """
        if not _is_a(CodeRequest, request):
            kind = type(request)
            del request
            raise _wrong_request(kind, CodeRequest)
        if idempotency_key is not None or not_after is not None:
            options = (timeout, lane, idempotency_key, not_after)
            return await send_with_options(self._executor, MESSAGING, request, *options)
        return await self._executor.call(MESSAGING, request, timeout, lane)

    async def generate_voice_code(
        self,
        request: CodeRequest,
        *,
        timeout: float | None = None,
        lane: Lane = "interactive",
        idempotency_key: str | None = None,
        not_after: datetime | float | None = None,
    ) -> VoiceCodeResponse:
        """Have the service generate a code and speak it to a person in a voice call.

        Args:
            request: recipient, sender and text; its application must be a voice application.
            timeout: seconds for the whole call; by default the retry policy's. In the bulk lane they begin with the
                first permit; use `asyncio.timeout` to bound the wait before it.
            lane: ``"interactive"``, or ``"bulk"`` for what can wait behind sign-ins.
            idempotency_key: names this request for one code: all calls with it make one voice call between them and
                return its id. At most 512 characters, stored as a digest; a text needs a key of its own.
            not_after: when the code is no longer wanted, an aware `datetime` or seconds of Unix time. After it no call
                is made.

        Raises:
            RequestError: the call failed; `delivery` says whether the person may have been called.
            KeyInFlightError: another call with the key is in flight.
            StoreError: the store cannot be used; no call was made.
            ConfigurationError: there is a key and no store.
            InvalidRequestError: not a `CodeRequest`, or one with a `callback_url`, which voice calls do not support;
                or the key belongs to another request.
            ClientStateError: the client is closed or belongs to another loop.
        """
        if not _is_a(CodeRequest, request):
            kind = type(request)
            del request
            raise _wrong_request(kind, CodeRequest)
        if request.callback_url is not None:
            raise InvalidRequestError("callback_url", "is documented for texts only; leave it out for voice calls")
        if idempotency_key is not None or not_after is not None:
            options = (timeout, lane, idempotency_key, not_after)
            return await send_with_options(self._executor, VOICE, request, *options)
        return await self._executor.call(VOICE, request, timeout, lane)

    @overload
    async def verify_code(
        self, request: VerifyCodeRequest, *, timeout: float | None = None, lane: Lane = "interactive"
    ) -> VerifyCodeResponse: ...

    @overload
    async def verify_code(
        self,
        *,
        to: str,
        code: str,
        scope: str | None = None,
        expiration_time_in_minutes: float = 3,
        timeout: float | None = None,
        lane: Lane = "interactive",
    ) -> VerifyCodeResponse: ...

    async def verify_code(
        self,
        request: VerifyCodeRequest | None = None,
        *,
        timeout: float | None = None,
        lane: Lane = "interactive",
        **keywords: Any,
    ) -> VerifyCodeResponse:
        """Check whether a code is right: read `.valid` of the response. A wrong code is a response, not an error.

        Takes a `VerifyCodeRequest` or its keywords. Retried only if the request was not written, and on 500 and 503:
        a second request may use up the code.

        Args:
            request: the number, and the code that the person typed.
            timeout: seconds for the whole call; by default the retry policy's.
            lane: the lane in which to wait for a free slot; no rate limit applies to a verify.
            **keywords: `to`, `code`, `scope` and `expiration_time_in_minutes` of a `VerifyCodeRequest`.

        Raises:
            VerificationLockedError: too many wrong codes for this number; `retry_after` says how long to wait.
            RequestError: the call failed.
            InvalidRequestError: a value breaks a rule.
            ClientStateError: the client is closed or belongs to another loop.
        """
        if request is None:
            try:
                request = _request_of(keywords)
            finally:
                keywords.clear()  # crash reporters show local variables
        elif keywords:
            keywords.clear()
            del request
            raise TypeError("verify_code takes a VerifyCodeRequest or keywords, not both")
        if not _is_a(VerifyCodeRequest, request):
            kind = type(request)
            del request
            raise _wrong_request(kind, VerifyCodeRequest)
        return await self._executor.call(VERIFY, request, timeout, lane)


def _request_of(keywords: dict[str, Any]) -> VerifyCodeRequest:
    unknown = keywords.keys() - _VERIFY_KEYWORDS
    if unknown or not {"to", "code"} <= keywords.keys():
        wrong = f"unknown: {', '.join(map(scrub, sorted(unknown)))}; " if unknown else ""
        unknown.clear()
        raise TypeError(f"verify_code: {wrong}pass to=... and code=..., and scope=... if the code had one")
    return VerifyCodeRequest(**keywords)


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind)


def _wrong_request(given: type, kind: type) -> InvalidRequestError:
    rule = f"must be a {kind.__name__}, not {given.__name__}"
    if issubclass(given, CodeTemplate):
        rule += "; make one with template.to(number)"
    elif kind is VerifyCodeRequest:
        rule += "; or pass to=..., code=... and scope=..."
    else:
        rule += "; make one with CodeRequest(to=..., from_=..., application_id=...)"
    return InvalidRequestError("request", rule)


def _checked(value: _Option, kind: type[_Option], name: str) -> _Option:
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name}: must be a {kind.__name__}")
    return value


def executor_of(client: MFAClient) -> CallExecutor:
    """Return a client's executor, for modules of this package that observe each attempt."""
    return client._executor  # noqa: SLF001 - the one place that reads it
