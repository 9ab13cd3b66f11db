"""Provides the Authorization header of a request: Basic, or a bearer token shared by all calls."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Final, Protocol

from ._credentials import BasicAuth

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._clock import Clock
    from ._credentials import Auth, OAuth2ClientCredentials

# Seconds before expiry; the margin that five of Bandwidth's six SDKs use.
REFRESH_MARGIN: Final = 60.0
# Seconds to keep the current token after a failed background refresh, before the next refresh.
REFRESH_PAUSE: Final = 5.0


class _Token(Protocol):
    @property
    def header(self) -> str: ...
    @property
    def lifetime(self) -> float: ...


class Authorizer(Protocol):
    """Provides the Authorization header of the next request."""

    def current(self) -> str | None:
        """Return a header that is valid now, or None if `obtain` must be awaited."""
        ...

    async def obtain(self) -> str:
        """Return a valid header; fetch a token if necessary."""
        ...

    def reject(self, header: str) -> bool:
        """Discard a header that the service rejected; return whether a new one can be obtained."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not appear in any text."""
        ...

    async def aclose(self) -> None:
        """Cancel the background refresh."""


class _Basic:
    def __init__(self, auth: BasicAuth) -> None:
        self._header = auth.header
        self._secrets = auth.secrets

    def current(self) -> str | None:
        return self._header

    async def obtain(self) -> str:
        return self._header

    def reject(self, header: str) -> bool:  # noqa: ARG002 - a password cannot be renewed
        return False

    def secrets(self) -> tuple[str, ...]:
        return self._secrets

    async def aclose(self) -> None:
        return


class _ClientCredentials:
    """One token for all concurrent calls, fetched by one task and refreshed early in the background.

    No locks: a caller with a valid header continues immediately, and callers without one wait for the same task. A
    cancelled caller leaves the task running for the others.
    """

    def __init__(
        self, credentials: OAuth2ClientCredentials, fetch: Callable[[], Awaitable[_Token]], clock: Clock
    ) -> None:
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._header: str | None = None
        self._refresh_at = 0.0
        self._expires_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def current(self) -> str | None:
        if self._header is None:
            return None
        now = self._clock.monotonic()
        if now >= self._expires_at:
            self._header = None
            return None
        if now >= self._refresh_at and self._task is None:
            self._start()
        return self._header

    async def obtain(self) -> str:
        # Loop, because the new token may already have been rejected for another call.
        while (header := self.current()) is None:
            if self._task is None:
                self._start()
            task = self._task
            assert task is not None  # noqa: S101 - _start has just set it
            await asyncio.shield(task)
        return header

    def reject(self, header: str) -> bool:
        # Another call may already have replaced the rejected token; keep the new one.
        if header == self._header:
            self._header = None
        return True

    def secrets(self) -> tuple[str, ...]:
        bearer = (self._header or "").partition(" ")[2]
        return (*self._credentials.secrets, bearer) if bearer else self._credentials.secrets

    async def aclose(self) -> None:
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _start(self) -> None:
        # Not the caller's context: the task serves all callers.
        self._task = asyncio.get_running_loop().create_task(
            self._refresh(), name="bandwidth_mfa_async token", context=contextvars.Context()
        )
        self._task.add_done_callback(self._done)

    async def _refresh(self) -> None:
        # No return value: debug mode logs the repr of a finished task, which shows its result.
        token = await self._fetch()
        # Count from now: otherwise a token that lives shorter than its fetch takes would be fetched for ever.
        now = self._clock.monotonic()
        # Refresh a token that lives shorter than twice the margin at half of its life.
        self._refresh_at = now + token.lifetime - min(REFRESH_MARGIN, token.lifetime / 2)
        self._expires_at = now + token.lifetime
        self._header = token.header

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._refresh_at = self._clock.monotonic() + REFRESH_PAUSE


def make_authorizer(auth: Auth, fetch: Callable[[], Awaitable[_Token]], clock: Clock) -> Authorizer:
    """Return the authorizer for these credentials.

    Args:
        auth: the credentials.
        fetch: fetches a token from the token endpoint; called for OAuth2 only.
        clock: the source of time.
    """
    if isinstance(auth, BasicAuth):
        return _Basic(auth)
    return _ClientCredentials(auth, fetch, clock)
