"""Contents of cells: hints about bad numbers, and formulas that a spreadsheet would run."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

SPACES: Final = " \t\N{NO-BREAK SPACE}"
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
