"""Sends single verify requests without retries and returns the raw responses, for diagnosis."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .._config import RetryPolicy
from .._transport import Body
from .._wire import VERIFY, encode
from ._shared_state import SharedState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._clock import Clock
    from .._credentials import BasicAuth, OAuth2ClientCredentials
    from .._models import VerifyCodeRequest
    from .._wire import RawResponse


class Probe:
    """Sends single requests; created by `open_probe`."""

    def __init__(self, state: SharedState, timeout: float) -> None:
        credential = state.authorizer.select(VERIFY.name)
        assert credential is not None  # noqa: S101 - `open_probe` takes no provider
        self._state = state
        self._credential = credential
        self._timeout = timeout

    @property
    def needs_token(self) -> bool:
        """Whether `authorize` must fetch a bearer token."""
        return self._credential.current() is None

    async def authorize(self) -> None:
        """Obtain the Authorization header.

        Raises:
            RequestError: no token could be fetched.
        """
        await self._credential.obtain(None)

    async def verify(self, request: VerifyCodeRequest) -> RawResponse:
        """Send one verify request and return the response, whatever its status.

        Raises:
            RequestError: no response arrived.
        """
        state = self._state
        return await state.transport.send(
            state.urls[VERIFY.name],
            state.headers(await self._credential.obtain(None)),
            Body(encode(request)),
            operation=VERIFY.name,
            timeout=self._timeout,
            connect_timeout=self._timeout,
        )


@contextlib.asynccontextmanager
async def open_probe(
    account_id: str, auth: BasicAuth | OAuth2ClientCredentials, base_url: str, *, timeout: float, clock: Clock
) -> AsyncGenerator[Probe]:
    """Open a connection pool for single requests, and close it on exit.

    Args:
        account_id: the Bandwidth account.
        auth: the credentials to try.
        base_url: the service's address.
        timeout: seconds for the token request and for each request.
        clock: the source of time.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    state = SharedState(account_id, auth, base_url, clock, None, None, None)
    state.token_policy = RetryPolicy(attempt_timeout=timeout, connect_timeout=timeout)
    state.call_started()
    try:
        yield Probe(state, timeout)
    finally:
        state.call_finished()
        await state.aclose(0)
