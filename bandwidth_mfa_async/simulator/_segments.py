"""The number of SMS segments of a text.

Bandwidth counts an account's rate in segments, not in requests. A single segment has 160 characters of GSM-7 or 70 of
UCS-2 (https://dev.bandwidth.com/docs/messaging/rateLimits). The alphabet and the sizes of longer texts are
those of 3GPP TS 23.038 section 6.2.1 and TS 23.040 section 9.2.3.24.
"""

from __future__ import annotations

import re
from typing import Final

# 3GPP TS 23.038, 6.2.1 (default alphabet without ESC) and 6.2.1.1 (its extension table), in code order.
GSM7_BASIC: Final = (
    "@\u00a3$\u00a5\u00e8\u00e9\u00f9\u00ec\u00f2\u00c7\n\u00d8\u00f8\r\u00c5\u00e5"
    "\u0394_\u03a6\u0393\u039b\u03a9\u03a0\u03a8\u03a3\u0398\u039e\u00c6\u00e6\u00df\u00c9"
    " !\"#\u00a4%&'()*+,-./0123456789:;<=>?"
    "\u00a1ABCDEFGHIJKLMNOPQRSTUVWXYZ\u00c4\u00d6\u00d1\u00dc\u00a7"
    "\u00bfabcdefghijklmnopqrstuvwxyz\u00e4\u00f6\u00f1\u00fc\u00e0"
)
GSM7_EXTENSION: Final = "\f^{}\\[~]|\u20ac"

_ALL_BASIC: Final = re.compile(f"[{re.escape(GSM7_BASIC)}]*")
_ALL_GSM7: Final = re.compile(f"[{re.escape(GSM7_BASIC + GSM7_EXTENSION)}]*")
_IS_EXTENSION: Final = re.compile(f"[{re.escape(GSM7_EXTENSION)}]")

_GSM7_SINGLE: Final = 160
_GSM7_PART: Final = 153
_UCS2_SINGLE: Final = 70
_UCS2_PART: Final = 67


def count_segments(text: str) -> int:
    """Return the number of SMS segments of `text`, at least 1.

    A character of GSM-7's extension table takes two septets, and in UCS-2 a character outside the basic plane takes two
    units; neither is split across segments.
    """
    if _ALL_BASIC.fullmatch(text):
        # Fast path for nearly all code messages: no loop over characters.
        return 1 if len(text) <= _GSM7_SINGLE else -(-len(text) // _GSM7_PART)
    if _ALL_GSM7.fullmatch(text):
        return _count_parts([2 if _IS_EXTENSION.match(char) else 1 for char in text], _GSM7_SINGLE, _GSM7_PART)
    return _count_parts([2 if ord(char) > 0xFFFF else 1 for char in text], _UCS2_SINGLE, _UCS2_PART)


def _count_parts(widths: list[int], single: int, part: int) -> int:
    if sum(widths) <= single:
        return 1
    segments, used = 1, 0
    for width in widths:
        if used + width > part:
            segments, used = segments + 1, 0
        used += width
    return segments
