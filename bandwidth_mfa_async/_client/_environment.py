"""Reads a client's constructor arguments from environment variables."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from .._credentials import DEFAULT_TOKEN_URL, BasicAuth, OAuth2ClientCredentials
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._credentials import Auth


_IDENTIFYING: Final = ("BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET")


def settings_from_env(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the client's constructor arguments from `overrides` and, for the rest, the environment.

    `BW_ACCOUNT_ID`; `BW_USERNAME` and `BW_PASSWORD`, or `BW_CLIENT_ID` and `BW_CLIENT_SECRET` (if both are set, Basic
    is used unless `BW_AUTH=oauth2`); `BW_MFA_URL` and `BW_TOKEN_URL` for a service other than the real one.
    The names are those of Bandwidth's own samples and command-line tool.

    Raises:
        ConfigurationError: variables are missing; names all of them.
    """
    env = os.environ if environ is None else environ
    settings: dict[str, Any] = dict(overrides)
    missing: list[str] = []
    if "account_id" not in settings:
        if account_id := env.get("BW_ACCOUNT_ID"):
            settings["account_id"] = account_id
        else:
            missing.append("BW_ACCOUNT_ID")
    if "auth" not in settings:
        auth = _auth_from_env(env, missing)
        if auth is not None:
            settings["auth"] = auth
    if missing:
        msg = f"missing from the environment: {', '.join(missing)}"
        raise ConfigurationError(msg)
    if "base_url" not in settings and (base_url := env.get("BW_MFA_URL")):
        settings["base_url"] = base_url
    return settings


def _auth_from_env(env: Mapping[str, str], missing: list[str]) -> Auth | None:
    chosen = env.get("BW_AUTH", "").strip().lower()
    if chosen not in {"", "basic", "oauth2"}:
        msg = "BW_AUTH: must be 'basic' or 'oauth2'"
        raise ConfigurationError(msg)
    username, password, client_id, client_secret = (env.get(name, "") for name in _IDENTIFYING)
    has_oauth = bool(client_id and client_secret)
    if username and password and chosen != "oauth2":
        return BasicAuth(username, password)
    if has_oauth and chosen != "basic":
        token_url = env.get("BW_TOKEN_URL") or DEFAULT_TOKEN_URL
        return OAuth2ClientCredentials(client_id, client_secret, token_url)
    # Name the missing variables of the kind that is partly set; if neither is, name both kinds.
    oauth_begun = chosen == "oauth2" or (chosen != "basic" and bool(client_id or client_secret))
    basic_begun = chosen == "basic" or (chosen != "oauth2" and bool(username or password))
    pairs: list[tuple[str, str]] = []
    if basic_begun or not oauth_begun:
        pairs += [("BW_USERNAME", username), ("BW_PASSWORD", password)]
    if oauth_begun:
        pairs += [("BW_CLIENT_ID", client_id), ("BW_CLIENT_SECRET", client_secret)]
    missing.extend(name for name, value in pairs if not value)
    if not (basic_begun or oauth_begun):
        missing[-1] += " (or BW_CLIENT_ID and BW_CLIENT_SECRET)"
    return None
