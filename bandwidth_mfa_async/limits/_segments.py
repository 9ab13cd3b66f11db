"""How many SMS segments a text takes, which is what accounts' limits count. No I/O.

https://support.bandwidth.com/hc/en-us/articles/360010235373 : 160 characters of GSM-7 or 70 of UCS-2 in one segment,
153 or 67 in each of several.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# 3GPP TS 23.038, 6.2.1 and 6.2.1.1: the default alphabet, and the characters that are sent as ESC and another.
_GSM_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENDED: Final = frozenset("\f^{}\\[~]|€")
_GSM: Final = _GSM_BASIC | _GSM_EXTENDED

DEFAULT_SCOPE: Final = "2FA"
"""What the service puts for ``{SCOPE}`` when a request names none."""


def segments(text: str) -> int:
    """Return how many segments a text is sent as; an empty one still is one."""
    if _GSM.issuperset(text):
        return _parts((2 if char in _GSM_EXTENDED else 1 for char in text), single=160, each=153)
    # Beyond the basic plane a character is a surrogate pair, in UTF-16, which is what goes by the name of UCS-2.
    return _parts((2 if ord(char) > 0xFFFF else 1 for char in text), single=70, each=67)


def _parts(widths: Iterable[int], *, single: int, each: int) -> int:
    """Count the parts of `each` units that hold all characters, none of which may be cut in two."""
    total, parts, filled = 0, 1, 0
    for width in widths:
        total += width
        if filled + width > each:
            parts, filled = parts + 1, 0
        filled += width
    return 1 if total <= single else parts


@functools.lru_cache(maxsize=256)
def message_weight(message: str | None, scope: str | None, digits: int | None, name: str | None) -> int:
    """Return how many permits a message takes: the segments of what the service will make of its template.

    Args:
        message: the template, with ``{CODE}`` and perhaps ``{SCOPE}`` and ``{NAME}``; None for the service's own,
            which fits one segment.
        scope: the request's scope; None or empty for the service's default, ``2FA``.
        digits: the code's length; None for the service's default, 6.
        name: what ``{NAME}`` stands for at the service; None when it is not known, and then it is not counted.
    """
    if message is None:
        return 1
    text = message.replace("{CODE}", "0" * (digits or 6))
    return segments(text.replace("{SCOPE}", scope or DEFAULT_SCOPE).replace("{NAME}", name or ""))
