"""The state that a client and its views share, and how it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import weakref
from typing import TYPE_CHECKING, Any

from .._auth import Authorizer
from .._clock import Sleeper, alarm
from .._config import RetryPolicy
from .._credentials import checked_auth
from .._logger import WAITS
from .._process import PerProcess
from .._retry import RetryBudget
from .._transport import Body, Transport, absolute_url, checked_transport_options, endpoint, request_headers
from .._validation import checked_account_id, checked_url
from .._wire import OPERATIONS, TOKEN_BODY, TOKEN_OPERATION, decipher_token
from ..errors import ClientStateError, ConnectTimeoutError, NotSentError, RequestError, TLSError
from ._shared_limiters import SharedLimiters
from ._store_use import StoreUse

if TYPE_CHECKING:
    from ssl import SSLContext

    import aiohttp

    from .._clock import Clock
    from .._credentials import AuthOrProvider, OAuth2ClientCredentials
    from .._transport import URL
    from .._wire import Token
    from ..limits import Limiter, PrioritySemaphore
    from ..stores import Store


class SharedState:
    """The state that a client and its views share: credentials, connections, the retry budget, open or closed."""

    def __init__(  # noqa: PLR0913 - the client's own arguments
        self,
        account_id: str,
        auth: AuthOrProvider,
        base_url: str,
        clock: Clock,
        session: aiohttp.ClientSession | None,
        ssl: SSLContext | None,
        proxy: str | None,
        store: Store | None = None,
    ) -> None:
        if not callable(auth):
            checked_auth(auth)
        self.account_id: str = checked_account_id(account_id)
        self.base_url: str = checked_url("base_url", base_url)
        checked_transport_options(session, ssl, proxy, self.base_url)
        self.auth: AuthOrProvider = auth
        self.clock = clock
        self.transport: Transport = Transport(session=session, ssl=ssl, proxy=proxy, clock=clock)
        self.sleeper: Sleeper = Sleeper(clock)
        self.budget: RetryBudget = RetryBudget()
        # Made at its first use: workers that a fork made must not share call ids and jitter.
        self._rng = PerProcess(random.Random)
        self.urls: dict[str, URL] = {op.name: endpoint(self.base_url, self.account_id, op.path) for op in OPERATIONS}
        self.authorizer: Authorizer = Authorizer(auth, self._fetch_token, clock)
        self.token_policy: RetryPolicy = RetryPolicy()
        self._headers = request_headers(Authorization="", **{"Content-Type": "application/json"})
        self._header = ""
        self._active = 0
        self._closed = False
        self._idle: asyncio.Event | None = None
        # Weak references: a view made for one request must not be kept for ever.
        self._waiters: weakref.WeakSet[Limiter | PrioritySemaphore] = weakref.WeakSet()
        self.store_use: StoreUse = StoreUse(store)
        self.shared_limiters: SharedLimiters = SharedLimiters(closed_before_sending)

    @property
    def rng(self) -> random.Random:
        """The source of jitter and event ids; no secrets."""
        return self._rng.get()

    @property
    def closed(self) -> bool:
        """Whether new calls are refused."""
        return self._closed

    def headers(self, authorization: str) -> Any:
        """Return a request's headers with this Authorization header."""
        # Built once for Basic and once per token; aiohttp copies them into each request.
        if authorization != self._header:
            self._headers = self._headers.copy()
            self._headers["Authorization"] = authorization
            self._header = authorization
        return self._headers

    def register(self, *waiters: Limiter | PrioritySemaphore) -> None:
        """Register limiters and semaphores of the client or of a view, so that closing ends their waits."""
        for waiter in waiters:
            self._waiters.add(waiter)

    def check(self) -> None:
        """Raise `ClientStateError` if the client is closed or belongs to another loop or process."""
        if self._closed:
            raise ClientStateError("this client is closed; make a new one")
        self.transport.check()

    def call_started(self) -> None:
        """Count a call that begins; closing waits for it."""
        self.check()
        self._active += 1

    def call_finished(self) -> None:
        """Count a call that has ended."""
        self._active -= 1
        if self._active == 0 and self._idle is not None:
            self._idle.set()

    async def aclose(self, drain_timeout: float) -> None:
        """Drain, then close. Safe to repeat or to run concurrently; if cancelled, cancel the attempts in flight."""
        if not self.transport.bound:
            self._closed = True
            await self.store_use.aclose()
            return
        self.transport.check()
        self._closed = True
        try:
            if self._active:
                WAITS.debug("the client closes; it waits up to %g s for %d calls", drain_timeout, self._active)
            with alarm(self.clock, self.clock.monotonic() + drain_timeout, self.abort):
                await self._wait_idle()
        finally:
            self.abort()
            # Each is closed even if another fails, and the pool last, since tokens are fetched over it.
            async with contextlib.AsyncExitStack() as closing:
                closing.push_async_callback(self.transport.aclose)
                closing.push_async_callback(self.authorizer.aclose)
                closing.push_async_callback(self.shared_limiters.aclose)
                closing.push_async_callback(self.store_use.aclose)
                await self._wait_idle()

    async def _wait_idle(self) -> None:
        if self._active:
            if self._idle is None:
                self._idle = asyncio.Event()
            await self._idle.wait()

    def abort(self) -> None:
        """Cancel all waits and attempts; each call ends with an error whose `delivery` says what is known."""
        for waiter in tuple(self._waiters):
            waiter.abort(closed_before_sending)
        self.sleeper.end()
        self.authorizer.abort()
        self.transport.abort()

    async def _fetch_token(self, auth: OAuth2ClientCredentials) -> Token:
        headers = request_headers(Authorization=auth.header, **{"Content-Type": "application/x-www-form-urlencoded"})
        try:
            response = await self.transport.send(
                absolute_url(auth.token_url),
                headers,
                Body(TOKEN_BODY),
                operation=TOKEN_OPERATION,
                timeout=self.token_policy.attempt_timeout,
                connect_timeout=self.token_policy.connect_timeout,
            )
        except RequestError as failure:
            # However the token request ended, the code request was not sent.
            kind: type[NotSentError] = NotSentError
            if isinstance(failure, TLSError):
                kind = TLSError
            elif isinstance(failure, TimeoutError):
                kind = ConnectTimeoutError
            error = kind(f"no token: {failure.message}", TOKEN_OPERATION)
        else:
            return decipher_token(response, now=self.clock.time(), secrets=lambda: auth.secrets)
        raise error


def closed_before_sending() -> NotSentError:
    """Return the error of a call that was waiting when the client was closed."""
    return NotSentError("the client was closed before the request was written", attempts=0, retry_stopped_by="closed")
