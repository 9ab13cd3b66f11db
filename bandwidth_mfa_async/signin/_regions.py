"""The region, the kind and the canonical form of a number, by phonenumberslite where it is installed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from .._redaction import hide, mask_phone_repr
from ..errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Collection

_E164: Final = re.compile(r"\+[0-9]{2,15}", re.ASCII)
_MAX_TYPED: Final = 250
_PREFIX_DIGITS: Final = 4
UNKNOWN_REGION: Final = "?"
INSTALL: Final = "pip install 'bandwidth-mfa-async[signin]'"


@frozen
class Recipient:
    """A number as the guard sees it.

    Attributes:
        number: its canonical E.164 form; as it was given if it is invalid.
        region: its region, such as ``"US"``; ``"001"`` for a global number, ``"?"`` if it is not known.
        reason: why it is refused whatever was counted, or "".
        typed: what was given.
    """

    number: str = field(repr=mask_phone_repr)
    region: str
    reason: str
    typed: str = field(repr=hide)

    @property
    def prefix(self) -> str:
        """The number without its last four digits."""
        return self.number[:-_PREFIX_DIGITS]


@lru_cache(maxsize=1)
def library() -> Any:
    """Return phonenumberslite's module; None if it is not installed."""
    try:
        import phonenumbers
    except ImportError:
        return None
    return phonenumbers


def checked_regions(regions: Collection[str] | None) -> frozenset[str] | None:
    """Return the regions in upper case.

    Raises:
        ConfigurationError: one does not exist, or phonenumberslite is not installed.
    """
    if regions is None:
        return None
    numbers = library()
    if numbers is None:
        raise ConfigurationError(f"regions: need phonenumberslite, which is not installed; run: {INSTALL}")
    if isinstance(regions, str):
        raise ConfigurationError('regions: must be a collection such as {"US", "CA"}, not a str')
    found = frozenset(str(region).upper() for region in regions)
    unknown = sorted(found - set(numbers.SUPPORTED_REGIONS) - {"001"})
    if unknown:
        raise ConfigurationError(f"regions: {', '.join(unknown)} is not a two-letter code of a country (ISO 3166-1)")
    if not found:
        raise ConfigurationError("regions: must name at least one region, or be None for all")
    return found


def recipient_of(
    typed: str,
    region: str | None,
    *,
    regions: frozenset[str] | None,
    denied_prefixes: tuple[str, ...],
    premium: bool,
) -> Recipient:
    """Return a number in canonical form, with its region, and the reason if it is refused.

    Args:
        typed: what the person typed; E.164, or with `region` any form that is used there.
        region: the region of a number that is not written in the international form.
        regions: the regions that are admitted; None for all.
        denied_prefixes: beginnings of E.164 numbers that are refused.
        premium: whether premium-rate numbers are admitted.

    Raises:
        InvalidRequestError: the number or the region is not a str.
        ConfigurationError: a region is given, and phonenumberslite is not installed.
    """
    if not isinstance(typed, str):
        raise InvalidRequestError("number", f"must be str, not {type(typed).__name__}")
    if region is not None and not isinstance(region, str):
        raise InvalidRequestError("region", f"must be str or None, not {type(region).__name__}")
    numbers = library()
    if numbers is None:
        if region is not None:
            raise ConfigurationError(f"region: needs phonenumberslite, which is not installed; run: {INSTALL}")
        reason = "" if _E164.fullmatch(typed) else "invalid"
        return Recipient(typed, UNKNOWN_REGION, reason or _denied(typed, denied_prefixes), typed)
    parsed = _parse(numbers, typed, region)
    if parsed is None:
        return Recipient(typed[:_MAX_TYPED], UNKNOWN_REGION, "invalid", typed)
    number = numbers.format_number(parsed, numbers.PhoneNumberFormat.E164)
    found = numbers.region_code_for_number(parsed)
    reason = _denied(number, denied_prefixes)
    # A global number, such as an international free-phone one, has to be asked for.
    allowed = found != "001" if regions is None else found in regions
    if not allowed:
        reason = "region" if found else "invalid"
    elif not reason and not premium and _is_premium(numbers, parsed):
        reason = "premium"
    return Recipient(number, found or UNKNOWN_REGION, reason, typed)


def _parse(numbers: Any, typed: str, region: str | None) -> Any:
    if len(typed) > _MAX_TYPED:
        return None
    try:
        parsed = numbers.parse(typed, None if region is None else region.upper())
    except numbers.NumberParseException:
        return None
    return parsed if numbers.is_possible_number(parsed) else None


def _is_premium(numbers: Any, parsed: Any) -> bool:
    kinds = numbers.PhoneNumberType
    return numbers.number_type(parsed) in {kinds.PREMIUM_RATE, kinds.SHARED_COST}


def _denied(number: str, prefixes: tuple[str, ...]) -> str:
    return "prefix" if number.startswith(prefixes) else ""
