"""Authentication: the API user's name and password, and bearer tokens."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from ._responses import FORBIDDEN, UNAUTHORIZED, SimulatedResponse, encode

if TYPE_CHECKING:
    import random

    from ._settings import Settings

_JWT_HEADER: Final = {"alg": "none", "typ": "JWT"}


class Credentials:
    """Checks Authorization headers and issues tokens.

    Args:
        settings: user names, secrets and the accepted kinds of credentials.
        rng: makes each token different.
    """

    def __init__(self, settings: Settings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._tokens: dict[str, float] = {}
        self.reset()
        # Nearly every request has this header, so compare it before decoding.
        self._basic = _basic(settings.username, settings.password)

    def reset(self) -> None:
        """Accept the kinds of credentials that the settings say."""
        self.accept_basic = self._settings.accept_basic
        self.accept_bearer = self._settings.accept_bearer

    def reject(self, account_id: str, authorization: str | None, now: float) -> SimulatedResponse | None:
        """Return the error response to wrong credentials, or None if they are right.

        Missing credentials get 401 and wrong ones 403, as in Bandwidth's live tests (Bandwidth/python-sdk 8bda0d4 and
        bc86bae, Bandwidth/ruby-sdk 90b8955); the errors page contradicts this. Not known: the status that MFA returns
        for a bearer token; Bandwidth staff only say that it is rejected (phoneware/bandwidth-mcp eaa2db8, 2026-06-10).
        Here it is the same as for wrong credentials.

        Args:
            account_id: the account in the path.
            authorization: the header's value, or None if it is missing.
            now: seconds on a monotonic clock.
        """
        if authorization is None:
            return SimulatedResponse(401, UNAUTHORIZED, "no Authorization header")
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "basic":
                reason = self._basic_problem(authorization)
            case "bearer":
                reason = self._bearer_problem(value.strip(), now)
                if reason and self.accept_bearer and self._settings.bad_token_status == 401:
                    return SimulatedResponse(401, UNAUTHORIZED, reason)
            case _:
                reason = "unknown authorization scheme"
        if not reason and account_id != self._settings.account_id:
            reason = "wrong account"
        return SimulatedResponse(403, FORBIDDEN, reason) if reason else None

    def _basic_problem(self, authorization: str) -> str:
        settings = self._settings
        if not self.accept_basic:
            return "Basic credentials are not accepted"
        if authorization == self._basic or decode_basic(authorization) == (settings.username, settings.password):
            return ""
        return "wrong user name or password"

    def _bearer_problem(self, token: str, now: float) -> str:
        if not self.accept_bearer:
            return "bearer tokens are not accepted"
        return "" if now < self._tokens.get(token, now) else "unknown or expired token"

    def issue_token(self, authorization: str | None, body: bytes, now: float, wall: float) -> SimulatedResponse:
        """Return the response to a client-credentials request (RFC 6749, section 4.4).

        The client authenticates with Basic and posts a form, as all of Bandwidth's SDKs do. Not known: the real
        `expires_in`; Bandwidth's SDKs assume 3600 s. The token is an unsigned JWT with an `accounts` claim, which is
        all that is known about the real one.

        Args:
            authorization: the header's value, or None if it is missing.
            body: the form.
            now: seconds on a monotonic clock.
            wall: seconds since the epoch, for the token's claims.
        """
        settings = self._settings
        if authorization is None or decode_basic(authorization) != (settings.client_id, settings.client_secret):
            error_body = encode({"error": "invalid_client"})
            return SimulatedResponse(
                401, error_body, "wrong client id or secret", {"WWW-Authenticate": 'Basic realm="oauth2"'}
            )
        try:
            form = parse_qs(body.decode("ascii"))
        except ValueError:
            form = {}
        if form.get("grant_type") != ["client_credentials"]:
            return SimulatedResponse(
                400, encode({"error": "unsupported_grant_type"}), "grant_type must be client_credentials"
            )
        claims = {
            "accounts": [settings.account_id],
            "exp": int(wall + settings.token_lifetime),
            "jti": f"{self._rng.getrandbits(128):032x}",
        }
        token = f"{_base64url(_JWT_HEADER)}.{_base64url(claims)}.{self._rng.getrandbits(256):064x}"
        self._tokens = {each: expiry for each, expiry in self._tokens.items() if expiry > now}
        self._tokens[token] = now + settings.token_lifetime
        # RFC 6749 uses whole seconds; a fractional lifetime in a test stays as it is.
        lifetime = settings.token_lifetime
        shown = int(lifetime) if lifetime == int(lifetime) else lifetime
        return SimulatedResponse(200, encode({"access_token": token, "expires_in": shown, "token_type": "Bearer"}))

    def revoke_tokens(self) -> None:
        """Revoke all issued tokens."""
        self._tokens.clear()


def decode_basic(authorization: str) -> tuple[str, str] | None:
    """Return the name and password of a Basic header (RFC 7617), or None for any other value."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _base64url(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode("ascii").rstrip("=")
