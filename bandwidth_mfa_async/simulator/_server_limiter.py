"""The account's rate limit, in five models."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, get_args

from attrs import asdict, field, frozen

from bandwidth_mfa_async._concise import ConciseType

from ._errors import InvalidOptionError

if TYPE_CHECKING:
    from attrs import Attribute

LimitModel: TypeAlias = Literal["queue", "token_bucket", "fixed_window", "sliding_log", "per_number"]
"""How a server counts messages; see `AccountLimits`."""


def _positive(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
        msg = f"{attribute.name} must be a finite number above 0"
        raise InvalidOptionError(msg)


def _optional_positive(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        _positive(instance, attribute, value)


class _Changes(TypedDict, total=False):
    rate: float
    per: float
    model: LimitModel
    queue_seconds: float
    burst: float | None
    number: Literal["from", "to"]
    retry_after: bool


@frozen(kw_only=True)
class AccountLimits(metaclass=ConciseType):
    """An account's limit on one channel. The defaults are Bandwidth's for messaging.

    These are 1 message per second for the account, counted in segments, with a queue of 900 s
    (https://dev.bandwidth.com/docs/messaging/rateLimits). `AccountLimits.voice()` is the default for calls.

    The models count segments; a call counts as 1:

    - `queue`: accepts messages until the queue holds `queue_seconds` of sending, and sends at the rate. This is
      Messaging's documented behaviour.
    - `token_bucket`: holds `burst` messages and refills at the rate.
    - `fixed_window`: `rate` messages in each `per` seconds of the clock, possibly all at once.
    - `sliding_log`: `rate` messages in any `per` seconds.
    - `per_number`: one token bucket per number, as in "P2P 1/s per number" (support article 360014169214).

    Args:
        rate: messages per `per`, more than 0.
        per: seconds, more than 0.
        model: one of the five models.
        queue_seconds: the capacity of the queue, in seconds of sending at the rate.
        burst: the capacity of a bucket, in messages; None for one second of the rate, but at least 1.
        number: whether `per_number` counts by the sender's or the recipient's number.
        retry_after: whether a 429 has a `Retry-After` in whole seconds. False by default, because Bandwidth documents
            no such header for messages.

    Raises:
        InvalidOptionError: a number is not finite or not above 0, or another value is not one of those listed.
    """

    rate: float = field(default=1.0, validator=_positive)
    per: float = field(default=1.0, validator=_positive)
    model: LimitModel = "queue"
    queue_seconds: float = field(default=900.0, validator=_positive)
    burst: float | None = field(default=None, validator=_optional_positive)
    number: Literal["from", "to"] = "from"
    retry_after: bool = False

    def __attrs_post_init__(self) -> None:
        if self.model not in get_args(LimitModel):
            msg = f"model must be one of {', '.join(get_args(LimitModel))}"
            raise InvalidOptionError(msg)
        if self.number not in {"from", "to"}:
            raise InvalidOptionError("number must be 'from' or 'to'")
        if not isinstance(self.retry_after, bool):
            raise InvalidOptionError("retry_after must be True or False")

    @classmethod
    def voice(cls, **changes: Unpack[_Changes]) -> AccountLimits:
        """Return Bandwidth's default for calls: 5 per second with a queue of 5 minutes (docs/voice/rateLimits, 2022).

        Args:
            **changes: arguments of `AccountLimits` that replace these.
        """
        settings: dict[str, Any] = {"rate": 5.0, "queue_seconds": 300.0, **changes}
        return cls(**settings)

    @property
    def per_second(self) -> float:
        """The rate in messages per second."""
        return self.rate / self.per

    @property
    def bucket(self) -> float:
        """The capacity of a bucket, in messages."""
        return self.burst if self.burst is not None else max(1.0, self.per_second)

    @property
    def capacity(self) -> float:
        """The capacity of the queue, in messages."""
        return max(1.0, self.per_second * self.queue_seconds)

    def as_json(self) -> dict[str, Any]:
        """Return the limit as the JSON API shows it."""
        return asdict(self)


class Admission(NamedTuple):
    """The decision about one send."""

    accepted: bool
    wait: float
    """If accepted: seconds in the account's queue. If rejected: seconds until the same send can be accepted."""


# Rounding of floats can make the computed wait 0 or less although the send was just rejected.
_MIN_WAIT = 1e-6
_ADMITTED = Admission(accepted=True, wait=0.0)


class ServerLimiter:
    """The limiter of one channel.

    Args:
        limits: the limit; None for no limit.
    """

    def __init__(self, limits: AccountLimits | None = None) -> None:
        self.limits = limits
        self.reset()

    def reset(self) -> None:
        """Clear the queue, the window and the log, and fill the buckets."""
        self._buckets: dict[str, tuple[float, float]] = {}
        self._log: deque[tuple[float, float]] = deque()
        self._log_weight = 0.0
        self._window = -1
        self._window_count = 0.0
        self._backlog = 0.0
        self._backlog_at = 0.0

    def change(self, limits: AccountLimits | None, now: float) -> None:
        """Change the limit immediately.

        The content of a queue, bucket or log stays if the model stays the same: a change of the rate must not grant a
        new burst.
        """
        if self.limits is None or limits is None or limits.model != self.limits.model:
            self.limits = limits
            self.reset()
            return
        if limits.model == "queue":
            self._drain(self.limits, now)
        for name in self._buckets if limits.model in {"token_bucket", "per_number"} else ():
            self._buckets[name] = (min(self._bucket_level(self.limits, name, now), limits.bucket), now)
        self.limits = limits

    def admit(self, now: float, weight: float = 1, from_: str = "", to: str = "") -> Admission:
        """Decide about one send, and count it if it is accepted.

        Args:
            now: seconds on a monotonic clock.
            weight: the number of its segments.
            from_: the sender's number.
            to: the recipient's number.
        """
        limits = self.limits
        if limits is None:
            return _ADMITTED
        match limits.model:
            case "queue":
                return self._admit_queue(limits, now, weight)
            case "token_bucket":
                return self._admit_bucket(limits, "", now, weight)
            case "per_number":
                return self._admit_bucket(limits, from_ if limits.number == "from" else to, now, weight)
            case "fixed_window":
                return self._admit_window(limits, now, weight)
            case "sliding_log":
                return self._admit_log(limits, now, weight)

    def _drain(self, limits: AccountLimits, now: float) -> float:
        self._backlog = max(0.0, self._backlog - (now - self._backlog_at) * limits.per_second)
        self._backlog_at = now
        return self._backlog

    def _admit_queue(self, limits: AccountLimits, now: float, weight: float) -> Admission:
        backlog = self._drain(limits, now)
        excess = backlog + weight - limits.capacity
        # An empty queue accepts any message; otherwise one with many segments could never be sent.
        if excess > 1e-9 and backlog > 0:
            return Admission(accepted=False, wait=min(excess, backlog) / limits.per_second)
        self._backlog += weight
        return Admission(accepted=True, wait=backlog / limits.per_second)

    def _bucket_level(self, limits: AccountLimits, name: str, now: float) -> float:
        if name not in self._buckets:
            return limits.bucket
        level, then = self._buckets[name]
        return min(limits.bucket, level + (now - then) * limits.per_second)

    def _admit_bucket(self, limits: AccountLimits, name: str, now: float, weight: float) -> Admission:
        level = self._bucket_level(limits, name, now)
        # A message heavier than the bucket needs a full bucket and makes it negative.
        missing = min(weight, limits.bucket) - level
        if missing > 1e-9:
            return Admission(accepted=False, wait=missing / limits.per_second)
        # Insert at the end, so that the first bucket of the dict is the one least recently used.
        self._buckets.pop(name, None)
        self._buckets[name] = (level - weight, now)
        oldest = next(iter(self._buckets))
        if self._bucket_level(limits, oldest, now) >= limits.bucket:
            del self._buckets[oldest]
        return _ADMITTED

    def _admit_window(self, limits: AccountLimits, now: float, weight: float) -> Admission:
        window = math.floor(now / limits.per)
        if window != self._window:
            self._window, self._window_count = window, 0.0
        if self._window_count > 0 and self._window_count + weight > limits.rate:
            return Admission(accepted=False, wait=(window + 1) * limits.per - now)
        self._window_count += weight
        return _ADMITTED

    def _admit_log(self, limits: AccountLimits, now: float, weight: float) -> Admission:
        log = self._log
        while log and now - log[0][0] >= limits.per:
            self._log_weight -= log.popleft()[1]
        if log and self._log_weight + weight > limits.rate:
            return Admission(accepted=False, wait=self._wait_for_capacity(limits, now, weight))
        log.append((now, weight))
        self._log_weight += weight
        return _ADMITTED

    def _wait_for_capacity(self, limits: AccountLimits, now: float, weight: float) -> float:
        logged = self._log_weight
        for then, counted in self._log:
            logged -= counted
            if logged + weight <= limits.rate:
                return max(then + limits.per - now, _MIN_WAIT)
        return max(self._log[-1][0] + limits.per - now, _MIN_WAIT)
