"""Reads the rows of a CSV or JSON Lines file; each row is either ready to send, or bad with a line and a reason."""

from __future__ import annotations

import csv
import functools
import itertools
import re
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
from attrs import field, frozen

from ..._redaction import hide, mask_phone_repr, scrub
from ...errors import InvalidRequestError
from ._cells import (
    SPACES,
    BadCellError,
    cell_text,
    check_number,
    is_number,
    json_object,
    json_type,
    number_hint,
    undecodable,
    unescape_formula,
    with_digits,
)
from ._source import MAX_LINE, InputFileError, LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..._models import CodeTemplate
    from ._source import Source

Format = Literal["auto", "csv", "jsonl"]

COLUMNS: Final = ("to", "message", "scope", "digits")
_OWN_VALUES: Final = frozenset(COLUMNS[1:])
# The first columns of a rejects file, and its last column for JSON Lines. A corrected rejects file is valid input.
REJECT_COLUMNS: Final = ("line", "reason")
RAW: Final = "row"
MAX_COLUMNS: Final = 256
MAX_HEADER_LINES: Final = 100
_DELIMITERS: Final = (",", ";", "\t", "|")
_SYNONYMS: Final = {"phone", "number", "phone number", "phone_number", "mobile", "cell", "msisdn", "recipient", "tel"}
_SUFFIXES: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_HEADER_SPACES: Final = SPACES + "\r\n\N{ZERO WIDTH NO-BREAK SPACE}"
# The first line that Excel writes and reads: it names the delimiter.
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_UNCLOSED: Final = 'a quote (") opens here and is not closed in this row: close it, or double it inside a field'
REPEATED: Final = (
    "to: an earlier row has this number with another text, scope or number of digits; only --allow-repeats sends this "
    "row as well"
)


@frozen
class InputRow:
    """A row that is ready to send.

    Attributes:
        line: the physical line where it begins, from 1.
        to: the checked recipient.
        template: the checked template: the command's, with the row's own values.
        cells: the row's cells as in the file.
    """

    line: int
    to: str = field(repr=mask_phone_repr)
    template: CodeTemplate
    cells: Sequence[str] = field(repr=hide)


@frozen
class BadRow:
    """A row that cannot be sent.

    Attributes:
        line: the physical line where it begins, from 1.
        reason: what is wrong and what to do; never contains the number.
        cells: the row's cells as in the file, or its text if it could not be split into cells.
        is_repeat: whether the row itself is correct, and not sent because its number has another text already.
    """

    line: int
    reason: str
    cells: Sequence[str] = field(repr=hide)
    is_repeat: bool = False


def format_of(path: str, source: Source, chosen: Format) -> Format:
    """Return the chosen format; for ``"auto"``, the format of the file's suffix, else of its first byte."""
    if chosen != "auto":
        return chosen
    suffix = "." + path.rpartition(".")[2].lower()
    return _SUFFIXES.get(suffix) or ("jsonl" if source.looks_like_json else "csv")


class RowReader:
    """Iterates once over the rows of a source, in constant memory.

    Args:
        source: the bytes.
        template: the defaults for values that a row does not have.
        form: ``"csv"`` or ``"jsonl"``.
        column: the name of the column with the numbers; in a rejects file it is always "to".
        is_repeat: returns whether a row must not be sent because its number has an earlier row with another text;
            called for every good row if rows can have a text of their own.

    Raises:
        InputFileError: the file as a whole cannot be read; raised by the constructor or during iteration.
    """

    def __init__(
        self,
        source: Source,
        template: CodeTemplate,
        form: Format,
        is_repeat: Callable[[InputRow], bool] | None = None,
        *,
        column: str = "to",
    ) -> None:
        self.source = source
        self.header: tuple[str, ...] = (*COLUMNS, RAW)
        """The input's columns, which a rejects file repeats."""
        self.ignored: list[str] = []
        """Unknown columns, with personal data masked; for JSON Lines, those found so far."""
        self.suspect_lines: list[int] = []
        """The first line, if any, of a row that is accepted although a cell of several lines contains lines like rows.

        The cell is in a column that is not used; a quote may be missing.
        """
        self.rows = 0
        """The number of rows returned so far, good and bad."""
        self._template = template
        self._template_for = functools.lru_cache(maxsize=256)(self._make_template)
        self._line = 0
        self._last = ""
        self._is_rejects_file = False
        self._form = form
        self._column = column
        self._is_repeat = is_repeat
        self._iterator = self._json_rows() if form == "jsonl" else self._csv_rows()

    @property
    def has_own_values(self) -> bool:
        """Whether a row can have a text, scope or number of digits of its own; known from the first row on."""
        return self._form == "jsonl" or not _OWN_VALUES.isdisjoint(self.header)

    def __iter__(self) -> Iterator[InputRow | BadRow]:
        try:
            for row in self._iterator:
                self.rows += 1
                if (
                    self._is_repeat is not None
                    and isinstance(row, InputRow)
                    and self.has_own_values
                    and self._is_repeat(row)
                ):
                    yield BadRow(row.line, REPEATED, row.cells, is_repeat=True)
                else:
                    yield row
        except LineTooLongError:
            problem = f"is longer than {MAX_LINE:,} characters: is this a file of rows?"
            raise self._file_error(self._line + 1, problem) from None
        if not self.rows:
            raise self._file_error(None, "contains no row: it must contain at least one number")

    def _file_error(self, line: int | None, problem: str) -> InputFileError:
        return InputFileError(self.source.name, line, problem)

    def _track_lines(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._line += 1
            self._last = line
            yield line

    def _make_template(self, message: str | None, scope: str | None, digits: int | None) -> CodeTemplate:
        given: dict[str, Any] = {"message": message, "scope": scope, "digits": digits}
        return attrs.evolve(self._template, **{name: value for name, value in given.items() if value is not None})

    # CSV

    def _csv_rows(self) -> Iterator[InputRow | BadRow]:
        unread = iter(self.source.text(newline=""))
        begins, delimiter, first, read = self._csv_header(unread)
        places = {name: at for at, name in enumerate(self.header) if name in COLUMNS}
        to, width = places.pop("to"), len(self.header)
        lines = self._track_lines(itertools.chain(read, unread))
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        if first is not None:
            yield self._csv_row(begins, first, to, places, width)
        while True:
            begins = self._line + 1
            try:
                for cells in reader:
                    if any(cells):
                        if self._line != begins:
                            self._check_lines(begins, cells, to, delimiter)
                        yield self._csv_row(begins, cells, to, places, width)
                    begins = self._line + 1
            except csv.Error as error:
                yield self._csv_error(begins, str(error))
            else:
                return

    def _csv_header(  # noqa: C901 - each delimiter is tried
        self, unread: Iterator[str]
    ) -> tuple[int, str, list[str] | None, list[str]]:
        """Read the first record that is not blank; set the header.

        Returns:
            The record's first line, the delimiter, the record's cells if it is not a header, and lines after it.
        """
        line = self._next_line(unread)
        delimiters: tuple[str, ...] = _DELIMITERS
        if separator := _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n")):
            if separator[1] not in _DELIMITERS:
                raise self._file_error(self._line, "separates cells with another character than comma, ; | or tab")
            delimiters = (separator[1],)
            line = self._next_line(unread)
        at, read = self._line, [line]

        def record() -> Iterator[str]:
            yield from read
            for more in itertools.islice(unread, MAX_HEADER_LINES - len(read)):
                read.append(more)
                yield more

        parsed: list[tuple[str, list[str], int]] = []
        for delimiter in delimiters:
            reader = csv.reader(record(), delimiter=delimiter, strict=True)
            try:
                cells = next(reader)
            except (csv.Error, StopIteration):
                continue  # a quote in the wrong place, for this delimiter
            parsed.append((delimiter, cells, reader.line_num))
            names = [cell.strip(_HEADER_SPACES).lower() for cell in cells]
            if len(cells) > MAX_COLUMNS:
                raise self._file_error(at, f"{len(cells)} columns: keep 'to' and what you need, at most {MAX_COLUMNS}")
            column = "to" if tuple(names[: len(REJECT_COLUMNS)]) == REJECT_COLUMNS else self._column.lower()
            if column in names:
                self._set_header(at, names, column)
                self._line += reader.line_num - 1
                return at, delimiter, None, read[reader.line_num :]
        if not parsed:
            raise self._file_error(at, _UNCLOSED)
        delimiter, cells, used = parsed[0]
        if self.source.suspect and (problem := undecodable(cells)):
            raise self._file_error(at, problem)
        text = "".join(read[:used])
        if len(cells) == 1 and self._column == "to" and not any(other in text for other in _DELIMITERS):
            self.header = ("to",)
            self._line += used - 1
            # A single column may have a header of any name, also an empty one; a number, good or bad, has digits.
            return at, delimiter, cells if any(char.isdigit() for char in text) else None, read[used:]
        named = next((name for name in (" ".join(cell.lower().split()) for cell in cells) if name in _SYNONYMS), None)
        hint = "add a header line that names the column with the numbers 'to'"
        if self._column != "to":
            hint = "correct --column, or add a header line"
        elif named:
            hint = f"pass --column '{named}', or rename it to 'to'"
        raise self._file_error(at, f"no column is called '{scrub(self._column)}': {hint}")

    def _next_line(self, unread: Iterator[str]) -> str:
        """Return the next line that is not blank."""
        for line in unread:
            self._line += 1
            if line.strip():
                return line
        return ""

    def _set_header(self, at: int, names: list[str], column: str) -> None:
        if self.source.suspect and (problem := undecodable(names)):
            raise self._file_error(at, problem)
        for name in (*COLUMNS, column):
            if names.count(name) > 1:
                raise self._file_error(at, f"more than one column is called '{name}': keep one")
        if column != "to":
            if "to" in names:
                raise self._file_error(at, f"has a column 'to' beside '{column}': rename it")
            names[names.index(column)] = "to"
        if tuple(names[: len(REJECT_COLUMNS)]) == REJECT_COLUMNS:
            self._is_rejects_file = True
            names = [unescape_formula(name) for name in names]
        self.header = tuple(names)
        known = {*COLUMNS, *REJECT_COLUMNS, RAW}
        self.ignored = [scrub(name) or "(no name)" for name in names if name not in known]

    def _csv_row(self, line: int, cells: list[str], to: int, places: dict[str, int], width: int) -> InputRow | BadRow:
        if self._is_rejects_file:
            cells = [unescape_formula(cell) for cell in cells]
        try:
            if len(cells) != width:
                raise BadCellError(f"has {len(cells)} columns, but the header has {width}")
            if self.source.suspect and (problem := undecodable(cells)):
                raise BadCellError(problem)
            number = cells[to].strip(SPACES)
            check_number(number)
            if not places:
                return InputRow(line, number, self._template, cells)
            given = {name: cells[at] or None for name, at in places.items()}
            return InputRow(line, number, self._template_for(**with_digits(given)), cells)
        except InvalidRequestError as error:
            reason = number_hint(cells[to]) if error.field == "to" else str(error)
            return BadRow(line, reason, cells)
        except BadCellError as error:
            return BadRow(line, str(error), cells)

    def _check_lines(self, begins: int, cells: list[str], to: int, delimiter: str) -> None:
        """Raise if a row of several lines contains a line that looks like a row: then a quote is not closed.

        In a column that is not used, such a line may be a note; it is only remembered.

        Raises:
            InputFileError: names the line where the row begins.
        """
        for at, cell in enumerate(cells):
            first, *pieces = re.split(r"\r\n|\r|\n", cell)
            if not pieces:
                continue
            lines = [piece.split(delimiter) for piece in pieces]
            # The row's own number is on its first line if the multi-line cell comes after it, else on its last.
            if at < to:
                lines[-1:] = [[*cells[:at], *first.split(delimiter)]]
            else:
                lines[-1] += cells[at + 1 :]
            for line in lines:
                if to < len(line) and len(line) >= len(self.header) and is_number(line[to].strip(SPACES + '"')):
                    if len(cells) != len(self.header) or self.header[at] in COLUMNS:
                        raise self._file_error(begins, _UNCLOSED)
                    self.suspect_lines[:] = self.suspect_lines or [begins]

    def _csv_error(self, begins: int, text: str) -> BadRow:
        if self._line != begins or text.startswith("unexpected end"):
            raise self._file_error(begins, _UNCLOSED)
        if text.startswith("field larger"):
            reason = "a field is longer than 131,072 characters"
        else:
            reason = 'a quote (") ends inside a field: double every quote that belongs to the text'
        return BadRow(begins, reason, [self._last.rstrip("\r\n")])

    # JSON Lines

    def _json_rows(self) -> Iterator[InputRow | BadRow]:
        for text in self._track_lines(self.source.text(newline="\n")):
            line = text.strip()
            if not line:
                continue
            if not self.rows and line.startswith("["):
                raise self._file_error(
                    self._line, "is a JSON array: write one object per line, for example with jq -c '.[]'"
                )
            yield self._json_row(line)

    def _json_row(self, text: str) -> InputRow | BadRow:
        cells: tuple[str, ...] = ("", "", "", "", text)
        try:
            if self.source.suspect and (problem := undecodable([text])):
                raise BadCellError(problem)
            document = json_object(text, self._column)
            cells = (*(cell_text(document.get(name)) for name in COLUMNS), text)
            self.ignored += [
                shown for name in document if name not in COLUMNS and (shown := scrub(name)) not in self.ignored
            ][: MAX_COLUMNS - len(self.ignored)]
            number = document["to"]
            for name in ("to", "message", "scope"):
                if not isinstance(document.get(name), str | None):
                    raise BadCellError(f"{name}: must be a string, not {json_type(document[name])}")
            if number is None:
                raise BadCellError("to: must be a string, not null")
            number = number.strip(SPACES)
            check_number(number)
            given = {name: document.get(name) for name in COLUMNS[1:]}
            if isinstance(given["digits"], bool) or not isinstance(given["digits"], int | None):
                raise BadCellError("digits: must be a whole number from 4 to 8")
            return InputRow(self._line, number, self._template_for(**given), cells)
        except InvalidRequestError as error:
            reason = number_hint(cells[0]) if error.field == "to" else str(error)
            return BadRow(self._line, reason, cells)
        except BadCellError as error:
            return BadRow(self._line, str(error), cells)
