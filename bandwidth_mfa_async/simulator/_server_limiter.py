"""How an account's limit decides on each send, in five models. No I/O and no clock: it is handed the time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack, get_args

from attrs import asdict, field, frozen

from ._errors import InvalidOptionError

if TYPE_CHECKING:
    from attrs import Attribute

LimitModel: TypeAlias = Literal["queue", "token_bucket", "fixed_window", "sliding_log", "per_number"]
"""How a server counts; `AccountLimits` says what each means."""


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
class AccountLimits:
    """An account's limit on one channel; as it stands, Bandwidth's default for messaging.

    1 message a second for the account, counted in segments, with a queue of 900 s
    (https://dev.bandwidth.com/docs/messaging/rateLimits). `AccountLimits.voice()` is the default for calls.

    The models, all of them counting segments (calls count 1 each):

    - `queue`: takes everything until `queue_seconds` of sending are waiting, and sends at the rate. Messaging's
      documented behaviour.
    - `token_bucket`: holds `burst` messages and refills at the rate.
    - `fixed_window`: `rate` messages in each `per` seconds by the clock, all of them at once if need be.
    - `sliding_log`: `rate` messages in any `per` seconds.
    - `per_number`: a token bucket for each number, as in "P2P 1/s per number" (support article 360014169214).

    Args:
        rate: messages per `per`, more than 0.
        per: seconds, more than 0.
        model: one of the five above.
        queue_seconds: how long a queue may grow, in seconds of sending at the rate.
        burst: what a bucket holds, in messages; None for one second of the rate, and at least 1.
        number: whose number `per_number` counts by: the sender's or the recipient's.
        retry_after: whether a 429 says in `Retry-After` when to come back, in whole seconds. Off, because Bandwidth
            documents no such header for messages.

    Raises:
        InvalidOptionError: a value is not a number, not above 0, or not one of the words above.
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
        """Return Bandwidth's default for calls: 5 a second with a queue of 5 minutes (docs/voice/rateLimits, 2022).

        Args:
            **changes: arguments of `AccountLimits` to take in place of these.
        """
        settings: dict[str, Any] = {"rate": 5.0, "queue_seconds": 300.0, **changes}
        return cls(**settings)

    @property
    def per_second(self) -> float:
        """The rate in messages a second."""
        return self.rate / self.per

    @property
    def bucket(self) -> float:
        """What a bucket holds, in messages."""
        return self.burst if self.burst is not None else max(1.0, self.per_second)

    @property
    def capacity(self) -> float:
        """How many messages the queue holds."""
        return max(1.0, self.per_second * self.queue_seconds)

    def as_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


class Admission(NamedTuple):
    """What a limit says to one send."""

    accepted: bool
    wait: float
    """Accepted: seconds in the account's queue. Refused: seconds until the same send could be accepted."""


# Sums of floats can say that there is room now although there was none a moment ago.
_MIN_WAIT = 1e-6
_ADMITTED = Admission(accepted=True, wait=0.0)


class ServerLimiter:
    """One channel's limit while the simulator runs.

    Args:
        limits: the limit; None lets everything through.
    """

    def __init__(self, limits: AccountLimits | None = None) -> None:
        self.limits = limits
        self.reset()

    def reset(self) -> None:
        """Empty the queue, the window and the log, and fill the buckets."""
        self._buckets: dict[str, tuple[float, float]] = {}
        self._log: deque[tuple[float, float]] = deque()
        self._log_weight = 0.0
        self._window = -1
        self._window_count = 0.0
        self._backlog = 0.0
        self._backlog_at = 0.0

    def change(self, limits: AccountLimits | None, now: float) -> None:
        """Put another limit in force at once.

        What stands in a queue, a bucket or a log is kept as long as the model stays the same: a step of the rate must
        not hand out a fresh burst.
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
        """Decide on one send, and count it if it is accepted.

        Args:
            now: seconds, on a clock that never goes back.
            weight: how many messages it counts as: its segments.
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
        # An empty queue takes any single message, or one of many segments could never be sent at all.
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
        # A message heavier than the bucket goes out of a full one and leaves it in debt.
        missing = min(weight, limits.bucket) - level
        if missing > 1e-9:
            return Admission(accepted=False, wait=missing / limits.per_second)
        # Re-inserted at the end, so that the front of the dict is the bucket untouched for longest.
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
