"""Faults that tests and demos inject, and which answer gets which. No I/O."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, get_args

from attrs import Factory, field, fields, frozen

from ._errors import InvalidFaultError
from ._responses import encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from attrs import Attribute

Drop: TypeAlias = Literal["before_read", "after_read", "half_answer"]
"""When a connection is cut."""
Operation: TypeAlias = Literal["messaging", "voice", "verify", "token"]
"""The four things the service does."""

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
    raise InvalidFaultError("body must be bytes, text, something JSON can hold, or None for the documented body")


def _default_accepted(fault: Fault) -> bool:
    if fault.drop == "before_read" or (isinstance(fault.status, int) and fault.status >= 300):
        return False
    # A 2xx without a body of its own can only be the real answer; one with a body replaces it.
    if fault.drop is not None or fault.truncate or fault.status is None:
        return True
    return fault.body is None


def _seconds(_instance: object, attribute: Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        msg = f"{attribute.name} must be a number of seconds, at least 0"
        raise InvalidFaultError(msg)


@frozen(kw_only=True)
class Fault:
    """What happens to one answer instead of, or on top of, the real one.

    Args:
        status: the status to answer; None leaves the real one.
        headers: to add to the answer or to replace in it, such as ``{"Retry-After": 2}``.
        body: the body to answer: bytes, text, or a dict to be sent as JSON; None for the body that is documented for
            `status`, or the real one where `status` is None or a success.
        delay: seconds before the answer, or before the cut; `math.inf` for a server that never answers.
        seconds_per_byte: sends the body slowly, this many seconds apart.
        drop: cuts the connection: "before_read" of the body, "after_read", or "half_answer" in the middle of the bytes
            of the answer, headers counted.
        truncate: declares the whole body's Content-Length and sends half of it.
        accepted: whether the request is processed for real first, so that its message is in the inbox although the
            client sees a fault. By default it is wherever no failing status is given: that is how a user meets
            a duplicate. Not with `drop="before_read"`, nor with a status from 300 on, nor where `status` is a success
            with a `body` of its own.

    Raises:
        InvalidFaultError: a value is out of its range, or two contradict each other.
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
            (not all(_HEADER_NAME.fullmatch(str(n)) for n in names), "headers: a name is not one"),
            (not all(_HEADER_VALUE.fullmatch(value) for value in values), "headers: a value holds a line break"),
            (drop is not None and drop not in get_args(Drop), f"drop must be one of {', '.join(get_args(Drop))}"),
            (not isinstance(self.accepted, bool), "accepted must be True or False"),
            (not isinstance(self.truncate, bool), "truncate must be True or False"),
            (math.isinf(self.seconds_per_byte), "seconds_per_byte must be finite; use delay=math.inf"),
            (
                silent and (status is not None or self.body is not None or bool(self.headers)),
                "a connection cut before the answer has no status, headers or body",
            ),
            (drop == "before_read" and self.accepted, "what was never read cannot have been accepted"),
            (
                bool(drop) + self.truncate + bool(self.seconds_per_byte) > 1,
                "drop, truncate and seconds_per_byte exclude each other",
            ),
            (self.truncate and self.body == b"", "an empty body cannot be truncated"),
            ((self.truncate or bool(self.seconds_per_byte)) and status in {204, 304}, "204 and 304 have no body"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults, for the JSON API."""
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
        """Return the fault that a JSON object describes, under the names of the arguments; delay may be "forever".

        Raises:
            InvalidFaultError: not an object, an unknown name, or a value as `Fault` refuses it.
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
    """A fault, which answers it is for, and either how many more or what share of them."""

    fault: Fault
    operation: Operation | None
    to: str | None
    probability: float | None = None

    def matches(self, operation: str, to: str | None) -> bool:
        """Tell whether an answer is one of those the rule is for."""
        return (self.operation is None or self.operation == operation) and (self.to is None or self.to == to)

    def as_json(self) -> dict[str, Any]:
        """Return what the JSON API shows."""
        return {"fault": self.fault.as_json(), "operation": self.operation, "to": self.to, "share": self.probability}


class Faults:
    """The script and the chances in force. The script goes first.

    Args:
        rng: decides where a share of answers is asked for.
    """

    def __init__(self, rng: random.Random) -> None:
        self.on_change: Callable[[], object] | None = None
        self._rng = rng
        self._scripted_rules: list[Rule] = []
        self._random_rules: list[Rule] = []

    def __bool__(self) -> bool:
        return bool(self._scripted_rules or self._random_rules)

    @property
    def rules(self) -> list[Rule]:
        """What is still to come of the script, then the chances."""
        return [*self._scripted_rules, *self._random_rules]

    def script(self, *faults: Fault, operation: Operation | None = None, to: str | None = None) -> None:
        """Let the next answers be these faults, one each, in order.

        Args:
            faults: what happens to each of the next answers.
            operation: only answers to that operation: "messaging", "voice", "verify" or "token".
            to: only answers about that number.

        Raises:
            InvalidFaultError: an unknown operation; or `to` with a fault that cuts before the number is read.
        """
        self._scripted_rules.extend([self._make_rule(fault, operation, to) for fault in faults])
        self._notify()

    def chance(
        self, fault: Fault, probability: float, operation: Operation | None = None, to: str | None = None
    ) -> None:
        """Let a random share of the answers be a fault, as the simulator's `seed` has it.

        Several chances share one draw an answer, so 0.1 of one and 0.05 of another is 0.15 in all.

        Args:
            fault: what happens.
            probability: from 0 to 1; 0 has no effect.
            operation: only answers to that operation.
            to: only answers about that number.

        Raises:
            InvalidFaultError: a share out of range, or more than 1 in all for some answers; else as `script`.
        """
        rule = self._make_rule(fault, operation, to, probability)
        rules = [*self._random_rules, rule]
        numbers = {None, *(each.to for each in rules)}
        for kind in get_args(Operation):
            for number in numbers:
                total = sum(each.probability or 0 for each in rules if each.matches(kind, number))
                if total > 1 + 1e-9:
                    msg = f"the shares for {kind} come to {total:g}, which is more than 1; clear() the earlier ones"
                    raise InvalidFaultError(msg)
        self._random_rules.append(rule)
        self._notify()

    def clear(self) -> None:
        """Drop the rest of the script and every chance."""
        self._scripted_rules.clear()
        self._random_rules.clear()
        self._notify()

    def needs_number(self, operation: str) -> bool:
        """Tell whether the recipient must be known before `pick` can decide."""
        return any(rule.to is not None and rule.operation in {None, operation} for rule in self.rules)

    def pick(self, operation: str, to: str | None) -> Fault | None:
        """Return the fault for one answer, and take it off the script; None for an undisturbed answer."""
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

    @staticmethod
    def _make_rule(fault: Any, operation: Any, to: Any, probability: Any = None) -> Rule:
        if not isinstance(fault, Fault):
            raise InvalidFaultError("a fault must be a Fault")
        if operation is not None and operation not in get_args(Operation):
            msg = f"operation must be one of {', '.join(get_args(Operation))}"
            raise InvalidFaultError(msg)
        if to is not None and not isinstance(to, str):
            raise InvalidFaultError("to must be a phone number, or None for every one")
        if to is not None and fault.drop == "before_read":
            raise InvalidFaultError("a connection cut before the body is read cannot depend on the number in it")
        if to is not None and operation == "token":
            raise InvalidFaultError("a token request names no number")
        if probability is not None and (
            isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1
        ):
            raise InvalidFaultError("probability must be from 0 to 1")
        return Rule(fault, operation, to, probability)
