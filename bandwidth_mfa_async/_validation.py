"""Argument checks, whose `ConfigurationError` begins with the name of the argument.

The functions with the signature ``(instance, attribute, value)`` are attrs validators.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from ._redaction import is_printable
from .errors import ConfigurationError

if TYPE_CHECKING:
    from attrs import Attribute


Lane: TypeAlias = Literal["interactive", "bulk"]
"""The queue in which a call waits. An interactive call goes before every bulk item."""
LANES: Final = ("interactive", "bulk")
Channel: TypeAlias = Literal["messaging", "voice"]
"""How a code reaches the person: as a text or as a voice call."""
CHANNELS: Final = ("messaging", "voice")
_ACCOUNT_ID = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,63}", re.ASCII)
# What resolvers accept; aiohttp, proxies and servers may parse anything else differently. Underscores are invalid in
# host names but common in the names of containers.
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.ASCII)
MAX_NUMBER: Final = 1e15
"""Exclusive upper bound of every number in the settings."""
MAX_SECONDS: Final = 1e9
"""Exclusive upper bound of every duration; 31 years."""


def configuration_error(name: str, rule: str) -> ConfigurationError:
    """Return the error for an argument that breaks a rule.

    Args:
        name: name of the argument, as the user typed it.
        rule: the rule in plain English, without the value.
    """
    return ConfigurationError(f"{name}: {rule}")


def number(
    *, minimum: float | None = None, exclusive: bool = False, whole: bool = False
) -> Any:  # attrs types validators as invariant in the attribute's type
    """Return an attrs validator for a finite number.

    Args:
        minimum: lower bound; None for no lower bound.
        exclusive: whether `minimum` itself is invalid.
        whole: whether the number must be an integer.
    """

    def check(_instance: object, attribute: Attribute[Any], value: object) -> None:
        kinds = (int,) if whole else (int, float)
        # This comparison is False for NaN and also works for integers too large for a float.
        if not isinstance(value, kinds) or isinstance(value, bool) or not abs(value) < MAX_NUMBER:
            raise configuration_error(attribute.name, f"must be a finite {'whole ' if whole else ''}number")
        if minimum is None:
            return
        if exclusive and not value > minimum:
            raise configuration_error(attribute.name, f"must be greater than {minimum:g}")
        if not value >= minimum:
            raise configuration_error(attribute.name, f"must be at least {minimum:g}")

    return check


def secret_text(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Check that a credential is a non-empty str without control characters. The errors never contain the value.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, (bytes, bytearray)):
        raise configuration_error(attribute.name, "must be str, not bytes; decode it first: value.decode()")
    if not isinstance(value, str):
        raise configuration_error(attribute.name, f"must be str, not {type(value).__name__}")
    if not value:
        raise configuration_error(attribute.name, "must not be empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise configuration_error(attribute.name, "must not hold control characters, such as a trailing newline")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise configuration_error(attribute.name, "must be text that UTF-8 can encode") from None


def checked_url(name: str, url: object) -> str:
    """Return an http(s) URL to which credentials may be sent, without trailing slashes.

    Args:
        name: name of the argument, for the error.
        url: the value to check.

    Raises:
        ConfigurationError: it is not a URL, contains credentials, a query or a fragment, or is plain http to a host
            that is not loopback.
    """
    if not isinstance(url, str):
        raise configuration_error(name, f"must be str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
        # With brackets, the host must be an IPv6 address and nothing else before the port.
        bracketed = bool(re.fullmatch(r"(.*@)?\[[^\[\]]+\](:[0-9]*)?", parts.netloc))
        host_is_whole = bracketed or "[" not in parts.netloc
        (host or "").encode("ascii", "ignore").decode("idna")  # raises for an invalid xn-- form
    except ValueError:
        raise configuration_error(name, "is not a URL; write it like https://mfa.bandwidth.com/api/v1") from None
    if not url.isascii() or not host_is_whole:
        raise configuration_error(name, "is not a URL in ASCII; write a foreign host name in its xn-- form")
    if parts.scheme not in {"http", "https"} or not host:
        raise configuration_error(
            name, "must begin with https:// and name a host, like https://mfa.bandwidth.com/api/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise configuration_error(name, "must not hold credentials; pass them as auth=")
    if not bracketed and not _HOST.fullmatch(host):
        raise configuration_error(
            name, "must name a host by letters, digits, '-', '_' and '.', like https://mfa.bandwidth.com/api/v1"
        )
    # Search for '?' and '#' themselves: even an empty query or fragment would swallow the path appended to the URL.
    if "?" in url or "#" in url or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise configuration_error(name, "must not hold a query, a fragment, white space or control characters")
    if parts.scheme == "http" and not is_loopback(host):
        raise configuration_error(
            name, "must be https:// - plain http would show the credentials to the network (loopback excepted)"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is a loopback one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_account_id(account_id: object) -> str:
    """Return an account id that is safe to use as a segment of a URL path.

    Raises:
        ConfigurationError: it is not a str, is empty or longer than 64 characters, or contains characters that would
            change the path.
    """
    if not isinstance(account_id, str):
        raise configuration_error("account_id", f"must be str, not {type(account_id).__name__}")
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise configuration_error("account_id", "must be 1 to 64 letters, digits, '-', '_', '~' or '.', like '9900000'")
    return account_id


def flag(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Check that a value is a bool.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, bool):
        raise configuration_error(attribute.name, f"must be True or False, not {type(value).__name__}")


def optional_text(_instance: object, attribute: Attribute[Any], value: object) -> None:
    """Check that a value is a str or None.

    Raises:
        ConfigurationError: it is neither.
    """
    if value is not None and not isinstance(value, str):
        raise configuration_error(attribute.name, f"must be str or None, not {type(value).__name__}")


def checked_lane(lane: object) -> None:
    """Check that a value is a `Lane`.

    Raises:
        ConfigurationError: it is neither ``"interactive"`` nor ``"bulk"``.
    """
    if lane not in LANES:
        raise ConfigurationError("lane: must be 'interactive' or 'bulk'")


def checked_channel(channel: object) -> None:
    """Check that a value is a `Channel`.

    Raises:
        ConfigurationError: it is neither ``"messaging"`` nor ``"voice"``.
    """
    if channel not in CHANNELS:
        raise ConfigurationError("channel: must be 'messaging' or 'voice'")


def checked_count(name: str, value: object, high: int | None = None) -> None:
    """Check that a value is a whole number of at least 1.

    Args:
        name: name of the argument, for the error.
        value: the value to check.
        high: the largest valid number; None for no bound.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (high is not None and value > high):
        rule = "of at least 1" if high is None else f"from 1 to {high}"
        raise configuration_error(name, f"must be a whole number {rule}")


def checked_seconds(name: str, value: object, *, minimum: float = 0.0, exclusive: bool = False) -> float:
    """Return a duration in seconds, below `MAX_SECONDS`.

    Args:
        name: name of the argument, for the error.
        value: the value to check.
        minimum: lower bound.
        exclusive: whether `minimum` itself is invalid.

    Raises:
        ConfigurationError: it is not a number, or out of bounds.
    """
    seconds = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not minimum <= seconds < MAX_SECONDS or (exclusive and seconds == minimum):
        bound = f"above {minimum:g}" if exclusive else f"of at least {minimum:g}"
        raise configuration_error(name, f"must be a number of seconds {bound}")
    return float(seconds)


def checked_name(name: str, value: object, longest: int = 100, example: str = "launch") -> str:
    """Return a name that a Redis key may contain.

    Args:
        name: name of the argument, for the error.
        value: the value to check.
        longest: maximum number of characters.
        example: a valid name, for the error.

    Raises:
        ConfigurationError: it is not a text, is too long, or contains what a Redis key may not.
    """
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise configuration_error(name, f"must be a text of 1 to {longest} characters, like {example!r}")
    if not is_printable(value) or any(char in "{} " for char in value):
        raise configuration_error(name, "must not contain braces, blanks or control characters")
    return value
