"""Regions, kinds and canonical forms of numbers, with phonenumberslite and without it."""

from __future__ import annotations

from typing import Any

import pytest

from bandwidth_mfa_async import ConfigurationError, InvalidRequestError
from bandwidth_mfa_async.signin import Guard, _policy
from bandwidth_mfa_async.signin import _regions as regions
from bandwidth_mfa_async.signin._guard import policy_of


def reason(number: Any, region: str | None = None, **options: Any) -> tuple[str, str, str]:
    found = policy_of(Guard(**options)).recipient(number, region)
    return found.number, found.region, found.reason


@pytest.mark.parametrize(
    ("number", "region", "expected"),
    [
        ("+19195551234", None, ("+19195551234", "US", "")),
        ("(919) 555-1234", "US", ("+19195551234", "US", "")),
        ("(919) 555-1234", "us", ("+19195551234", "US", "")),
        ("+1 919 555 1234", None, ("+19195551234", "US", "")),
        ("(919) 555-1234", None, ("(919) 555-1234", "?", "invalid")),
        ("+18765551234", None, ("+18765551234", "JM", "region")),
        ("+18095551234", None, ("+18095551234", "DO", "region")),
        ("+19005551234", None, ("+19005551234", "US", "premium")),
        ("+80012345678", None, ("+80012345678", "001", "region")),
        ("+14165551234", None, ("+14165551234", "CA", "")),
        ("+15551234567", None, ("+15551234567", "?", "invalid")),
        ("+1919555", None, ("+1919555", "?", "invalid")),
        ("hello", "US", ("hello", "?", "invalid")),
        ("", None, ("", "?", "invalid")),
        ("\ud800", None, ("\ud800", "?", "invalid")),
    ],
)
def test_numbers(number: str, region: str | None, expected: tuple[str, str, str]) -> None:
    assert reason(number, region, regions={"US", "CA"}) == expected


def test_without_regions_all_but_global_numbers_are_admitted() -> None:
    assert reason("+18765551234")[2] == ""
    assert reason("+15551234567")[2] == ""
    assert reason("+80012345678")[2] == "region"
    assert reason("+80012345678", regions={"001"})[2] == ""
    assert reason("+19005551234", premium=True)[2] == ""


def test_denied_prefixes() -> None:
    assert reason("+1 919 555 1234", denied_prefixes=("+1919",))[2] == "prefix"
    assert reason("+12025550123", denied_prefixes=("+1919",))[2] == ""


def test_the_text_of_a_number_is_bounded() -> None:
    assert len(reason("1" * 100_000)[0]) <= 250


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"regions": {"XX"}}, "regions"),
        ({"regions": "US"}, "regions"),
        ({"regions": set()}, "regions"),
        ({"denied_prefixes": "+1900"}, "denied_prefixes"),
        ({"denied_prefixes": ("1900",)}, "denied_prefixes"),
        ({"per_number": "5"}, "per_number"),
        ({"per_number": "0.5/h"}, "per_number"),
        ({"per_visitor": ("5/h", "6/h")}, "per_visitor"),
        ({"total": 5}, "total"),
        ({"unverified": True}, "unverified"),
        ({"mode": "off"}, "mode"),
        ({"observe": "number"}, "observe"),
        ({"observe": {"cooldown"}}, "observe"),
        ({"premium": None}, "premium"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        Guard(**options)


def test_a_number_that_is_no_text() -> None:
    with pytest.raises(InvalidRequestError, match=r"^number: "):
        policy_of(Guard()).recipient(19195551234, None)  # type: ignore[arg-type]


class TestWithoutTheExtra:
    @pytest.fixture(autouse=True)
    def _no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (regions, _policy):
            monkeypatch.setattr(module, "library", lambda: None)

    def test_e164_numbers_are_taken_as_given_with_one_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        guard = policy_of(Guard())
        assert guard.recipient("+19005551234", None).reason == ""
        assert guard.recipient("(919) 555-1234", None).reason == "invalid"
        assert guard.recipient("+19195551234", None).region == "?"
        assert len(caplog.records) == 1
        assert "pip install 'bandwidth-mfa-async[signin]'" in caplog.text

    def test_regions_need_it(self) -> None:
        with pytest.raises(ConfigurationError, match=r"bandwidth-mfa-async\[signin\]"):
            Guard(regions={"US"})
        with pytest.raises(ConfigurationError, match=r"bandwidth-mfa-async\[signin\]"):
            policy_of(Guard()).recipient("(919) 555-1234", "US")
