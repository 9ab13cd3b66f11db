"""Chooses the credentials of each call, switches between two kinds, and asks a provider for new ones."""

from __future__ import annotations

import contextvars
import logging
from collections import defaultdict
from inspect import isawaitable
from typing import TYPE_CHECKING, Final

from attrs import define, field

from .._clock import wait_until
from .._credentials import Auth, BasicAuth, CredentialChain, checked_auth
from .._logger import LOGGER_NAME
from .._tasks import TaskSet
from ..errors import APIStatusError, ConfigurationError, Delivery, NotSentError, RequestError
from ..telemetry import CredentialSwitchedEvent
from ._credential import PAUSE, Basic, OAuth2, copy_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from .._clock import Clock
    from .._credentials import AuthOrProvider, OAuth2ClientCredentials
    from ._credential import Credential, CredentialKind, Fetch

_logger = logging.getLogger(LOGGER_NAME)

# A kind that worked for another operation within these seconds is not paused.
WORKED_RECENTLY: Final = 60.0
# Seconds between two warnings.
WARNING_INTERVAL: Final = 60.0
# The longest wait for a token, in seconds and as a share of the call's remaining time, if there is another kind.
TOKEN_WAIT: Final = 5.0
TOKEN_SHARE: Final = 1 / 3

_NAMES: Final = {"basic": "Basic", "oauth2": "OAuth2"}


@define
class _Choice:
    """Which credential of a chain serves an operation, and what is known of both."""

    active: int = 0
    probe_at: float = 0.0
    # Whether a call tries the preferred kind while the other one serves.
    probing: bool = False
    # By index: until when it is paused, and whether its last answer was not a rejection.
    paused_until: list[float] = field(factory=lambda: [0.0, 0.0])
    works: list[bool] = field(factory=lambda: [False, False])
    # The message of each kind's last failure.
    failures: dict[CredentialKind, str] = field(factory=dict["CredentialKind", str])

    @property
    def description(self) -> str:
        """How both kinds failed."""
        return "no credentials work: " + "; ".join(f"{_NAMES[kind]}: {text}" for kind, text in self.failures.items())


class Authorizer:
    """Chooses the credential of each call, switches between two kinds, and asks a provider for new ones.

    Args:
        auth: the credentials, or a function that returns them.
        fetch: fetches a token from the token endpoint; called for OAuth2 only.
        clock: the source of time.
    """

    def __init__(self, auth: AuthOrProvider, fetch: Fetch, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._tasks = TaskSet()
        # One credential, or two with the preferred kind first; none before a provider was asked.
        self._credentials: tuple[Credential, ...] = ()
        self._probe_after = 0.0
        self._prefetch_at = 0.0
        self._choices: defaultdict[str, _Choice] = defaultdict(_Choice)
        # When each kind last worked, by operation.
        self._worked_at: dict[tuple[CredentialKind, str], float] = {}
        self._warn_at = float("-inf")
        self._provider: Callable[[], Auth | Awaitable[Auth]] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._ask_again_at = float("-inf")
        if isinstance(auth, Auth):
            self._install(auth)
        else:
            self._provider = auth
        # Whether `accepted` must be called; with one password there is nothing to choose.
        self.tracks: bool = not isinstance(auth, BasicAuth)

    @property
    def has_provider(self) -> bool:
        """Whether `ask` can return other credentials."""
        return self._provider is not None

    def select(self, operation: str) -> Credential | None:
        """Return the credential of a new call, or None if `ask` must be awaited first.

        Raises:
            NotSentError: the service has just rejected both kinds for this operation.
        """
        credentials = self._credentials
        if len(credentials) == 2:
            return self._choose(operation)
        return credentials[0] if credentials else None

    def _choose(self, operation: str) -> Credential:
        now = self._clock.monotonic()
        choice = self._choices[operation]
        paused = [until > now for until in choice.paused_until]
        if all(paused):
            wait = min(choice.paused_until) - now
            raise NotSentError(
                f"not tried: {choice.description}",
                operation,
                attempts=0,
                retry_after=wait,
                retry_stopped_by="credentials",
            )
        if paused[choice.active]:
            return self._credentials[1 - choice.active]
        preferred = self._credentials[0]
        if choice.active and now >= choice.probe_at and not paused[0]:
            if preferred.current() is not None:
                choice.probe_at, choice.probing = now + self._probe_after, True
                return preferred
            if now >= self._prefetch_at:
                self._prefetch_at = now + self._probe_after
                preferred.prefetch()
        return self._credentials[choice.active]

    def alternative(self, operation: str, credential: Credential) -> Credential | None:
        """Return the other kind for a call for which this one failed; None if there is none, or it is paused."""
        others = [each for each in self._credentials if each.kind != credential.kind]
        if not others:
            return None
        (other,) = others
        paused_until = self._choices[operation].paused_until[self._credentials.index(other)]
        return other if self._clock.monotonic() >= paused_until else None

    def serves(self, operation: str, credential: Credential) -> bool:
        """Return whether new calls use this credential, apart from probes."""
        return credential is self._credentials[self._choices[operation].active]

    def accepted(
        self, operation: str, credential: Credential, fallback: RequestError | None
    ) -> CredentialSwitchedEvent | None:
        """Record that the service accepted a credential; return the event if the operation switches to it.

        Args:
            operation: the name of the operation.
            credential: the one that worked.
            fallback: why the call's first credential was not used, or None.
        """
        credential.accepted(operation)
        if len(self._credentials) != 2 or credential not in self._credentials:
            return None
        now = self._clock.monotonic()
        self._worked_at[credential.kind, operation] = now
        index = self._credentials.index(credential)
        choice = self._choices[operation]
        choice.works[index] = True
        choice.paused_until[index] = 0.0
        replaces = choice.probing or fallback is not None or choice.paused_until[choice.active] > now
        if index == choice.active or not replaces:
            return None  # its request was written before another call switched
        if isinstance(fallback, APIStatusError) and _is_by_a_proxy(fallback):
            return None
        choice.active, choice.probing, choice.probe_at = index, False, now + self._probe_after
        previous = self._credentials[1 - index].kind
        why = "it works again" if fallback is None else fallback.message
        self._warn(
            "%s now uses %s credentials instead of %s: %s", operation, _NAMES[credential.kind], _NAMES[previous], why
        )
        return CredentialSwitchedEvent(
            operation=operation,
            previous=previous,
            current=credential.kind,
            status=fallback.status if isinstance(fallback, APIStatusError) else None,
        )

    def all_failed(
        self, operation: str, first: tuple[Credential, RequestError] | None, last: Credential, error: RequestError
    ) -> None:
        """Record that no credential worked for a call, and complete its error.

        Args:
            operation: the name of the operation.
            first: the credential that was tried before, and how it failed; None if there was none.
            last: the last credential.
            error: how it failed; its message gets the answers to both.
        """
        if len(self._credentials) != 2:
            if isinstance(error, APIStatusError):
                self._warn("%s: the %s credentials are rejected: %s", operation, _NAMES[last.kind], error.message)
            return
        choice = self._choices[operation]
        for credential, failure in ((first,) if first is not None else ()) + ((last, error),):
            choice.failures[credential.kind] = failure.message
            self._pause(operation, choice, credential, failure)
        # Without `first`, the other kind is paused: it failed moments ago.
        error._update(message=choice.description)  # noqa: SLF001 - errors are this package's own
        self._warn("%s: %s", operation, error.message)

    def _pause(self, operation: str, choice: _Choice, credential: Credential, error: RequestError) -> None:
        if credential not in self._credentials or not isinstance(error, APIStatusError) or _is_by_a_proxy(error):
            return
        index = self._credentials.index(credential)
        now = self._clock.monotonic()
        elsewhere = any(
            kind == credential.kind and name != operation and now - at < WORKED_RECENTLY
            for (kind, name), at in self._worked_at.items()
        )
        # One rejection among successes may concern this one request.
        if not elsewhere and not choice.works[index]:
            choice.paused_until[index] = now + PAUSE
        choice.works[index] = False

    async def ask(self, until: float | None) -> None:
        """Ask the provider before the first call; concurrent calls share one question.

        Raises:
            NotSentError: the provider failed.
            ConfigurationError: it returned something other than credentials.
            TimeoutError: it did not answer in time.
        """
        if not await self._ask(until):
            raise TimeoutError

    async def replaced(self, credential: Credential, until: float | None) -> bool:
        """Ask the provider again after a rejection; return whether a credential is no longer the current one.

        Asks at most every 5 s, unless the answer has changed. If the provider fails, the credentials stay.

        Args:
            credential: the rejected one.
            until: when to stop waiting, in the clock's monotonic seconds; None for never.
        """
        if credential in self._credentials and (self._asking or self._clock.monotonic() >= self._ask_again_at):
            try:
                await self._ask(until)
            except (RequestError, ConfigurationError) as error:
                self._warn("the credentials stay as they are: %s", error)
            if credential in self._credentials:
                self._ask_again_at = self._clock.monotonic() + PAUSE
        return credential not in self._credentials

    async def _ask(self, until: float | None) -> bool:
        task = self._asking
        if task is None:
            name = "bandwidth_mfa_async auth"
            task = self._asking = self._tasks.start(self._question(), name=name, context=contextvars.Context())
            task.add_done_callback(self._answered)
        if not await wait_until(self._clock, until, task):
            return False
        if task.cancelled():
            raise NotSentError("the client was closed before it had credentials", attempts=0, retry_stopped_by="closed")
        if (error := task.exception()) is not None:
            raise copy_of(error) if isinstance(error, RequestError) else error
        return True

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled():
            task.exception()  # otherwise asyncio logs it if every caller was cancelled

    async def _question(self) -> None:
        assert self._provider is not None  # noqa: S101 - callers check
        try:
            auth = await resolve(self._provider)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a user's function
            failure = NotSentError(f"no credentials: the auth provider raised {type(error).__name__}")
        else:
            self._install(auth)
            return
        raise failure

    def _install(self, auth: Auth) -> None:
        """Use these credentials from now on; keep the tokens of those that did not change."""
        parts = (auth.first, auth.second) if isinstance(auth, CredentialChain) else (auth,)
        if [each.auth for each in self._credentials] == list(parts):
            return
        kept = {each.kind: each for each in self._credentials}
        kinds = [each.kind for each in self._credentials]
        self._credentials = tuple(
            old if (old := kept.get(_kind(part))) is not None and old.auth == part else self._credential(part)
            for part in parts
        )
        if isinstance(auth, CredentialChain):
            self._probe_after = auth.probe_after
        if kinds == [each.kind for each in self._credentials]:
            for choice in self._choices.values():
                choice.paused_until = [0.0, 0.0]
        else:
            self._choices.clear()

    def _credential(self, auth: BasicAuth | OAuth2ClientCredentials) -> Credential:
        if isinstance(auth, BasicAuth):
            return Basic(auth)
        return OAuth2(auth, self._fetch, self._clock, self._tasks)

    def secrets(self) -> tuple[str, ...]:
        """Return the values that must not appear in any text."""
        return tuple(secret for each in self._credentials for secret in each.secrets())

    def abort(self) -> None:
        """End the question to the provider, and with an error the calls that wait for it."""
        if self._asking is not None:
            self._asking.cancel()

    async def aclose(self) -> None:
        """Cancel token requests and the question to the provider."""
        self._tasks.cancel()
        await self._tasks.wait_idle()

    def _warn(self, text: str, *args: object) -> None:
        now = self._clock.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + WARNING_INTERVAL
            _logger.warning(text, *args)


def _kind(auth: BasicAuth | OAuth2ClientCredentials) -> CredentialKind:
    return "basic" if isinstance(auth, BasicAuth) else "oauth2"


def _is_by_a_proxy(error: APIStatusError) -> bool:
    """Return whether a proxy may have rejected the request: the response has no error text of the service."""
    return error.delivery is Delivery.REJECTED and not error.error_text


async def resolve(auth: AuthOrProvider) -> Auth:
    """Return credentials; ask a provider for them.

    Raises:
        ConfigurationError: the provider returned something else.
    """
    if isinstance(auth, Auth):
        return auth
    answer = auth()
    return checked_auth(await answer if isawaitable(answer) else answer, "auth: the provider")
