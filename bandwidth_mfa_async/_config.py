"""Settings of a client: the service's URL, `RetryPolicy`, `Rate` and `Limits`."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import field, frozen

from ._concise import ConciseType
from ._validation import MAX_NUMBER, configuration_error, flag, number, optional_text
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute


DEFAULT_BASE_URL: Final = "https://mfa.bandwidth.com/api/v1"

_RATE = re.compile(
    r"\s*(?P<count>[0-9]+(?:\.[0-9]+)?)\s*/\s*(?P<multiple>[0-9]+(?:\.[0-9]+)?)?\s*(?P<unit>s|sec|second|m|min|minute|h|hour|d|day)\s*",
    re.ASCII | re.IGNORECASE,
)
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Resend(enum.Enum):
    """After which outcomes a send is repeated. The API has no idempotency key, so the application has to choose."""

    NEVER_TWICE = "never_twice"
    """Only if nothing can have been sent: `Delivery.NOT_SENT`, or status 429."""
    REJECTED = "rejected"
    """Also after 408, 425 and every 5xx, which Bandwidth documents as not billed
    (https://dev.bandwidth.com/docs/mfa/errors)."""
    AT_LEAST_ONCE = "at_least_once"
    """Also after unknown outcomes: a person may get two codes, and both work."""

    def __repr__(self) -> str:
        return f"Resend.{self.name}"


def _check_resend(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Resend):
        raise configuration_error(attribute.name, "must be a Resend member: NEVER_TWICE, REJECTED or AT_LEAST_ONCE")


@frozen
class RetryPolicy(metaclass=ConciseType):
    """Retries and timeouts of a call. All durations are in seconds.

    Args:
        max_attempts: maximum number of attempts, at least 1.
        wait_initial: upper bound of the first backoff; doubles with each further backoff.
        wait_max: upper bound of every backoff.
        timeout: the whole call: waits for limits, slots and tokens, attempts and backoffs. In the bulk lane it starts
            with the first permit.
        attempt_timeout: one attempt, from connecting to the last byte of the response.
        connect_timeout: opening a connection, including TLS, within an attempt.
        max_retry_after: if the service asks for a longer `Retry-After`, the error is raised immediately.
        resend: after which outcomes a send is repeated.

    Raises:
        ConfigurationError: a value is not a number or is out of range.
    """

    max_attempts: int = field(default=3, validator=number(minimum=1, whole=True))
    wait_initial: float = field(default=0.5, validator=number(minimum=0))
    wait_max: float = field(default=8.0, validator=number(minimum=0))
    timeout: float = field(default=60.0, validator=number(minimum=0, exclusive=True))
    attempt_timeout: float = field(default=30.0, validator=number(minimum=0, exclusive=True))
    connect_timeout: float = field(default=5.0, validator=number(minimum=0, exclusive=True))
    max_retry_after: float = field(default=60.0, validator=number(minimum=0))
    resend: Resend = field(default=Resend.REJECTED, validator=_check_resend)


@frozen
class Rate(metaclass=ConciseType):
    """A number of messages per period.

    Args:
        count: messages, more than 0; a text of several segments counts as several.
        per: the period in seconds, more than 0.

    Raises:
        ConfigurationError: a value is not a number above 0, or the rate is too small or too large for a float.
    """

    count: float = field(validator=number(minimum=0, exclusive=True))
    per: float = field(default=1.0, validator=number(minimum=0, exclusive=True))

    def __attrs_post_init__(self) -> None:
        # The quotient of two valid numbers can still be 0 or infinity.
        if not 0 < self.per_second < MAX_NUMBER:
            msg = f"count / per: must be a number of messages a second above 0 and below {MAX_NUMBER:g}"
            raise ConfigurationError(msg)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse a rate such as ``"5/s"``, ``"60/m"``, ``"1000/h"`` or ``"10/d"``.

        Raises:
            ConfigurationError: the text does not have this form.
        """
        match = _RATE.fullmatch(str(text))
        if match is None:
            raise configuration_error("rate", "must look like '5/s', '60/m', '1000/h' or '10/d'")
        unit = _UNIT_SECONDS[match["unit"][0].lower()]
        return cls(float(match["count"]), per=float(match["multiple"] or 1) * unit)

    @property
    def per_second(self) -> float:
        """Messages per second."""
        return self.count / self.per

    def __str__(self) -> str:
        return f"{self.count:g}/{self.per:g}s"


def parse_rate(name: str, value: Rate | str | None) -> Rate | None:
    """Convert a text to a `Rate`; return other values unchanged.

    Args:
        name: name of the option, for the error.
        value: a rate, a text such as ``"60/m"``, or None.

    Raises:
        ConfigurationError: `Rate.parse` cannot parse the text; the message begins with the name.
    """
    if not isinstance(value, str):
        return value
    try:
        return Rate.parse(value)
    except ConfigurationError as error:
        raise configuration_error(name, str(error).removeprefix("rate: ")) from None


def _to_rate(value: Rate | str | None) -> Rate | None:
    return parse_rate("rate", value)


def _to_voice_rate(value: Rate | str | None) -> Rate | None:
    return parse_rate("voice_rate", value)


def _check_rate(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Rate):
        raise configuration_error(attribute.name, "must be a Rate, a text like '60/m', or None")


def _check_shared(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not callable(getattr(value, "limiter", None)):
        raise configuration_error(attribute.name, "must be RedisLimits(url, key=account_id), or None")


class SharedLimits(Protocol):
    """Protocol of `Limits.shared`, such as `RedisLimits`: makes the limiter of a channel."""

    @property
    def limiter(self) -> Callable[..., object]:
        """Function that makes the limiter of one channel for one client."""
        ...


@frozen
class Limits(metaclass=ConciseType):
    """Rate limits and concurrency limit of a client.

    Args:
        rate: the account's messaging limit in segments: a `Rate` or a text like ``"60/m"``. It is a hard ceiling for
            what is written in any period of the rate (60 in any minute) and in any second (1).
        voice_rate: the same for voice calls.
        adaptive: learn the limit from 429 responses.
        max_in_flight: maximum number of concurrent attempts.
        shared: `RedisLimits` for one limiter that several processes share; None for a limiter of this client alone.
        application_name: the application's name at Bandwidth, which replaces ``{NAME}`` in messages; needed to count
            segments exactly.

    Raises:
        ConfigurationError: a value has the wrong type or is out of range.
    """

    rate: Rate | None = field(default=None, converter=_to_rate, validator=_check_rate)
    voice_rate: Rate | None = field(default=None, converter=_to_voice_rate, validator=_check_rate)
    adaptive: bool = field(default=True, validator=flag)
    max_in_flight: int = field(default=100, validator=number(minimum=1, whole=True))
    shared: SharedLimits | None = field(default=None, validator=_check_shared)
    application_name: str | None = field(default=None, validator=optional_text)
