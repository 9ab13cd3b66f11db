"""Reads a client's constructor arguments from environment variables."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .._credentials import DEFAULT_TOKEN_URL, BasicAuth, CredentialChain, OAuth2ClientCredentials
from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._credentials import Auth, AuthOrProvider


_BASIC: Final = ("BW_USERNAME", "BW_PASSWORD")
_OAUTH2: Final = ("BW_CLIENT_ID", "BW_CLIENT_SECRET")
# A secret may be in a file that is read again after a rejection, such as a mounted Kubernetes secret.
_FILES: Final = {"BW_PASSWORD": "BW_PASSWORD_FILE", "BW_CLIENT_SECRET": "BW_CLIENT_SECRET_FILE"}


def settings_from_env(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the client's constructor arguments from `overrides` and, for the rest, the environment.

    `BW_ACCOUNT_ID`; `BW_USERNAME` and `BW_PASSWORD`, `BW_CLIENT_ID` and `BW_CLIENT_SECRET`, or all four for a
    `CredentialChain` that prefers OAuth2; `BW_AUTH` (``auto``, ``basic`` or ``oauth2``) selects one kind.
    `BW_PASSWORD_FILE` and `BW_CLIENT_SECRET_FILE` name files that hold the secret and are read again after a 401 or
    403. `BW_STORE_URL`, such as ``sqlite:///codes.db`` or a Redis URL, names the store of idempotency keys.
    `BW_MFA_URL` and `BW_TOKEN_URL` are for a service other than the real one.
    The names without ``_FILE`` are those of Bandwidth's own samples and command-line tool.

    Raises:
        ConfigurationError: variables are missing; names all of them. Or a file cannot be read.
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
        auth = auth_from_env(env, missing)
        if auth is not None:
            settings["auth"] = _provider(env, auth)
    if missing:
        msg = (
            f"missing from the environment: {', '.join(missing)}; without an account, run `bandwidth-mfa simulate` and "
            "export what it prints"
        )
        raise ConfigurationError(msg)
    if "store" not in settings and (url := env.get("BW_STORE_URL")):
        from ..stores import store_from_url

        settings["store"] = store_from_url(url, name="BW_STORE_URL")
    if "base_url" not in settings and (base_url := env.get("BW_MFA_URL")):
        settings["base_url"] = base_url
    return settings


def auth_from_env(env: Mapping[str, str], missing: list[str]) -> Auth | None:
    """Return the environment's credentials, or None after adding the variables that are missing to `missing`.

    Raises:
        ConfigurationError: a value is wrong, or a file cannot be read.
    """
    chosen = env.get("BW_AUTH", "").strip().lower() or "auto"
    if chosen not in {"auto", "basic", "oauth2"}:
        raise ConfigurationError("BW_AUTH: must be 'auto', 'basic' or 'oauth2'")
    basic = oauth2 = ("", "")
    if chosen != "oauth2":
        basic = _pair(env, _BASIC)
    if chosen != "basic":
        oauth2 = _pair(env, _OAUTH2)
    password_user = BasicAuth(*basic) if all(basic) else None
    client = OAuth2ClientCredentials(*oauth2, env.get("BW_TOKEN_URL") or DEFAULT_TOKEN_URL) if all(oauth2) else None
    if client is not None and password_user is not None:
        return CredentialChain(client, password_user)
    if client is not None or password_user is not None:
        return client or password_user
    # Name the missing variables of the kind that is partly set or selected; if neither is, name both kinds.
    oauth2_begun = chosen == "oauth2" or any(oauth2)
    basic_begun = chosen == "basic" or any(basic)
    pairs: list[tuple[str, str]] = []
    if basic_begun or not oauth2_begun:
        pairs += zip(_BASIC, basic, strict=True)
    if oauth2_begun:
        pairs += zip(_OAUTH2, oauth2, strict=True)
    missing.extend(name for name, value in pairs if not value)
    if not (basic_begun or oauth2_begun):
        missing[-1] += " (or BW_CLIENT_ID and BW_CLIENT_SECRET)"
    return None


def _pair(env: Mapping[str, str], names: tuple[str, str]) -> tuple[str, str]:
    """Return a name and its secret; the secret may be in a file."""
    name, secret = names
    path = env.get(_FILES[secret], "")
    if not path:
        return env.get(name, ""), env.get(secret, "")
    if env.get(secret):
        msg = f"{secret} and {_FILES[secret]} are both set; unset one of them"
        raise ConfigurationError(msg)
    try:
        text = Path(path).read_text(encoding="utf-8-sig").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    else:
        if text:
            return env.get(name, ""), text
        reason = "it is empty"
    msg = f"{_FILES[secret]}: the file cannot be used: {reason}"
    raise ConfigurationError(msg)


def _provider(env: Mapping[str, str], auth: Auth) -> AuthOrProvider:
    """Return the credentials; if a secret is in a file, a function that reads it again."""
    if not any(env.get(name) for name in _FILES.values()):
        return auth
    variables = {name: env.get(name, "") for name in (*_BASIC, *_OAUTH2, *_FILES.values(), "BW_AUTH", "BW_TOKEN_URL")}
    first: list[Auth] = [auth]

    async def read_again() -> Auth:
        """Return the credentials that were read at construction, later those that the files hold now."""
        if first:
            return first.pop()
        changed = await asyncio.to_thread(auth_from_env, variables, [])
        assert changed is not None  # noqa: S101 - an empty file is an error
        return changed

    return read_again
