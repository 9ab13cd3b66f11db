"""What a user configures: credentials, retries, limits, and where the service is. No I/O."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import field, frozen

from ._validation import MAX_NUMBER, configuration_error, flag, number, optional_text
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from attrs import Attribute


DEFAULT_BASE_URL: Final = "https://mfa.bandwidth.com/api/v1"

_RATE = re.compile(
    r"\s*(?P<count>[0-9]+(?:\.[0-9]+)?)\s*/\s*(?P<multiple>[0-9]+(?:\.[0-9]+)?)?\s*(?P<unit>s|sec|second|m|min|minute|h|hour)\s*",
    re.ASCII | re.IGNORECASE,
)
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


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


def _check_resend(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, Resend):
        raise configuration_error(attribute.name, "must be a Resend member: NEVER_TWICE, REJECTED or AT_LEAST_ONCE")


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

    max_attempts: int = field(default=3, validator=number(minimum=1, whole=True))
    wait_initial: float = field(default=0.5, validator=number(minimum=0))
    wait_max: float = field(default=8.0, validator=number(minimum=0))
    timeout: float = field(default=60.0, validator=number(minimum=0, exclusive=True))
    attempt_timeout: float = field(default=30.0, validator=number(minimum=0, exclusive=True))
    connect_timeout: float = field(default=5.0, validator=number(minimum=0, exclusive=True))
    max_retry_after: float = field(default=60.0, validator=number(minimum=0))
    resend: Resend = field(default=Resend.REJECTED, validator=_check_resend)


@frozen
class Rate:
    """So many messages in so many seconds.

    Args:
        count: messages (segments, where a text needs several), more than 0.
        per: seconds, more than 0.

    Raises:
        ConfigurationError: a value is not a number or not above 0, or their quotient is too small or large for one.
    """

    count: float = field(validator=number(minimum=0, exclusive=True))
    per: float = field(default=1.0, validator=number(minimum=0, exclusive=True))

    def __attrs_post_init__(self) -> None:
        # The quotient of two sound numbers may still come out as 0 or infinity.
        if not 0 < self.per_second < MAX_NUMBER:
            msg = f"count / per: must be a number of messages a second above 0 and below {MAX_NUMBER:g}"
            raise ConfigurationError(msg)

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Return the rate that a text such as ``"5/s"``, ``"60/m"`` or ``"1000/h"`` names.

        Raises:
            ConfigurationError: the text is not of that form.
        """
        match = _RATE.fullmatch(str(text))
        if match is None:
            raise configuration_error("rate", "must look like '5/s', '60/m' or '1000/h'")
        unit = _UNIT_SECONDS[match["unit"][0].lower()]
        return cls(float(match["count"]), per=float(match["multiple"] or 1) * unit)

    @property
    def per_second(self) -> float:
        """Messages a second."""
        return self.count / self.per

    def __str__(self) -> str:
        return f"{self.count:g}/{self.per:g}s"


def parse_rate(name: str, value: Rate | str | None) -> Rate | None:
    """Return a rate that may be written as a text.

    Raises:
        ConfigurationError: the text is not of the form that `Rate.parse` reads; begins with the name.
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

    rate: Rate | None = field(default=None, converter=_to_rate, validator=_check_rate)
    voice_rate: Rate | None = field(default=None, converter=_to_voice_rate, validator=_check_rate)
    adaptive: bool = field(default=True, validator=flag)
    max_in_flight: int = field(default=100, validator=number(minimum=1, whole=True))
    shared: SharedLimits | None = field(default=None, validator=_check_shared)
    application_name: str | None = field(default=None, validator=optional_text)
