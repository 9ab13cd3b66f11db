"""One kind of credentials: Basic's constant header, or one bearer token shared by all calls."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Final, Literal, Protocol

from .._clock import wait_until
from ..errors import APIStatusError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from .._clock import Clock
    from .._credentials import BasicAuth, OAuth2ClientCredentials
    from .._tasks import TaskSet
    from ..errors import RequestError

    Fetch = Callable[[OAuth2ClientCredentials], Awaitable["_Token"]]

CredentialKind = Literal["basic", "oauth2"]

# Seconds before expiry; the margin that five of Bandwidth's six SDKs use.
REFRESH_MARGIN: Final = 60.0
# Seconds without a request after a rejection or a failed background refresh.
PAUSE: Final = 5.0
# A token that never worked for an operation and was rejected when younger than this, in seconds, is not renewed.
YOUNG: Final = 60.0
# What a token endpoint answers to credentials that it does not accept (RFC 6749 section 5.2).
_TOKEN_REJECTIONS: Final = frozenset({400, 401, 403})


class _Token(Protocol):
    @property
    def header(self) -> str: ...
    @property
    def lifetime(self) -> float: ...


class Credential(Protocol):
    """One kind of credentials."""

    kind: CredentialKind

    @property
    def auth(self) -> BasicAuth | OAuth2ClientCredentials:
        """What it was made from."""
        ...

    def current(self) -> str | None:
        """Return a header that is valid now, or None if `obtain` must be awaited."""
        ...

    async def obtain(self, until: float | None) -> str:
        """Return a valid header; fetch a token if necessary.

        Args:
            until: when to stop waiting, in the clock's monotonic seconds; None for never.

        Raises:
            RequestError: no token could be obtained. Callers share the instance; copy it before you change it.
            TimeoutError: the time is over.
        """
        ...

    def prefetch(self) -> None:
        """Fetch a token in the background if there is none."""

    def renew(self, header: str, operation: str) -> bool:
        """Discard a header that the service rejected; return whether to try again with another one."""
        ...

    def accepted(self, operation: str) -> None:
        """Record that the service accepted the current header for an operation."""

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not appear in any text."""
        ...


class Basic:
    """The constant header of a user name and a password.

    Args:
        auth: the user name and the password.
    """

    kind: CredentialKind = "basic"

    def __init__(self, auth: BasicAuth) -> None:
        self.auth = auth
        self._header = auth.header
        self._secrets = auth.secrets

    def current(self) -> str | None:
        """See `Credential.current`."""
        return self._header

    async def obtain(self, until: float | None) -> str:  # noqa: ARG002 - a password is at hand
        """See `Credential.obtain`."""
        return self._header

    def prefetch(self) -> None:
        """See `Credential.prefetch`."""

    def renew(self, header: str, operation: str) -> bool:  # noqa: ARG002 - a password cannot be renewed
        """See `Credential.renew`."""
        return False

    def accepted(self, operation: str) -> None:
        """See `Credential.accepted`."""

    def secrets(self) -> tuple[str, ...]:
        """See `Credential.secrets`."""
        return self._secrets


class OAuth2:
    """One token for all concurrent calls, fetched by one task and refreshed early in the background.

    No locks: a caller with a valid header continues immediately, and callers without one wait for the same task. A
    cancelled caller leaves the task running for the others.

    Args:
        auth: the client id and its secret.
        fetch: fetches a token from the token endpoint.
        clock: the source of time.
        tasks: the fetches in progress, which the owner cancels at its end.
    """

    kind: CredentialKind = "oauth2"

    def __init__(self, auth: OAuth2ClientCredentials, fetch: Fetch, clock: Clock, tasks: TaskSet) -> None:
        self.auth = auth
        self._fetch = fetch
        self._clock = clock
        self._tasks = tasks
        self._header: str | None = None
        self._issued_at = 0.0
        self._refresh_at = 0.0
        self._expires_at = 0.0
        # The operations for which the service accepted the current token.
        self._accepted_for: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        # The token endpoint's last rejection, and until when callers get it without another request.
        self._rejection: RequestError | None = None
        self._rejected_until = 0.0

    def current(self) -> str | None:
        """See `Credential.current`."""
        if self._header is None:
            return None
        now = self._clock.monotonic()
        if now >= self._expires_at:
            self._header = None
            return None
        if now >= self._refresh_at and self._task is None:
            self._start()
        return self._header

    async def obtain(self, until: float | None) -> str:
        """See `Credential.obtain`."""
        # Loop, because the new token may already have been rejected for another call.
        while (header := self.current()) is None:
            task = self._task or self._start_unless_rejected()
            if not await wait_until(self._clock, until, task):
                raise TimeoutError
            task.result()
        return header

    def prefetch(self) -> None:
        """See `Credential.prefetch`."""
        if self.current() is None and self._task is None and self._clock.monotonic() >= self._rejected_until:
            self._start()

    def renew(self, header: str, operation: str) -> bool:
        """See `Credential.renew`."""
        if header == self._header:
            age = self._clock.monotonic() - self._issued_at
            if age < YOUNG and operation not in self._accepted_for:
                return False
            self._header = None
        # Otherwise another call has already discarded or replaced it.
        return True

    def accepted(self, operation: str) -> None:
        """See `Credential.accepted`."""
        self._accepted_for.add(operation)

    def secrets(self) -> tuple[str, ...]:
        """See `Credential.secrets`."""
        bearer = (self._header or "").partition(" ")[2]
        return (*self.auth.secrets, bearer) if bearer else self.auth.secrets

    def _start_unless_rejected(self) -> asyncio.Task[None]:
        wait = self._rejected_until - self._clock.monotonic()
        if self._rejection is not None and wait > 0:
            error = copy_of(self._rejection)
            error._update(retry_after=wait)  # noqa: SLF001 - errors are this package's own
            raise error
        return self._start()

    def _start(self) -> asyncio.Task[None]:
        # Not the caller's context: the task serves all callers.
        name = "bandwidth_mfa_async token"
        task = self._task = self._tasks.start(self._refresh(), name=name, context=contextvars.Context())
        task.add_done_callback(self._done)
        return task

    async def _refresh(self) -> None:
        # No return value: debug mode logs the repr of a finished task, which shows its result.
        token = await self._fetch(self.auth)
        # Count from now: otherwise a token that lives shorter than its fetch takes would be fetched for ever.
        now = self._issued_at = self._clock.monotonic()
        # Refresh a token that lives shorter than twice the margin at half of its life.
        self._refresh_at = now + token.lifetime - min(REFRESH_MARGIN, token.lifetime / 2)
        self._expires_at = now + token.lifetime
        self._header = token.header
        self._accepted_for.clear()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            now = self._clock.monotonic()
            self._refresh_at = now + PAUSE
            if isinstance(error, APIStatusError) and error.status in _TOKEN_REJECTIONS:
                # A copy: the traceback of the error has the frames of the calls that waited for it.
                self._rejection, self._rejected_until = copy_of(error), now + PAUSE


def copy_of(error: RequestError) -> RequestError:
    """Return a copy of an error that several calls share, so that each can store its own data on its own."""
    return type(error)(*error.args)
