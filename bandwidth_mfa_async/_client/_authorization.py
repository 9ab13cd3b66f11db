"""Sets the Authorization header of each attempt, and changes the credentials of a call when they are rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._auth import TOKEN_SHARE, TOKEN_WAIT, copy_of
from .._logger import WAITS
from ..errors import APIStatusError, ConnectTimeoutError, DeadlineExceededError, Delivery, RequestError

if TYPE_CHECKING:
    from .._auth import Credential
    from ..telemetry import CredentialSwitchedEvent
    from ._call import Call
    from ._shared_state import SharedState


def current_header(call: Call[Any, Any]) -> str | None:
    """Return a call's Authorization header, or None if `wait_for_header` must be awaited."""
    return None if call.credential is None else call.credential.current()


async def wait_for_header(state: SharedState, call: Call[Any, Any]) -> str:
    """Return a call's Authorization header, after its wait for the provider or for the token that all calls share.

    Without a token, the call moves to the other credentials.

    Raises:
        RequestError: there is no header; nothing was sent.
        ConfigurationError: the provider returned something other than credentials.
    """
    while True:
        credential = call.credential
        if credential is None:
            credential = call.credential = await _first_credential(state, call)
        header = credential.current()
        if header is not None:
            return header
        WAITS.debug("%s waits for a token", call.operation.name)
        wait = None if _alternative(state, call, credential) is None else _max_wait(state, call)
        until = call.wait_until if wait is None else state.clock.monotonic() + wait
        error: RequestError
        try:
            return await credential.obtain(until)
        except RequestError as shared:
            error = copy_of(shared)
        except TimeoutError:
            error = DeadlineExceededError("the call's time ran out while it waited for a token")
            if wait is not None:
                error = ConnectTimeoutError(f"no token: the token endpoint did not respond in {wait:.3g} s")
        if not await change_credential(state, call, error):
            raise error


def _alternative(state: SharedState, call: Call[Any, Any], credential: Credential) -> Credential | None:
    """Return the other kind of credentials if the call may still use it."""
    return None if call.fallback is not None else state.authorizer.alternative(call.operation.name, credential)


def _max_wait(state: SharedState, call: Call[Any, Any]) -> float:
    """Return for how many seconds a call waits for one kind of credentials while it can use the other."""
    until = call.wait_until
    return TOKEN_WAIT if until is None else min(TOKEN_WAIT, (until - state.clock.monotonic()) * TOKEN_SHARE)


async def _first_credential(state: SharedState, call: Call[Any, Any]) -> Credential:
    authorizer, name = state.authorizer, call.operation.name
    credential = authorizer.select(name)
    if credential is None:
        WAITS.debug("%s waits for the credentials of the provider", name)
        try:
            await authorizer.ask(call.wait_until)
        except TimeoutError:
            pass
        else:
            credential = authorizer.select(name)
    if credential is None:
        raise DeadlineExceededError("the call's time ran out while it waited for credentials")
    return credential


async def change_credential(state: SharedState, call: Call[Any, Any], error: RequestError) -> bool:
    """Choose what a call whose credential does not work uses next; return False if there is nothing else.

    In this order, each at most once a call: a new token, the provider's new answer, the other kind.

    Args:
        state: the client's state.
        call: the call.
        error: how the credential failed; completed with both answers if there is nothing else.
    """
    authorizer, name, credential = state.authorizer, call.operation.name, call.credential
    assert credential is not None  # noqa: S101 - it failed
    other = _alternative(state, call, credential)
    if error.delivery is Delivery.REJECTED and not call.token_renewed and credential.renew(call.header, name):
        if other is None or not authorizer.serves(name, other):
            call.token_renewed = True
            return True
        # A probe costs its call one request and no wait; the next probe has the new token.
        credential.prefetch()
    if authorizer.has_provider and isinstance(error, APIStatusError) and not call.provider_asked:
        call.provider_asked = True
        until = call.wait_until if other is None else state.clock.monotonic() + _max_wait(state, call)
        WAITS.debug("%s asks the provider for other credentials, after %s", name, type(error).__name__)
        if await authorizer.replaced(credential, until):
            call.credential = None
            return True
        other = _alternative(state, call, credential)
    if other is None:
        authorizer.all_failed(name, call.fallback, credential, error)
        return False
    if not call.moved and authorizer.serves(name, other):
        # A rejected probe: what the operation uses now may still be rejected, and then the call has its own switch.
        call.moved = True
    else:
        call.fallback = credential, error
    call.credential = other
    return True


def record_accepted(state: SharedState, call: Call[Any, Any]) -> CredentialSwitchedEvent | None:
    """Record that the service accepted the call's credential; return the event if its operation switches to it."""
    if call.credential is None:
        return None
    fallback = None if call.fallback is None else call.fallback[1]
    return state.authorizer.accepted(call.operation.name, call.credential, fallback)


def proves_authorization(error: RequestError) -> bool:
    """Return whether the service rejected the request itself, in its own words, so that it knew the credentials."""
    return (
        isinstance(error, APIStatusError)
        and error.delivery is Delivery.REJECTED
        and error.status not in {401, 403}
        and error.error_text is not None
    )
