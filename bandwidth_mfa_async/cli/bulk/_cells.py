"""Contents of cells: their checks, hints about bad numbers, and formulas that a spreadsheet would run."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, cast

import attrs

from ..._models import CodeRequest
from ..._redaction import scrub
from ...errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

SPACES: Final = " \t\N{NO-BREAK SPACE}"
_DIGITS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_FORMULA: Final = re.compile(r"'*[=+\-@\t\r]")
_NOT_A_FORMULA: Final = re.compile(r"\+[0-9 ().\-]*")


def escape_formula(cell: str) -> str:
    """Return a cell with a leading apostrophe if a spreadsheet would run it as a formula; numbers stay as they are."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NOT_A_FORMULA.fullmatch(cell) else cell


def unescape_formula(cell: str) -> str:
    """Return the cell that `escape_formula` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


# Patterns of bad numbers, each with a hint; the first that matches is used.
_HINTS: Final = (
    (re.compile(r""), "is empty"),
    (re.compile(r"[\s\S]*[\r\n][\s\S]*"), "contains a line break: check for a quote that is not closed"),
    (re.compile(r"['`\u2018\u2019][\s\S]*"), "begins with an apostrophe: remove it"),
    (re.compile(r"=[\s\S]*"), "is a formula of a spreadsheet: keep only the number, without = and quotes"),
    (
        re.compile(r"\+?[0-9.,]+[eE][+-]?[0-9]+"),
        "was shortened by a spreadsheet: format the column as text and enter the numbers again",
    ),
    (re.compile(r"\+?[0-9]+\.0+"), "ends in .0: it was exported as a decimal number; remove the .0"),
    (re.compile(r"\+?[0-9]+,0+"), "ends in ,0: it was exported as a decimal number; remove the ,0"),
    (
        re.compile(r"\+?[0-9]{6,}[.,][0-9]+"),
        "has decimals: it was exported as a decimal number; format the column as text and enter the numbers again",
    ),
    (re.compile(r"\+[0-9]{16,}"), "has more than 15 digits"),
    (re.compile(r"00[0-9]+"), "begins with 00: write '+' instead"),
    (re.compile(r"[0-9]+"), "does not begin with '+' and a country code"),
    (re.compile(r"\+?[0-9 ().\-/\u00a0\u2010-\u2015]+"), "contains spaces or punctuation: write '+' and digits only"),
)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})


def number_hint(cell: str) -> str:
    """Return why a number is bad and what to do; never contains the number."""
    text = cell.strip(SPACES)
    hint = next((hint for pattern, hint in _HINTS if pattern.fullmatch(text)), "is not a phone number")
    hidden = next((char for char in text if unicodedata.category(char) in _INVISIBLE and char not in "\r\n"), None)
    if hidden is not None:
        name = unicodedata.name(hidden, "a control character").lower()
        hint = f"contains the invisible character U+{ord(hidden):04X}, {name}: remove it"
    return f"to: {hint}; E.164 looks like +19195551234, with 2 to 15 digits after the '+'"


class BadCellError(Exception):
    """A row is bad; converted into a `BadRow`."""


def json_object(text: str, column: str) -> dict[str, Any]:
    """Return the object of a JSON line, with the number under 'to'.

    Args:
        text: the line.
        column: the name of the number in it.

    Raises:
        BadCellError: the line is not an object, or names no number.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise BadCellError("a name occurs twice in the object: keep one")
        return document

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise BadCellError('is not JSON: every line must be one object like {"to": "+19195551234"}') from None
    if not isinstance(document, dict):
        raise BadCellError(f'is {json_type(document)}, not an object like {{"to": "+19195551234"}}')
    if column not in document:
        raise BadCellError(f"has no '{scrub(column)}'")
    if column != "to" and "to" in document:
        raise BadCellError(f"has 'to' beside '{scrub(column)}': keep one")
    return {"to" if name == column else name: value for name, value in cast("dict[str, Any]", document).items()}


_JSON_TYPES: Final[dict[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    type(None): "null",
}


def json_type(value: object) -> str:
    """Return the JSON type of a value, for an error."""
    return _JSON_TYPES.get(type(value), "an object")


def cell_text(value: object) -> str:
    """Return a JSON value as the text of a cell."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def with_digits(given: dict[str, str | None]) -> dict[str, Any]:
    """Return the values of a row's own columns, with `digits` as a number.

    Raises:
        BadCellError: `digits` is not a number.
    """
    digits = (given.get("digits") or "").strip(SPACES)
    if digits and not _DIGITS.fullmatch(digits):
        raise BadCellError("digits: must be a whole number from 4 to 8")
    return {"message": given.get("message"), "scope": given.get("scope"), "digits": int(digits) if digits else None}


_NUMBER_FIELD: Final[Any] = attrs.fields(CodeRequest).to


def check_number(text: str) -> None:
    """Check a number with the validator of `CodeRequest`, without the cost of creating a request."""
    _NUMBER_FIELD.validator(None, _NUMBER_FIELD, text)


def is_number(text: str) -> bool:
    """Return whether a text is a phone number."""
    try:
        check_number(text)
    except InvalidRequestError:
        return False
    return True


def undecodable(cells: Sequence[str]) -> str | None:
    """Return why cells read from suspect bytes are bad, or None if they are good."""
    text = "".join(cells)
    if "\0" in text:
        return "contains a NUL byte: remove it, or save the file again as 'CSV UTF-8'"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains bytes that are not UTF-8: save the file as 'CSV UTF-8'"
    return None
