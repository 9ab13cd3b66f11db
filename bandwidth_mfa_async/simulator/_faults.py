"""Injected faults, and the rules that select the responses they apply to."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from attrs import Factory, field, fields, frozen

from bandwidth_mfa_async._concise import ConciseType

from ._errors import InvalidFaultError, drops_traceback
from ._responses import encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from attrs import Attribute

Drop: TypeAlias = Literal["before_read", "after_read", "half_answer"]
"""When to close a connection."""
Operation: TypeAlias = Literal["messaging", "voice", "verify", "token"]
"""The four operations of the service."""

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[^\r\n\0]*")


def _to_headers(value: Any) -> dict[str, str]:
    try:
        return {name: item if isinstance(item, str) else format(item, "g") for name, item in dict(value).items()}
    except (TypeError, ValueError):
        raise InvalidFaultError("headers must map names to text or numbers") from None


def _to_body(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (dict, list)):
        return encode(value)
    raise InvalidFaultError("body must be bytes, text, a dict or list to send as JSON, or None for the documented body")


def _default_accepted(fault: Fault) -> bool:
    if fault.drop == "before_read" or (isinstance(fault.status, int) and fault.status >= 300):
        return False
    # A 2xx without a body sends the real response; a 2xx with a body replaces it.
    if fault.drop is not None or fault.truncate or fault.status is None:
        return True
    return fault.body is None


def _seconds(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        msg = f"{attribute.name} must be a number of seconds, at least 0"
        raise InvalidFaultError(msg)


@frozen(kw_only=True)
class Fault(metaclass=ConciseType):
    """A change to one response.

    Args:
        status: the status of the response; None keeps the real one.
        headers: headers to add or to replace, such as ``{"Retry-After": 2}``.
        body: the body of the response: bytes, text, or a dict to send as JSON. None sends the body that is documented
            for `status`, or the real one if `status` is None or a success. For 502, 503, 504 and others none is
            documented: the body is then empty, as a gateway's, and the client reports ``UNKNOWN``. An error of the
            service itself needs a body: ``Fault(status=503, body={"error": "Internal Error"})``.
        delay: seconds before the response is sent or the connection is closed; `math.inf` to never respond.
        seconds_per_byte: sends the body one byte at a time, with this many seconds between bytes.
        drop: closes the connection: "before_read" before the body is read, "after_read" after it, "half_answer" after
            half of the response's bytes, headers included.
        truncate: sends the Content-Length of the whole body, but only half of the body.
        accepted: whether the request is processed first, so that its message is in the inbox although the client sees
            a fault. The client cannot know about that message, so a retry sends a duplicate. False by default with
            `drop="before_read"`, with a status of 300 or higher, and for a success with a `body`; otherwise True.

    Raises:
        InvalidFaultError: a value is out of range, or two values contradict each other.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(factory=dict[str, str], converter=_to_headers)
    body: bytes | None = field(default=None, converter=_to_body)
    delay: float = field(default=0.0, validator=_seconds)
    seconds_per_byte: float = field(default=0.0, validator=_seconds)
    drop: Drop | None = None
    truncate: bool = False
    accepted: bool = field(default=Factory(_default_accepted, takes_self=True))

    def __attrs_post_init__(self) -> None:
        for is_contradiction, reason in self._contradictions():
            if is_contradiction:
                raise InvalidFaultError(reason)

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        status: Any = self.status
        drop: Any = self.drop
        whole = isinstance(status, int) and not isinstance(status, bool)
        silent = drop in {"before_read", "after_read"}
        names, values = self.headers.keys(), self.headers.values()
        return (
            (status is not None and not (whole and 200 <= status <= 599), "status must be from 200 to 599"),
            (not all(_HEADER_NAME.fullmatch(str(n)) for n in names), "headers: a name is not a valid header name"),
            (
                not all(_HEADER_VALUE.fullmatch(value) for value in values),
                "headers: a value contains a line break or a NUL",
            ),
            (drop is not None and drop not in get_args(Drop), f"drop must be one of {', '.join(get_args(Drop))}"),
            (not isinstance(self.accepted, bool), "accepted must be True or False"),
            (not isinstance(self.truncate, bool), "truncate must be True or False"),
            (math.isinf(self.seconds_per_byte), "seconds_per_byte must be finite; use delay=math.inf"),
            (
                silent and (status is not None or self.body is not None or bool(self.headers)),
                "a connection that closes before the response has no status, headers or body",
            ),
            (
                drop == "before_read" and self.accepted,
                "drop='before_read' and accepted=True exclude each other: the request is not read",
            ),
            (
                bool(drop) + self.truncate + bool(self.seconds_per_byte) > 1,
                "drop, truncate and seconds_per_byte exclude each other",
            ),
            (self.truncate and self.body == b"", "an empty body cannot be truncated"),
            ((self.truncate or bool(self.seconds_per_byte)) and status in {204, 304}, "204 and 304 have no body"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, for the JSON API."""
        shown: dict[str, Any] = {"accepted": self.accepted}
        for attribute in fields(Fault):
            value = getattr(self, attribute.name)
            if attribute.name in {"accepted", "headers"} or value == attribute.default:
                continue
            shown[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if self.headers:
            shown["headers"] = dict(self.headers)
        if math.isinf(self.delay):
            shown["delay"] = "forever"
        return shown

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """Return the fault that a JSON object describes; its keys are the argument names, and delay may be "forever".

        Raises:
            InvalidFaultError: the value is not an object, a name is unknown, or `Fault` does not accept a value.
        """
        known = {attribute.name for attribute in fields(cls)}
        if not isinstance(value, dict) or not value.keys() <= known:
            msg = f"a fault is an object with some of {', '.join(sorted(known))}"
            raise InvalidFaultError(msg)
        document = dict(cast("dict[str, Any]", value))
        if document.get("delay") == "forever":
            document["delay"] = math.inf
        return cls(**document)


@frozen
class Rule:
    """A fault and the responses it applies to: the next match, or each match with a probability."""

    fault: Fault
    operation: Operation | None
    to: str | None
    probability: float | None = None
    id: int = 0
    """Identifies the rule, for `Faults.remove`."""

    def matches(self, operation: str, to: str | None) -> bool:
        """Return whether the rule applies to a response."""
        return (self.operation is None or self.operation == operation) and (self.to is None or self.to == to)

    def as_json(self) -> dict[str, Any]:
        """Return the rule as the JSON API shows it."""
        return {
            "id": self.id,
            "fault": self.fault.as_json(),
            "operation": self.operation,
            "to": self.to,
            "share": self.probability,
        }


class Faults:
    """The active scripted and random faults. Scripted faults take precedence.

    Args:
        rng: makes the random decisions.
    """

    def __init__(self, rng: random.Random) -> None:
        self.on_change: Callable[[], object] | None = None
        self._rng = rng
        self._ids = itertools.count(1)
        self._scripted_rules: list[Rule] = []
        self._random_rules: list[Rule] = []

    def __bool__(self) -> bool:
        return bool(self._scripted_rules or self._random_rules)

    @property
    def rules(self) -> list[Rule]:
        """The scripted rules that are left, then the random ones."""
        return [*self._scripted_rules, *self._random_rules]

    @drops_traceback
    def script(self, *faults: Fault, operation: Operation | None = None, to: str | None = None) -> None:
        """Apply these faults to the next responses, one each, in order.

        Args:
            faults: the faults of the next responses.
            operation: apply them only to "messaging", "voice", "verify" or "token".
            to: apply them only to requests with this number.

        Raises:
            InvalidFaultError: the operation is unknown, or `to` is set for a fault that applies before the number is
                read.
        """
        self._scripted_rules.extend([self._make_rule(fault, operation, to) for fault in faults])
        self._notify()

    @drops_traceback
    def chance(
        self, fault: Fault, probability: float, operation: Operation | None = None, to: str | None = None
    ) -> None:
        """Apply a fault to random responses; the simulator's `seed` makes them repeatable.

        All random faults use one draw per response, so probabilities add up: 0.1 and 0.05 make 0.15 in total.

        Args:
            fault: the fault.
            probability: from 0 to 1; 0 has no effect.
            operation: apply it only to this operation.
            to: apply it only to requests with this number.

        Raises:
            InvalidFaultError: the probability is out of range, the probabilities of an operation add up to more than
                1, or as for `script`.
        """
        rule = self._make_rule(fault, operation, to, probability)
        rules = [*self._random_rules, rule]
        numbers = {None, *(each.to for each in rules)}
        for kind in get_args(Operation):
            for number in numbers:
                total = sum(each.probability or 0 for each in rules if each.matches(kind, number))
                if total > 1 + 1e-9:
                    msg = f"the probabilities for {kind} add up to {total:g}, more than 1; clear() the earlier faults"
                    raise InvalidFaultError(msg)
        self._random_rules.append(rule)
        self._notify()

    def clear(self) -> None:
        """Remove all scripted and random faults."""
        self._scripted_rules.clear()
        self._random_rules.clear()
        self._notify()

    def remove(self, *ids: int) -> bool:
        """Remove rules by their `id`, and return whether there was one of them."""
        count = len(self.rules)
        self._scripted_rules = [rule for rule in self._scripted_rules if rule.id not in ids]
        self._random_rules = [rule for rule in self._random_rules if rule.id not in ids]
        self._notify()
        return len(self.rules) < count

    def needs_number(self, operation: str) -> bool:
        """Return whether `pick` needs the recipient."""
        return any(rule.to is not None and rule.operation in {None, operation} for rule in self.rules)

    def pick(self, operation: str, to: str | None) -> Fault | None:
        """Return the fault of one response, or None; a scripted fault is removed."""
        for index, rule in enumerate(self._scripted_rules):
            if rule.matches(operation, to):
                del self._scripted_rules[index]
                self._notify()
                return rule.fault
        random_rules = [rule for rule in self._random_rules if rule.matches(operation, to)]
        if not random_rules:
            return None
        draw = self._rng.random()
        for rule in random_rules:
            draw -= rule.probability or 0.0
            if draw < 0:
                return rule.fault
        return None

    def _notify(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _make_rule(self, fault: Any, operation: Any, to: Any, probability: Any = None) -> Rule:
        if not isinstance(fault, Fault):
            raise InvalidFaultError("a fault must be a Fault")
        if operation is not None and operation not in get_args(Operation):
            msg = f"operation must be one of {', '.join(get_args(Operation))}"
            raise InvalidFaultError(msg)
        if to is not None and not isinstance(to, str):
            raise InvalidFaultError("to must be a phone number, or None for all numbers")
        if to is not None and fault.drop == "before_read":
            raise InvalidFaultError("to cannot be combined with drop='before_read': the number is not read")
        if to is not None and operation == "token":
            raise InvalidFaultError("to cannot be combined with operation='token': a token request has no number")
        if probability is not None and (
            isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1
        ):
            raise InvalidFaultError("probability must be from 0 to 1")
        return Rule(fault, operation, to, probability, next(self._ids))
