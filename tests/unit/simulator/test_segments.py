"""SMS segment counts, compared with published examples."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async.simulator import count_segments
from bandwidth_mfa_async.simulator._segments import GSM7_BASIC, GSM7_EXTENSION


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("", 1),
        ("Your Simulator login code is 123456", 1),
        ("x" * 160, 1),  # https://dev.bandwidth.com/docs/messaging/rateLimits: 160 in a single segment
        ("x" * 161, 2),
        ("x" * 306, 2),  # 2 x 153
        ("x" * 307, 3),
        ("x" * 459, 3),
        ("\u20ac" * 80, 1),  # the extension table takes two septets each
        ("\u20ac" * 81, 2),
        ("x" * 159 + "{", 2),
        ("x" * 152 + "\u20ac" + "x" * 152, 3),  # an escape pair is not split over two segments
        ("\u00e9\u00f1\u00fc\u00e0\u00a3" * 32, 1),  # accents in the default alphabet count one
        ("\u00e7", 1),  # a small c cedilla is not in it: UCS-2
        ("\u00e7" * 70, 1),
        ("\u00e7" * 71, 2),
        ("\u00e7" * 134, 2),  # 2 x 67
        ("\u00e7" * 135, 3),
        ("\U0001f600" * 35, 1),  # outside the basic plane: two units each
        ("\U0001f600" * 36, 2),
        ("\U0001f600" * 67, 3),  # 33 whole ones in a segment of 67 units
        ("x" * 69 + "\ud83d", 1),  # a lone surrogate is one unit
        ("`", 1),
        ("x" * 160 + "`", 3),  # a back-tick is not GSM-7: 161 units of UCS-2
    ],
)
def test_count_segments(text, segments):
    assert count_segments(text) == segments


def test_the_alphabet_is_complete():
    """3GPP TS 23.038: 127 characters without ESC, and 10 in the extension table, form feed and euro included."""
    assert len(set(GSM7_BASIC)) == len(GSM7_BASIC) == 127
    assert len(set(GSM7_EXTENSION)) == len(GSM7_EXTENSION) == 10
    assert not set(GSM7_BASIC) & set(GSM7_EXTENSION)
