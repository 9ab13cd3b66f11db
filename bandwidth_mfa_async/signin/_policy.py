"""What a guard admits: its checked settings, and the records and arguments of its steps."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import field, frozen

from .._concise import ConciseType
from .._config import Rate, parse_rate
from .._logger import LOGGER_NAME
from .._validation import configuration_error
from ..errors import GuardRefusedError, InvalidRequestError
from ._identity import visitor_key
from ._regions import INSTALL, checked_regions, library, recipient_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ._regions import Recipient
    from ._stepper import Keys

_LOG: Final = logging.getLogger(LOGGER_NAME)
_REASONS: Final = frozenset({"number", "visitor", "region", "prefix", "premium", "total", "unverified"})
_CLEARABLE: Final = frozenset({"number", "unverified"})
_DURATION: Final = re.compile(r"\s*(?P<count>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[smhd])\s*", re.ASCII)
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_MAX_OBSERVE: Final = 366 * 86_400.0
_MAX_EXPECTED: Final = 1_000_000_000
_MAX_LIMIT: Final = 1_000_000
_MAX_PERIOD: Final = 31 * 86_400.0

Limit: TypeAlias = str | Rate
"""A number of texts in a period, such as ``"5/h"``."""


def _to_expected(value: int | Mapping[str, int] | None) -> int | dict[str, int] | None:
    if value is None:
        return None
    counts: dict[str, object] = (
        {str(region).upper(): each for region, each in value.items()} if isinstance(value, Mapping) else {"": value}
    )
    for count in counts.values():
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MAX_EXPECTED:
            raise configuration_error(
                "expected_per_day", "must be a whole number of at least 1, or a dict of such numbers by region"
            )
    found: dict[str, Any] = counts
    return found if isinstance(value, Mapping) else value


def _to_seconds(value: float | str) -> float:
    seconds = -1.0
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = float(match["count"]) * _UNIT_SECONDS[match["unit"]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    if not 0 <= seconds <= _MAX_OBSERVE:
        raise configuration_error("observe_first", "must be a number of seconds or a text like '14d', at most a year")
    return seconds


@frozen
class UnverifiedBudget(metaclass=ConciseType):
    """A budget of texts that no one verified: SMS pumping means many texts and no verified codes.

    Leaky buckets by visitor, by prefix (the number without its last four digits) and by region, in this order, with
    the thresholds of authgear's published policy (authgear-server, commit 020e789, docs/specs/fraud-protection.md): a
    region may have 20 unverified texts a day, or 20 % of what it verified on its best day of the last 14 or in the last
    24 hours; in an hour 3, a sixth of that, or 20 % of what it verified in the last hour. A visitor and a prefix may
    have 10 a day and 5 an hour, or 20 % of what they verified in 24 hours. The buckets of prefixes are not authgear's:
    a text counts for its region only if its prefix holds less than one unverified text, so that an attack on adjacent
    numbers, which the prefix ends, does not close the region for others.

    Args:
        expected_per_day: the verified sign-ins a day that you expect in each region, or a dict by region; stands in for
            history, so that the budget is enforced at once.
        observe_first: for how long the budget collects history before it refuses anything, as seconds or a text such as
            ``"14d"`` (the default); from its first use in the store, and only without `expected_per_day`.

    Raises:
        ConfigurationError: a value is wrong.
    """

    expected_per_day: int | Mapping[str, int] | None = field(default=None, converter=_to_expected)
    observe_first: float = field(default=14 * 86_400.0, converter=_to_seconds)

    def expected_in(self, region: str) -> int:
        """Return the verified sign-ins a day that are expected in a region."""
        expected = self.expected_per_day
        if expected is None or isinstance(expected, int):
            return expected or 0
        return expected.get(region, 0)


def _rules(name: str, value: Limit | Sequence[Limit] | None) -> list[list[int]]:
    """Return limits as pairs of a number of texts and a period in ms."""
    if value is None:
        return []
    rules: list[list[int]] = []
    limits: Any = value if isinstance(value, (list, tuple)) else (value,)
    for each in limits:
        rate = parse_rate(name, each)
        if not isinstance(rate, Rate):
            raise configuration_error(name, "must be limits such as ('5/h', '10/d')")
        if rate.count != int(rate.count) or not 1 <= rate.count <= _MAX_LIMIT:
            raise configuration_error(name, "must allow a whole number of texts, at least 1, in each period")
        if not 1 <= rate.per <= _MAX_PERIOD:
            raise configuration_error(name, "must have periods of 1 second to 31 days")
        rules.append([int(rate.count), round(rate.per * 1000)])
    if len({period for _, period in rules}) != len(rules):
        raise configuration_error(name, "must have one limit for each period")
    return rules


class Policy:
    """The settings of a `Guard`; see there."""

    def __init__(  # noqa: PLR0913 - those of a guard
        self,
        *,
        regions: Collection[str] | None,
        denied_prefixes: Sequence[str],
        premium: bool,
        per_number: Limit | Sequence[Limit] | None,
        per_visitor: Limit | Sequence[Limit] | None,
        total: Limit | Sequence[Limit] | None,
        unverified: UnverifiedBudget | None,
        mode: str,
        observe: Collection[str],
    ) -> None:
        self._regions = checked_regions(regions)
        self._denied_prefixes = _checked_prefixes(denied_prefixes)
        if not isinstance(premium, bool):
            raise configuration_error("premium", "must be True or False")
        self._premium = premium
        if unverified is not None and not isinstance(unverified, UnverifiedBudget):
            raise configuration_error("unverified", "must be an UnverifiedBudget or None")
        self._unverified = unverified
        if mode not in {"enforce", "observe"}:
            raise configuration_error("mode", "must be 'enforce' or 'observe'")
        if isinstance(observe, str) or not set(observe) <= _REASONS:
            raise configuration_error("observe", f"must be a set of reasons: {', '.join(sorted(_REASONS))}")
        self._arguments: dict[str, Any] = {
            "per_number": _rules("per_number", per_number),
            "per_visitor": _rules("per_visitor", per_visitor),
            "total": _rules("total", total),
            "budget": int(unverified is not None),
            "observe_ms": 0,
            "observe": sorted(_REASONS if mode == "observe" else set(observe)),
        }
        if unverified is not None and unverified.expected_per_day is None:
            self._arguments["observe_ms"] = round(unverified.observe_first * 1000)
        self._warned: set[str] = set()

    def describe(self) -> str:
        """Return the settings for a repr."""
        regions = "all" if self._regions is None else "{" + ", ".join(sorted(self._regions)) + "}"
        return f"regions={regions}, unverified={self._unverified is not None}"

    def recipient(self, number: str, region: str | None) -> Recipient:
        """Return a number as this guard sees it.

        Raises:
            InvalidRequestError: it is not a str.
        """
        if not self._premium and library() is None:
            self._warn(
                "premium",
                "premium-rate numbers are not refused, because phonenumberslite is not installed: %s",
                INSTALL,
            )
        return recipient_of(
            number,
            region,
            regions=self._regions,
            denied_prefixes=self._denied_prefixes,
            premium=self._premium,
        )

    def visitor(self, visitor: object) -> str | None:
        """Return what a visitor is counted as.

        Raises:
            InvalidRequestError: it is not a str, or is a list of addresses.
        """
        if visitor is None or (isinstance(visitor, str) and not visitor.strip()):
            self._warn("visitor", "a sign-in without visitor=: limits by visitor do not apply to it")
            return None
        if not isinstance(visitor, str):
            raise InvalidRequestError("visitor", f"must be str or None, not {type(visitor).__name__}")
        return visitor_key(visitor)

    def add_keys(self, keys: Keys, recipient: Recipient, visitor: str | None, secrets: Sequence[bytes]) -> None:
        """Add the records that decide on a number and a visitor."""
        keys.add_secret("number", "n", secrets, recipient.number)
        if visitor is not None and (self._arguments["per_visitor"] or self._unverified):
            keys.add_secret("visitor", "v", secrets, visitor)
        if self._arguments["total"]:
            keys.add("total", "t:all")
        if self._unverified is not None:
            keys.add_secret("prefix", "p", secrets, recipient.prefix)
        keys.add("region", f"r:{recipient.region}").add("meta", "m:guard")

    def arguments(self, recipient: Recipient, *, cleared: bool, fake: bool, cooldown: list[int]) -> dict[str, Any]:
        """Return the arguments of a step that admits, gives back or drains."""
        expected = 0 if self._unverified is None else self._unverified.expected_in(recipient.region)
        return self._arguments | {
            "static": recipient.reason,
            "region": recipient.region,
            "expected": expected,
            "cleared": int(cleared),
            "fake": int(fake),
            "cooldown": cooldown,
        }

    def refusal(self, reason: Any, wait_ms: int, *, cleared: bool) -> GuardRefusedError:
        """Return the error of a refusal."""
        return GuardRefusedError(
            f"the send is refused: {reason}",
            retry_after=wait_ms / 1000 if wait_ms else None,
            reason=reason,
            clearable=reason in _CLEARABLE and not cleared,
        )

    def warn_observing(self) -> None:
        """Log once that the budget only observes."""
        self._warn(
            "observing",
            "the budget of unverified texts refuses nothing yet: it collects history first; "
            "pass expected_per_day= to enforce it at once",
        )

    def _warn(self, name: str, text: str, *args: object) -> None:
        if name not in self._warned:
            self._warned.add(name)
            _LOG.warning(text, *args)


def _checked_prefixes(prefixes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(prefixes, str) or not all(re.fullmatch(r"\+[0-9]{1,15}", str(each), re.ASCII) for each in prefixes):
        raise configuration_error("denied_prefixes", "must be beginnings of E.164 numbers, such as ('+1900',)")
    return tuple(prefixes)
