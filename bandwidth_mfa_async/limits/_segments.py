"""Counts the SMS segments of a text, which is what account limits count.

https://support.bandwidth.com/hc/en-us/articles/360010235373 : one segment holds 160 GSM-7 or 70 UCS-2 characters; in a
text of several segments each holds 153 or 67.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# 3GPP TS 23.038, 6.2.1 and 6.2.1.1: the default alphabet, and the characters that are sent as ESC plus one more.
_GSM_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENDED: Final = frozenset("\f^{}\\[~]|€")
_GSM: Final = _GSM_BASIC | _GSM_EXTENDED

DEFAULT_SCOPE: Final = "2FA"
"""The service's value of ``{SCOPE}`` when a request has no scope."""


def segments(text: str) -> int:
    """Return the number of segments of a text; an empty text is one segment."""
    if _GSM.issuperset(text):
        return _parts((2 if char in _GSM_EXTENDED else 1 for char in text), single=160, each=153)
    # "UCS-2" is UTF-16 in practice: a character beyond the basic plane is a surrogate pair.
    return _parts((2 if ord(char) > 0xFFFF else 1 for char in text), single=70, each=67)


def _parts(widths: Iterable[int], *, single: int, each: int) -> int:
    """Return the number of parts of `each` units that hold all characters. No character is split."""
    total, parts, filled = 0, 1, 0
    for width in widths:
        total += width
        if filled + width > each:
            parts, filled = parts + 1, 0
        filled += width
    return 1 if total <= single else parts


@functools.lru_cache(maxsize=256)
def message_weight(message: str | None, scope: str | None, digits: int | None, name: str | None) -> int:
    """Return the number of permits a message takes: the segments of its filled-in template.

    Args:
        message: the template with ``{CODE}`` and optionally ``{SCOPE}`` and ``{NAME}``; None for the service's own
            template, which fits one segment.
        scope: the scope of the request; None or empty for the service's default, ``2FA``.
        digits: the length of the code; None for the service's default, 6.
        name: the value of ``{NAME}`` at the service; None when unknown, then it is not counted.
    """
    if message is None:
        return 1
    text = message.replace("{CODE}", "0" * (digits or 6))
    return segments(text.replace("{SCOPE}", scope or DEFAULT_SCOPE).replace("{NAME}", name or ""))
