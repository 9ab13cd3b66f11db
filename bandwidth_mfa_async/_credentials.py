"""Credentials of a client: `BasicAuth`, `OAuth2ClientCredentials`, and both of them as a `CredentialChain`."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import field, frozen

from ._concise import ConciseType
from ._frames import init_clears_locals
from ._redaction import Secret, hide
from ._validation import checked_seconds, checked_url, configuration_error, secret_text
from .errors import ConfigurationError

if TYPE_CHECKING:
    from attrs import Attribute


# The only token URL that Bandwidth publishes: bandwidth.yml of Bandwidth/python-sdk, since v21.1.0.
DEFAULT_TOKEN_URL: Final = "https://api.bandwidth.com/api/v1/oauth2/token"  # noqa: S105 - a URL


def _check_no_colon(_instance: object, attribute: Attribute[Any], value: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc7617#section-2
    if ":" in value:
        raise configuration_error(
            attribute.name, "must not hold ':', which separates it from the password in Basic credentials"
        )


def basic_header(user: str, password: str) -> str:
    """Return the value of an Authorization header for HTTP Basic (RFC 7617, UTF-8)."""
    return Secret("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii"))


@init_clears_locals
@frozen
class BasicAuth(metaclass=ConciseType):
    """User name and password of a Dashboard API user, both case-sensitive.

    Bandwidth has announced the end of API users on 2026-12-02
    (https://dev.bandwidth.com/docs/account/credentials/management); `OAuth2ClientCredentials` is the successor.

    Raises:
        ConfigurationError: a value is empty, is bytes or contains control characters, or the user name contains ':'.
    """

    username: str = field(repr=hide, validator=[secret_text, _check_no_colon])
    password: str = field(repr=hide, validator=secret_text)

    @property
    def header(self) -> str:
        """Value of the Authorization header; a secret."""
        return basic_header(self.username, self.password)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All values that must not appear in errors and logs."""
        return (self.username, self.password, self.header.partition(" ")[2])


def _check_token_url(_instance: object, attribute: Attribute[Any], value: object) -> None:
    checked_url(attribute.name, value)


@init_clears_locals
@frozen
class OAuth2ClientCredentials(metaclass=ConciseType):
    """Client id and secret, exchanged for a bearer token that all calls of a client share.

    In June 2026 MFA rejected such tokens (Bandwidth staff, repository phoneware/bandwidth-mcp, commit eaa2db8).
    Whether it accepts them now is not documented.

    Args:
        client_id: id of the OAuth2 client.
        client_secret: one of its secrets.
        token_url: URL of the token endpoint.

    Raises:
        ConfigurationError: a value is empty, is bytes or contains control characters, the client id contains ':', or
            the token URL is not https (except on loopback).
    """

    client_id: str = field(repr=hide, validator=[secret_text, _check_no_colon])
    client_secret: str = field(repr=hide, validator=secret_text)
    token_url: str = field(default=DEFAULT_TOKEN_URL, validator=_check_token_url)

    @property
    def header(self) -> str:
        """Value of the Authorization header of the token request; a secret."""
        return basic_header(self.client_id, self.client_secret)

    @property
    def secrets(self) -> tuple[str, ...]:
        """All values except tokens that must not appear in errors and logs."""
        return (self.client_id, self.client_secret, self.header.partition(" ")[2])


@init_clears_locals
@frozen
class CredentialChain(metaclass=ConciseType):
    """Both kinds of credentials: a call that the service rejects with one kind is made with the other.

    The other kind is tried at once, and at most once a call, if nothing can have been sent: after the service's 401 or
    403, or if no token could be obtained. Never after a timeout, a 5xx or an attempt with an unknown outcome. The kind
    that worked then serves all calls of that operation (text, voice, verify).

    Args:
        first: the preferred credentials.
        second: credentials of the other kind.
        probe_after: seconds after which one call tries the preferred kind again while the other one serves.

    Raises:
        ConfigurationError: not one of each kind, or `probe_after` is not above 0.
    """

    first: BasicAuth | OAuth2ClientCredentials
    second: BasicAuth | OAuth2ClientCredentials
    probe_after: float = field(default=300.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if {type(self.first), type(self.second)} != {BasicAuth, OAuth2ClientCredentials}:
            raise ConfigurationError("CredentialChain: needs one BasicAuth and one OAuth2ClientCredentials")
        checked_seconds("probe_after", self.probe_after, exclusive=True)


Auth: TypeAlias = BasicAuth | OAuth2ClientCredentials | CredentialChain
AuthOrProvider: TypeAlias = Auth | Callable[[], Auth | Awaitable[Auth]]
"""Credentials, or a function that returns them: called before the first call and again after a 401 or 403."""


def checked_auth(auth: object, name: str = "auth") -> Auth:
    """Return the credentials.

    Args:
        auth: the value to check.
        name: what it is, for the error.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(auth, Auth):
        return auth
    raise ConfigurationError(
        f"{name}: must be BasicAuth(username, password), OAuth2ClientCredentials(...) or CredentialChain(...)"
    )
