"""How values that must not be seen are shown: phone numbers, codes, texts, credentials. No I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

HIDDEN = "***"

_MAX_OUTPUT = 200
_MAX_INPUT = 4_000
# Phone numbers may be written with separators; codes are 4 to 8 digits; ids in service texts are not needed.
_DIGITS = re.compile(r"\+?\d(?:[^0-9A-Za-z]{0,2}\d){3,}")
_CREDENTIALS = re.compile(r"\b(basic|bearer)\s+[^\s\"',;]+", re.IGNORECASE)
# Bounded: an unbounded scheme is tried again from every letter of a long text, which takes seconds for 64 KiB.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,31}://\S+", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\u2fff\u3001-\ud7ff]+")


class Secret(str):
    """A credential: text to whoever sends it, nothing to whoever looks at it.

    Crash reporters show the local variables of every frame by their `repr`, ours included.
    """

    __slots__ = ()

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        # rich and structlog cut a long text before they ask for its `repr`; a piece is a secret as well.
        return Secret(super().__getitem__(key))

    def __repr__(self) -> str:
        return f"'{HIDDEN}'"


def mask_phone(number: str) -> str:
    """Return the shape of a number without the number: its plus sign and at most two last digits."""
    return f"+{HIDDEN}{number[-2:]}" if len(number) > 7 else f"+{HIDDEN}"


def mask_phone_repr(number: str) -> str:
    """Return `mask_phone` as an attrs `repr=` function."""
    return repr(mask_phone(number))


def hide(_value: object) -> str:
    """Return the placeholder for any secret, as an attrs `repr=` function; says nothing of its length."""
    return "'***'" if _value is not None else "None"


def show_host_only(url: str | None) -> str:
    """Return a URL's scheme and host, as an attrs `repr=` function; path, query and userinfo are hidden."""
    if url is None:
        return "None"
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return repr(f"{scheme}://{host}/{HIDDEN}")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text from outside made safe to show: one short printable line without digits runs and secrets.

    Args:
        text: what the service said.
        secrets: exact values that must not survive (numbers, codes, credentials of the call).
    """
    # Shorter ones would hollow out ordinary words, which hides nothing and tells where they stood.
    for secret in sorted({secret for secret in secrets if len(secret) > 3}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _UNPRINTABLE.sub(" ", text[:_MAX_INPUT])
    text = _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)
    text = _URL.sub(HIDDEN, text)
    text = _DIGITS.sub(HIDDEN, text).strip()
    return text if len(text) <= _MAX_OUTPUT else text[: _MAX_OUTPUT - 1] + "…"
