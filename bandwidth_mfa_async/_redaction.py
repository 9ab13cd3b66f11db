"""Redaction of phone numbers, codes, texts and credentials in reprs, errors and logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

HIDDEN = "***"

_MAX_OUTPUT = 200
_MAX_INPUT = 4_000
# Matches phone numbers, also with separators, and codes (4 to 8 digits). Hides ids in service texts too; that is fine.
_DIGITS = re.compile(r"\+?\d(?:[^0-9A-Za-z]{0,2}\d){3,}")
_CREDENTIALS = re.compile(r"\b(basic|bearer)\s+[^\s\"',;]+", re.IGNORECASE)
# The scheme is bounded: with an unbounded one the regex backtracks from every letter and takes seconds for 64 KiB.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,31}://\S+", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a1-\u2fff\u3001-\ud7ff]+")


class Secret(str):
    """A credential: a str whose `repr` shows nothing.

    Crash reporters show the `repr` of the local variables of every frame, including the frames of this library.
    """

    __slots__ = ()

    def __getitem__(self, key: SupportsIndex | slice) -> Secret:
        # rich and structlog truncate a long text before they take its `repr`, so slices must be secret as well.
        return Secret(super().__getitem__(key))

    def __repr__(self) -> str:
        return f"'{HIDDEN}'"


def mask_phone(number: str) -> str:
    """Return a masked phone number: the plus sign and at most the last two digits."""
    return f"+{HIDDEN}{number[-2:]}" if len(number) > 7 else f"+{HIDDEN}"


def mask_phone_repr(number: str) -> str:
    """Return the repr of a masked phone number; for attrs `repr=`."""
    return repr(mask_phone(number))


def hide(_value: object) -> str:
    """Return a placeholder of constant length for a secret; for attrs `repr=`."""
    return "'***'" if _value is not None else "None"


def show_host_only(url: str | None) -> str:
    """Return the scheme and host of a URL and hide its path, query and userinfo; for attrs `repr=`."""
    if url is None:
        return "None"
    scheme, _, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    return repr(f"{scheme}://{host}/{HIDDEN}")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return an untrusted text as one short printable line without URLs, credentials, digit runs and secrets.

    Args:
        text: the text from the service.
        secrets: exact values to hide: numbers, codes and credentials of the call.
    """
    # Skip shorter secrets: replacing them damages ordinary words and reveals where the secret occurs.
    for secret in sorted({secret for secret in secrets if len(secret) > 3}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _UNPRINTABLE.sub(" ", text[:_MAX_INPUT])
    text = _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)
    text = _URL.sub(HIDDEN, text)
    text = _DIGITS.sub(HIDDEN, text).strip()
    return text if len(text) <= _MAX_OUTPUT else text[: _MAX_OUTPUT - 1] + "…"
