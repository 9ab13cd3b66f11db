"""What a user configures: credentials, retries, limits, and where the service is. No I/O."""

from __future__ import annotations

import base64
import enum
import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

from attrs import field, frozen

from ._redaction import Secret, hide
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from attrs import Attribute

Lane: TypeAlias = Literal["interactive", "bulk"]
"""Which queue a call waits in: a person who signs in goes before any bulk item."""

LANES: Final = ("interactive", "bulk")

DEFAULT_BASE_URL: Final = "https://mfa.bandwidth.com/api/v1"
# The only token URL Bandwidth publishes: bandwidth.yml of Bandwidth/python-sdk, since v21.1.0.
DEFAULT_TOKEN_URL: Final = "https://api.bandwidth.com/api/v1/oauth2/token"  # noqa: S105 - a URL

_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}", re.ASCII)
# What a resolver takes; more would be read differently by those who come after us. An underscore is no host name's, but
# containers have it in theirs.
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.ASCII)
_RATE = re.compile(
    r"\s*(?P<count>[0-9]+(?:\.[0-9]+)?)\s*/\s*(?P<many>[0-9]+(?:\.[0-9]+)?)?\s*(?P<unit>s|sec|second|m|min|minute|h|hour)\s*",
    re.ASCII | re.IGNORECASE,
)
_MOST: Final = 1e15
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


def _fail(name: str, rule: str) -> ConfigurationError:
    return ConfigurationError(f"{name}: {rule}")


def _number(
    *, above: float | None = None, least: float | None = None, whole: bool = False
) -> Any:  # attrs types validators as invariant in the attribute's type
    """Return an attrs validator for a finite number."""

    def check(_instance: object, attribute: Attribute[Any], value: object) -> None:
        kinds = (int,) if whole else (int, float)
        # The comparison is False for NaN, and works for integers that are too large for a float.
        if not isinstance(value, kinds) or isinstance(value, bool) or not abs(value) < _MOST:
            raise _fail(attribute.name, f"must be a finite {'whole ' if whole else ''}number")
        if above is not None and not value > above:
            raise _fail(attribute.name, f"must be greater than {above:g}")
        if least is not None and not value >= least:
            raise _fail(attribute.name, f"must be at least {least:g}")

    return check


def _secret(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, (bytes, bytearray)):
        raise _fail(attribute.name, "must be str, not bytes; decode it first: value.decode()")
    if not isinstance(value, str):
        raise _fail(attribute.name, f"must be str, not {type(value).__name__}")
    if not value:
        raise _fail(attribute.name, "must not be empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise _fail(attribute.name, "must not hold control characters, such as a trailing newline")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _fail(attribute.name, "must be text that UTF-8 can encode") from None


def _no_colon(_instance: object, attribute: Attribute[Any], value: str) -> None:
    # https://www.rfc-editor.org/rfc/rfc7617#section-2
    if ":" in value:
        raise _fail(attribute.name, "must not hold ':', which separates it from the password in Basic credentials")


def basic_header(login: str, password: str) -> str:
    """Return an Authorization header's value for HTTP Basic (RFC 7617, UTF-8)."""
    return Secret("Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii"))


def checked_url(name: str, url: object) -> str:
    """Return an http(s) URL that is safe to send credentials to, without a trailing slash.

    Raises:
        ConfigurationError: not a URL, credentials or a query in it, or plain http to a host that is not loopback.
    """
    if not isinstance(url, str):
        raise _fail(name, f"must be str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        # An IPv6 address must be all that stands between the brackets and the port.
        bracketed = bool(re.fullmatch(r"(.*@)?\[[^\[\]]+\](:[0-9]*)?", parts.netloc))
        host_is_whole = bracketed or "[" not in parts.netloc
        (host or "").encode("ascii", "ignore").decode("idna")  # an xn-- form that stands for nothing
    except ValueError:
        raise _fail(name, "is not a URL; write it like https://mfa.bandwidth.com/api/v1") from None
    if not url.isascii() or not host_is_whole:
        raise _fail(name, "is not a URL in ASCII; write a foreign host name in its xn-- form")
    if parts.scheme not in {"http", "https"} or not host:
        raise _fail(name, "must begin with https:// and name a host, like https://mfa.bandwidth.com/api/v1")
    if parts.username is not None or parts.password is not None:
        raise _fail(name, "must not hold credentials; pass them as auth=")
    if not bracketed and not _HOST.fullmatch(host):
        raise _fail(
            name, "must name a host by letters, digits, '-', '_' and '.', like https://mfa.bandwidth.com/api/v1"
        )
    # By their marks: an empty query or fragment would take in the path that is added to the URL.
    if "?" in url or "#" in url or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise _fail(name, "must not hold a query, a fragment, white space or control characters")
    if parts.scheme == "http" and not is_loopback(host):
        raise _fail(name, "must be https:// - plain http would show the credentials to the network (loopback excepted)")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_account_id(account_id: object) -> str:
    """Return an account id that can stand in a URL path.

    Raises:
        ConfigurationError: empty, not a string, or with characters that would change the path.
    """
    if not isinstance(account_id, str):
        raise _fail("account_id", f"must be str, not {type(account_id).__name__}")
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise _fail("account_id", "must be 1 to 64 letters, digits, '-', '_', '~' or '.', like '9900000'")
    return account_id


@frozen
class BasicAuth:
    """A Dashboard API user's name and password, both case-sensitive.

    Bandwidth has announced that API users end on 2026-12-02
    (https://dev.bandwidth.com/docs/account/credentials/management); `OAuth2ClientCredentials` is the successor.

    Raises:
        ConfigurationError: empty, bytes, with control characters, or a ':' in the user name.
    """

    username: str = field(repr=hide, validator=[_secret, _no_colon])
    password: str = field(repr=hide, validator=_secret)

    @property
    def header(self) -> str:
        """The Authorization header's value; a secret."""
        return basic_header(self.username, self.password)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that must not be shown."""
        return (self.username, self.password, self.header.partition(" ")[2])


def _check_token_url(_instance: object, attribute: Attribute[Any], value: object) -> None:
    checked_url(attribute.name, value)


@frozen
class OAuth2ClientCredentials:
    """A client id and secret, exchanged for a bearer token that all calls of a client share.

    MFA was seen to refuse such tokens in June 2026 (Bandwidth staff, repository phoneware/bandwidth-mcp, commit
    eaa2db8); whether it accepts them now is not documented.

    Args:
        client_id: the OAuth2 client's id.
        client_secret: one of its secrets.
        token_url: where tokens are fetched.

    Raises:
        ConfigurationError: empty, bytes, with control characters, a ':' in the client id, or a token URL that is
            not https (loopback excepted).
    """

    client_id: str = field(repr=hide, validator=[_secret, _no_colon])
    client_secret: str = field(repr=hide, validator=_secret)
    token_url: str = field(default=DEFAULT_TOKEN_URL, validator=_check_token_url)

    @property
    def header(self) -> str:
        """The token request's Authorization header; a secret."""
        return basic_header(self.client_id, self.client_secret)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that must not be shown, tokens excepted."""
        return (self.client_id, self.client_secret, self.header.partition(" ")[2])


Auth: TypeAlias = BasicAuth | OAuth2ClientCredentials


class Resend(enum.Enum):
    """After which outcomes a send is repeated; the API has no idempotency key, so this is a choice."""

    NEVER_TWICE = "never_twice"
    """Only when nothing can have been sent: not sent, or 429."""
    REJECTED = "rejected"
    """The same, and 408, 425 and every 5xx, which Bandwidth documents as not billed
    (https://dev.bandwidth.com/docs/mfa/errors)."""
    AT_LEAST_ONCE = "at_least_once"
    """The same, and unknown outcomes: a person may get two codes, and both work."""

    def __repr__(self) -> str:
        return f"Resend.{self.name}"


def _resend(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Resend):
        raise _fail(attribute.name, "must be a Resend member: NEVER_TWICE, REJECTED or AT_LEAST_ONCE")


@frozen
class RetryPolicy:
    """How often, how long and after what a call is tried again. All durations are seconds.

    Args:
        max_attempts: tries in all, at least 1.
        wait_initial: the first backoff's upper bound; each further one doubles it.
        wait_max: the longest backoff.
        timeout: the whole call: waiting for limits, slots and tokens, attempts and backoffs; in the bulk lane from the
            first permit on.
        attempt_timeout: one attempt, from its connection to the last byte of its answer.
        connect_timeout: making a connection, TLS included, within an attempt.
        max_retry_after: a longer `Retry-After` is not waited for: the error is raised at once.
        resend: after which outcomes a send is repeated.

    Raises:
        ConfigurationError: a value is not a number or out of its range.
    """

    max_attempts: int = field(default=3, validator=_number(least=1, whole=True))
    wait_initial: float = field(default=0.5, validator=_number(least=0))
    wait_max: float = field(default=8.0, validator=_number(least=0))
    timeout: float = field(default=60.0, validator=_number(above=0))
    attempt_timeout: float = field(default=30.0, validator=_number(above=0))
    connect_timeout: float = field(default=5.0, validator=_number(above=0))
    max_retry_after: float = field(default=60.0, validator=_number(least=0))
    resend: Resend = field(default=Resend.REJECTED, validator=_resend)


@frozen
class Rate:
    """So many messages in so many seconds.

    Args:
        count: messages (segments, where a text needs several), more than 0.
        per: seconds, more than 0.

    Raises:
        ConfigurationError: a value is not a number or not above 0, or their quotient is too small or large for one.
    """

    count: float = field(validator=_number(above=0))
    per: float = field(default=1.0, validator=_number(above=0))

    def __attrs_post_init__(self) -> None:
        # The quotient of two sound numbers may still come out as 0 or infinity.
        if not 0 < self.per_second < _MOST:
            msg = f"count / per: must be a number of messages a second above 0 and below {_MOST:g}"
            raise ConfigurationError(msg)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Return the rate that a text such as ``"5/s"``, ``"60/m"`` or ``"1000/h"`` names.

        Raises:
            ConfigurationError: the text is not of that form.
        """
        match = _RATE.fullmatch(str(text))
        if match is None:
            raise _fail("rate", "must look like '5/s', '60/m' or '1000/h'")
        unit = _UNIT_SECONDS[match["unit"][0].lower()]
        return cls(float(match["count"]), per=float(match["many"] or 1) * unit)

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self.count / self.per

    def __str__(self) -> str:
        return f"{self.count:g}/{self.per:g}s"


def rate_for(name: str, value: Rate | str | None) -> Rate | None:
    """Return a rate that may be written as a text.

    Raises:
        ConfigurationError: the text is not of the form that `Rate.parse` reads; begins with the name.
    """
    if not isinstance(value, str):
        return value
    try:
        return Rate.parse(value)
    except ConfigurationError as error:
        raise _fail(name, str(error).removeprefix("rate: ")) from None


def _to_rate(value: Rate | str | None) -> Rate | None:
    return rate_for("rate", value)


def _to_voice_rate(value: Rate | str | None) -> Rate | None:
    return rate_for("voice_rate", value)


def _flag(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise _fail(attribute.name, f"must be True or False, not {type(value).__name__}")


def _optional_rate(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Rate):
        raise _fail(attribute.name, "must be a Rate, a text like '60/m', or None")


def _optional_text(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise _fail(attribute.name, f"must be str or None, not {type(value).__name__}")


def _sharing(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(getattr(value, "limiter", None)):
        raise _fail(attribute.name, "must be RedisLimits(url, key=account_id), or None")


class Sharing(Protocol):
    """What `Limits.shared` holds, such as `RedisLimits`: it makes the limiter of a channel."""

    @property
    def limiter(self) -> Callable[..., object]:
        """Return the limiter of a channel for one client."""
        ...


@frozen
class Limits:
    """How fast and how wide a client may send.

    Args:
        rate: the account's messaging limit: a ceiling that is never probed beyond; a `Rate` or a text like
            ``"60/m"``. Counted in segments.
        voice_rate: the same for voice calls.
        adaptive: learn the limit from 429 answers.
        max_in_flight: attempts under way at once.
        shared: `RedisLimits`, for a limiter that several processes share; None for one of this client's own.
        application_name: what ``{NAME}`` stands for in messages (set at Bandwidth), to count segments exactly.

    Raises:
        ConfigurationError: a value has the wrong type or is out of its range.
    """

    rate: Rate | None = field(default=None, converter=_to_rate, validator=_optional_rate)
    voice_rate: Rate | None = field(default=None, converter=_to_voice_rate, validator=_optional_rate)
    adaptive: bool = field(default=True, validator=_flag)
    max_in_flight: int = field(default=100, validator=_number(least=1, whole=True))
    shared: Sharing | None = field(default=None, validator=_sharing)
    application_name: str | None = field(default=None, validator=_optional_text)


_IDENTIFYING: Final = ("BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET")


def settings_from_env(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the client's constructor arguments as the environment and `overrides` give them.

    `BW_ACCOUNT_ID`; `BW_USERNAME` and `BW_PASSWORD`, or `BW_CLIENT_ID` and `BW_CLIENT_SECRET` (Basic wins when both
    are there, unless `BW_AUTH=oauth2`); `BW_MFA_URL` and `BW_TOKEN_URL` where the service is not the real one.
    The names are those of Bandwidth's own samples and command-line tool.

    Raises:
        ConfigurationError: names every variable that is missing.
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
    # Name what is missing of the kind that was begun; with neither begun, both ways are open.
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
