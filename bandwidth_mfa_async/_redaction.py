"""The rules for text from elsewhere: which ids are accepted, which characters are shown, and what is secret."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

HIDDEN = "***"

_MAX_OUTPUT = 200
_MAX_INPUT = 4_000
# Matches phone numbers, also with separators, and codes (4 to 8 digits). Hides ids in service texts too; that is fine.
_DIGITS = re.compile(r"\+?\d(?:[^0-9A-Za-z]{0,3}\d){3,}")
_CREDENTIALS = re.compile(r"\b(basic|bearer)\s+[^\s\"',;]+", re.IGNORECASE)
# The scheme is bounded: with an unbounded one the regex backtracks from every letter and takes seconds for 64 KiB.
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{0,31}://\S+", re.IGNORECASE)
# Ids go into journals, ledgers, logs and terminals. All ids that were seen are ASCII letters, digits and hyphens.
_ID = re.compile(r"[\x21-\x7e]{1,128}")
# Invisible characters that Unicode counts as letters, marks and symbols: joiners, fillers and variation selectors.
_FILLERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_UNSHOWN = re.compile("\0+")
_SEPARATORS = "[^0-9A-Za-z]*"
_NUMBER = re.compile(r"\+?[0-9]{4,}", re.ASCII)


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


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value is an id that can be stored, logged and shown: 1 to 128 printable ASCII characters."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_printable(text: str) -> bool:
    """Return whether a text has only visible characters and blanks.

    Invisible are line breaks, control characters, bidirectional marks, zero-width and filler characters, surrogates,
    private and unassigned characters, and every blank other than the ASCII one.
    """
    return text.isprintable() and (text.isascii() or _FILLERS.search(text) is None)


def printable(text: str, replacement: str = " ") -> str:
    """Return a text on one line, with each run of characters that are not printable replaced; see `is_printable`.

    For texts from a file, a server or a file name that go into an error, a log or the terminal.
    """
    if is_printable(text):
        return text
    shown = "".join(char if char.isprintable() else "\0" for char in _FILLERS.sub("\0", text))
    return _UNSHOWN.sub(replacement, shown)


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return an untrusted text as one short printable line without URLs, credentials, digit runs and secrets.

    Args:
        text: the text from the service.
        secrets: values to hide: numbers, codes, texts and credentials of the call. Numbers are found with any
            separators between their digits, texts in any case and with any white space.
    """
    text = printable(hide_secrets(text, secrets)[:_MAX_INPUT])
    text = _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)
    text = _URL.sub(HIDDEN, text)
    text = _DIGITS.sub(HIDDEN, text).strip()
    return text if len(text) <= _MAX_OUTPUT else text[: _MAX_OUTPUT - 1] + "…"


def hide_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text with ASCII digits and without the secrets; see `scrub`."""
    text = _ascii_digits(text)
    # Skip shorter secrets: replacing them damages ordinary words and reveals where the secret occurs.
    for secret in sorted({secret for secret in secrets if len(secret) > 3}, key=len, reverse=True):
        text = _pattern(_ascii_digits(secret)).sub(HIDDEN, text)
    return text


def _ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _pattern(secret: str) -> re.Pattern[str]:
    if not _NUMBER.fullmatch(secret):
        return re.compile(r"\s+".join(re.escape(word) for word in secret.split() or [secret]), re.IGNORECASE)
    digits = secret.lstrip("+")
    # Numbers are also written without their country code.
    country, national = _SEPARATORS.join(digits[:-10]), _SEPARATORS.join(digits[-10:])
    return re.compile(rf"(?:(?:\+{_SEPARATORS})?{country}{_SEPARATORS})?{national}" if country else national)
