"""Error codes of receipts have a family, if they are documented."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async.webhooks import error_family, parse_delivery_receipt
from tests.support.webhooks import DELIVERED, FAILED_ABROAD


@pytest.mark.parametrize(
    ("code", "platform", "expected"),
    [
        (4432, "NorthAmericaSMS", ("north_america", "client", "bandwidth", True)),
        (4001, None, ("north_america", "client", "bandwidth", True)),
        (4720, None, ("north_america", "client", "carrier", True)),
        (4785, None, ("north_america", "client", "carrier", False)),
        (5100, None, ("north_america", "server", "bandwidth", False)),
        (5999, None, ("north_america", "server", "bandwidth", False)),
        (5600, None, ("north_america", "server", "carrier", False)),
        (9902, None, ("north_america", "ambiguous", None, None)),
        (9500, None, ("north_america", "ambiguous", None, None)),
        (995, "GlobalSMS", ("international", None, None, None)),
        (0, None, ("international", None, None, None)),
    ],
)
def test_documented_error_families(code, platform, expected):
    """The family has the party at fault, the reporter, and whether the error is permanent."""
    family = error_family(code, platform)
    assert family is not None
    assert (family.region, family.fault, family.reported_by, family.permanent) == expected


@pytest.mark.parametrize(
    ("code", "platform"),
    [
        (None, None),
        (2, None),
        (995, "NorthAmericaSMS"),
        (4432, "GlobalSMS"),
        (4200, None),
        (6000, None),
        (12_345, None),
        (4432, "Other"),
    ],
)
def test_undocumented_error_codes_have_no_family(code, platform):
    """Also codes that do not belong to the platform."""
    assert error_family(code, platform) is None


def test_the_error_family_of_a_receipt_depends_on_its_platform():
    """The meaning of an international code is the documented text."""
    family = parse_delivery_receipt(FAILED_ABROAD).error_family
    assert family is not None
    assert family.meaning == "Undeliverable"
    assert parse_delivery_receipt(DELIVERED).error_family is None
