"""The reader of a bulk run's input returns every row once and in order, or reports the problem with its line."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import pickle
import re
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import CodeTemplate
from bandwidth_mfa_async.cli.bulk._cells import escape_formula, unescape_formula
from bandwidth_mfa_async.cli.bulk._input_scan import scan, scan_document
from bandwidth_mfa_async.cli.bulk._rejects import Rejects
from bandwidth_mfa_async.cli.bulk._repeats import RepeatCounter, RepeatIndex
from bandwidth_mfa_async.cli.bulk._rows import (
    BadRow,
    Format,
    InputRow,
    RowReader,
    format_of,
)
from bandwidth_mfa_async.cli.bulk._source import MAX_LINE, InputFileError, Source, open_input
from tests.conftest import APPLICATION, FROM

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

TEMPLATE = CodeTemplate(FROM, APPLICATION, scope="login")
A, B, C = "+19195551234", "+19195551235", "+19195551236"


class Trickle(io.RawIOBase):
    """A pipe that returns a few bytes per read."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(self._size, size) if size > 0 else self._size)


def reader(data: bytes, form: Format = "csv", *, piece: int = 0) -> RowReader:
    return RowReader(Source(Trickle(data, piece) if piece else io.BytesIO(data), "numbers.csv"), TEMPLATE, form)


def rows(data: bytes | str, form: Format = "csv") -> list[InputRow | BadRow]:
    return list(reader(data.encode() if isinstance(data, str) else data, form))


def numbers(data: bytes | str, form: Format = "csv") -> list[str]:
    found = rows(data, form)
    assert all(isinstance(row, InputRow) for row in found), found
    return [row.to for row in found if isinstance(row, InputRow)]


def file_error(data: bytes | str, form: Format = "csv") -> tuple[int | None, str]:
    with pytest.raises(InputFileError) as caught:
        rows(data, form)
    assert str(caught.value).startswith("numbers.csv")
    assert "9195551" not in str(caught.value) + repr(caught.value)
    return caught.value.line, caught.value.problem


@pytest.mark.parametrize(
    "text",
    [
        f"to\n{A}\n{B}\n",
        f"{A}\n{B}",
        f"phone\n{A}\n{B}\n",
        f"\n\nTo\r\n{A}\r\n\r\n{B}\r\n",
        f"to\r{A}\r{B}\r",
        f'"to"\n"{A}"\n"{B}"\n',
        f"  to \n  {A} \n\t{B}\n",
        f"name,to\njoe,{A}\nann,{B}\n,,\n",
        f"to;name\n{A};joe\n{B};ann\n",
        f"name\tTO\njoe\t{A}\nann\t{B}\n",
        f"line,reason,to\n7,lacks a plus,{A}\n9,,{B}\n",
        f'to,note\n{A},"two\nlines, and ""quotes"""\n{B},x\n',
        f'"to\n","first\nname"\n{A},x\n{B},y\n',
        f'"first\nname";"to"\nx;{A}\ny;{B}\n',
        f'"mobile\nphone"\n{A}\n{B}\n',
        f'to,note\n{A},"he said:\n{C},call me"\n{B},x\n',
        f"sep=;\nname;to\nx;{A}\ny;{B}\n",
        f'"sep=\t"\r\nto\tname\r\n{A}\tx\r\n{B}\ty\r\n',
        f'"\ufeffto",name\n{A},x\n{B},y\n',
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8, codecs.BOM_UTF8 * 2])
def test_csv_with_any_header_line_end_delimiter_and_byte_order_mark_is_read(text: str, mark: bytes) -> None:
    """The header and the byte-order mark are optional; all line ends and common delimiters work."""
    assert numbers(mark + text.encode()) == [A, B]


def test_lines_are_counted_after_a_header_of_several_lines() -> None:
    """Also with the line that names the separator."""
    found = rows(f'\nsep=;\n"to\n(mobile)\n";to\nx;{A}\ny;bad\n')
    assert [row.line for row in found] == [6, 7]
    found = rows(f'"phone\n"\n{A}\nbad1\n')
    assert [row.line for row in found] == [3, 4]


def test_a_row_in_which_a_quote_may_be_missing_is_remembered() -> None:
    """Its cell of several lines contains a line like a row, in a column that is not used."""
    reading = reader(f'to,note\n{B},x\n{A},"he said:\n{C},call me"\n'.encode())
    assert [row.line for row in reading] == [2, 3]
    assert reading.suspect_lines == [3]


@pytest.mark.parametrize(
    "cell", ["=1+1", "@x", "-1", "+1+cmd|' /C calc'!A0", "\tx", "'=x", "''x", "'x", "x=1", A, "+1 (919)"]
)
def test_a_formula_is_escaped_and_read_back(cell: str) -> None:
    """A number stays as it is, so that the file can be sent; other cells that a spreadsheet would run do not."""
    escaped = escape_formula(cell)
    assert unescape_formula(escaped) == cell
    assert escaped[0] not in "=@-\t\r"
    assert escaped[0] != "+" or re.fullmatch(r"\+[0-9 ()]+", escaped)


def test_a_rejects_file_carries_no_formula(tmp_path: pathlib.Path) -> None:
    """Neither from a cell nor from a header, and as an input it has the original text."""
    path = tmp_path / "r.csv"
    header, cells = ["to", "message", "=cmd|x"], [A, "=Use {CODE}", "@SUM(1)"]
    with Rejects(str(path)) as rejects:
        rejects.start(header)
        rejects.add(7, "a reason", cells)
    written = csv.reader(path.read_text().splitlines())
    assert not [cell for record in written for cell in record if cell[:1] in {"=", "@"}]
    (row,) = rows(path.read_bytes())
    assert row.template.message == "=Use {CODE}"  # type: ignore[union-attr]
    assert list(row.cells)[2:] == cells


def test_a_rejects_file_that_was_made_beforehand_becomes_private(tmp_path: pathlib.Path) -> None:
    """It contains numbers."""
    path = tmp_path / "r.csv"
    path.touch()
    path.chmod(0o666)
    with Rejects(str(path)) as rejects:
        rejects.start(["to"])
        rejects.add(1, "a reason", [A])
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_rows_own_values_override_the_commands() -> None:
    """A row's message, scope and digits override the command's; an empty cell does not."""
    found = rows(f"to,scope,digits,message\n{A},,,\n{B},pay,8,Use {{CODE}}\n")
    assert found[0].template == TEMPLATE  # type: ignore[union-attr]
    other = found[1].template  # type: ignore[union-attr]
    assert (other.scope, other.digits, other.message, other.from_) == ("pay", 8, "Use {CODE}", FROM)


def test_unknown_columns_are_reported_once_with_personal_data_masked() -> None:
    """A misspelt column is visible; a phone number as a column name is not."""
    reading = reader(f"to,name,massage,{B}\n{A},joe,hi,x\n".encode())
    assert len(list(reading)) == 1
    assert reading.ignored == ["name", "massage", "***"]
    reading = reader(f'{{"to": "{A}", "name": 1}}\n{{"to": "{B}", "name": 2, "x": 3}}\n'.encode(), "jsonl")
    assert len(list(reading)) == 2
    assert reading.ignored == ["name", "x"]


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("", "is empty"),
        ("9195550100", "does not begin with '+'"),
        ("0019195550100", "begins with 00"),
        ("+19195550101.0", "ends in .0: it was exported as a decimal number; remove the .0"),
        ("19195550101.00", "ends in .0"),
        ("+19195550101,0", "ends in ,0"),
        ("+19195550101.5", "has decimals"),
        ("+1.91956E+10", "shortened by a spreadsheet"),
        ("'+19195550101", "begins with an apostrophe"),
        ("\u2019+19195550101", "begins with an apostrophe"),
        ('="+19195550101"', "is a formula"),
        ("+1919\u200b5550101", "the invisible character U+200B, zero width space"),
        ("\u202a+19195550101\u202c", "the invisible character U+202A, left-to-right embedding"),
        ("\ufeff+19195550101", "the invisible character U+FEFF, zero width no-break space"),
        ("+1919\u00ad5550101", "U+00AD, soft hyphen"),
        ("+1 919 555-1234", "spaces or punctuation"),
        ("(919) 555-1234", "spaces or punctuation"),
        ("1.91956E+10", "shortened by a spreadsheet"),
        ("+12345678901234567", "more than 15 digits"),
        ("joe", "is not a phone number"),
        ("+1919555123x", "is not a phone number"),
        ("+١٢٣٤٥٦٧", "is not a phone number"),
    ],
)
def test_the_reason_of_a_bad_number_has_a_hint_and_not_the_number(cell: str, hint: str) -> None:
    """The reason shows an example of a valid number and never contains the bad one."""
    for found in (
        rows('to,name\n{},x\n"{}",joe\n'.format(A, cell.replace('"', '""'))),
        rows("\n" + json.dumps({"to": cell}), "jsonl"),
    ):
        (bad,) = [row for row in found if isinstance(row, BadRow)]
        assert hint in bad.reason
        assert "E.164 looks like +19195551234" in bad.reason
        assert bad.line == (3 if len(found) == 2 else 2)
        assert not cell or cell.strip() not in bad.reason.replace("+19195551234", "")
        assert not cell or cell not in repr(bad)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"to,digits\n{A},3\n", "digits: must be a whole number from 4 to 8"),
        (f"to,digits\n{A},6.0\n", "digits: must be a whole number from 4 to 8"),
        (f"to,digits\n{A},٦\n", "digits: must be a whole number from 4 to 8"),
        (f"to,digits\n{A},{'9' * 5000}\n", "digits: must be a whole number from 4 to 8"),
        (f"to,message\n{A},no code\n", "message: must hold {CODE}, where the service puts the code"),
        (f"to,message\n{A},{{CODE}}{'x' * 2048}\n", "message: must be at most 2048 characters, not 2054"),
        (f"to,scope\n{A},{'x' * 26}\n", "scope: must be at most 25 characters, not 26"),
        (f"to,name\n{A}\n", "has 1 columns, but the header has 2"),
        (f"to,name\n{A},x,y\n", "has 3 columns, but the header has 2"),
        (f"to\n{A}\0\n", "contains a NUL byte"),
        (f'to,name\n"{A}"x,y\n', 'a quote (") ends inside a field'),
        (f"to,name\n{A},{'x' * 200_000}\n", "a field is longer than 131,072 characters"),
        (f'to\n"{A}\n"\n', "contains a line break"),
    ],
    ids=lambda text: text[:30],
)
def test_a_bad_row_does_not_stop_the_reader(text: str, reason: str) -> None:
    """The bad row is returned with its line and reason, and the rows around it are read."""
    header, row = text.split("\n", 1)
    rest = ",," if "," not in header else "," * header.count(",")
    good = B if header == "to" else f"{B}{rest}"
    found = rows(f"{header}\n{good}\n{row}{good}\n")
    assert [type(one) for one in found] == [InputRow, BadRow, InputRow]
    assert found[1].line == 3
    assert found[1].reason.replace("to: ", "").startswith(reason)  # type: ignore[union-attr]
    assert "9195551" not in found[1].reason.replace("+19195551234", "")  # type: ignore[union-attr]


def test_bytes_that_are_not_utf8_make_only_their_row_bad() -> None:
    """A name in Latin-1 makes one bad row; the following rows are read."""
    found = rows(f"to,name\n{A},joe\n{B},".encode() + "José".encode("latin-1") + f"\n{C},ann\n".encode())
    assert [(row.line, type(row)) for row in found] == [(2, InputRow), (3, BadRow), (4, InputRow)]
    assert "not UTF-8" in found[1].reason  # type: ignore[union-attr]
    cut = rows(f"to\n{A}\n".encode() + "é".encode()[:1])
    assert [(row.line, type(row)) for row in cut] == [(2, InputRow), (3, BadRow)]


@pytest.mark.parametrize(
    ("data", "line", "expected"),
    [
        (b"", None, "is empty"),
        (b"\xef\xbb\xbf", None, "is empty"),
        (b" \r\n\n\t", None, "is empty"),
        (b"to\n", None, "contains no row"),
        (b"to,name\n,\n\n", None, "contains no row"),
        (f"to\n{A}\n".encode("utf-16"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-16-le"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-16-be"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-32"), 1, "UTF-16 or UTF-32"),
        (f"to\n{A}\n".encode("utf-32-le"), 1, "UTF-16 or UTF-32"),
        (b"PK\x03\x04\x14\x00", None, "workbook"),
        (b"\x1f\x8b\x08\x00", None, "gunzip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), None, "old Excel workbook (.xls)"),
        (f"sep=:\nto:name\n{A}:x\n", 1, "separates cells with another character"),
        (b"SQLite format 3\x00\x10", None, "database"),
        (f"name,phone\njoe,{A}\n", 1, "pass --column 'phone', or rename it to 'to'"),
        (f"{A},joe\n{B},ann\n", 1, "add a header line"),
        (f"\n\njoe;{A}\n", 3, "no column is called 'to'"),
        (f"to,TO\n{A},{B}\n", 1, "more than one column is called 'to'"),
        (f"to,digits,digits\n{A},5,6\n", 1, "more than one column is called 'digits'"),
        (",".join(["to", *(f"c{n}" for n in range(299))]) + f"\n{A}{',' * 299}\n", 1, "300 columns"),
        (f'to,message\n{A},"hi {{CODE}}\n{B},yo {{CODE}}\n', 2, "a quote"),
        (f'to,message\n{A},x\n{A},"hi {{CODE}}\n{B},yo {{CODE}}\n{C},"hello"\n', 3, "a quote"),
        (f'to,message\n{A},"hi\n{B},yo\n{C},{{CODE}}"\n', 2, "a quote"),
        (f'to,message,name\n{A},"hi\n{B},{{CODE}}",x\n', 2, "a quote"),
        (f'message,to\n"hi,{A}\nyo,{B}\n{{CODE}}",{C}\n', 2, "a quote"),
        (f'message,to\n"hi,{A}\n{{CODE}}",{C}\n', 2, "a quote"),
        (f'to\n"{A}\n{B}\n{C}"\n', 2, "a quote"),
        (f'to\n{A}\n"{B}', 3, "a quote"),
        ('"to\n', 1, "a quote"),
        (f'to,name\n{A},"x\n' + "x\n" * 100_000, 2, "a quote"),
        (b"to\n" + A.encode() + b"\n" + b"9" * (MAX_LINE + 300_000), 3, "is longer than 1,048,576 characters"),
        (b"to\0,name\n+12,x\n", 1, "NUL"),
        (b"to,n\xe9\n+12,x\n", 1, "not UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_cannot_be_read_is_one_error(data: bytes | str, line: int | None, expected: str) -> None:
    """A problem of the file as a whole is one error with the line and the remedy."""
    at, problem = file_error(data)
    assert at == line
    assert expected in problem


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ('{"to": "@A"} x', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"to": "@A", "digits": ' + "9" * 5000 + "}", "is not JSON"),
        ('"@A"', "is a string, not an object"),
        ("null", "is null, not an object"),
        ('["@A"]', "is an array, not an object"),
        ('{"To": "@A"}', "has no 'to'"),
        ('{"to": 19195551234}', "to: must be a string, not a number"),
        ('{"to": null}', "to: must be a string, not null"),
        ('{"to": "@A", "to": "@A"}', "a name occurs twice"),
        ('{"to": "@A", "digits": "6"}', "digits: must be a whole number"),
        ('{"to": "@A", "digits": true}', "digits: must be a whole number"),
        ('{"to": "@A", "digits": 6.0}', "digits: must be a whole number"),
        ('{"to": "@A", "scope": 1}', "scope: must be a string, not a number"),
        ('{"to": "@A", "scope": ""}', "scope: must not be empty"),
        ('{"to": "@A", "message": "\\ud800 {CODE}"}', "message: must be text that UTF-8 can encode"),
        ('{"to": "@A", "message": {}}', "message: must be a string, not an object"),
        ('{"to": "@A\x00"}', "contains a NUL byte"),
    ],
)
def test_a_json_value_of_the_wrong_type_is_a_bad_row(line: str, reason: str) -> None:
    """Values are not converted, and the reason does not contain the number."""
    found = rows(f'{{"to": "{C}"}}\n\n{line.replace("@A", A)}\n{{"to": "{C}"}}', "jsonl")
    assert [(row.line, type(row)) for row in found] == [(1, InputRow), (3, BadRow), (4, InputRow)]
    assert found[1].reason.startswith(reason)  # type: ignore[union-attr]
    assert "9195551" not in found[1].reason.replace('{"to": "+19195551234"}', "")  # type: ignore[union-attr]


def test_json_null_and_missing_names_keep_the_commands_values() -> None:
    """Carriage returns are white space."""
    found = rows(
        f'{{"to": "{A}"}}\r\n{{"to": " {B} ", "message": "{{CODE}}", "scope": "x", "digits": 4}}\n'
        f'{{"digits": null,\r"to": "{C}"}}\n',
        "jsonl",
    )
    assert [row.to for row in found if isinstance(row, InputRow)] == [A, B, C]
    assert [row.template.digits for row in found if isinstance(row, InputRow)] == [6, 4, 6]


def test_a_json_array_is_an_error_of_the_whole_file() -> None:
    """Reading it as one bad row would not help the user."""
    assert file_error(f'\n[{{"to": "{A}"}}]', "jsonl")[1].startswith("is a JSON array")


@pytest.mark.parametrize(
    ("path", "data", "chosen", "form"),
    [
        ("a.csv", b'{"to": 1}', "auto", "csv"),
        ("a.TXT", b"x", "auto", "csv"),
        ("a.b.jsonl", b"x", "auto", "jsonl"),
        ("a.ndjson", b"x", "auto", "jsonl"),
        ("-", b'\xef\xbb\xbf {"to": 1}', "auto", "jsonl"),
        ("-", b"to", "auto", "csv"),
        ("list.json", b"[", "auto", "jsonl"),
        ("a.csv", b"x", "jsonl", "jsonl"),
        ("a.jsonl", b"x", "csv", "csv"),
    ],
)
def test_the_format_is_the_option_else_the_suffix_else_the_first_byte(
    path: str, data: bytes, chosen: Format, form: str
) -> None:
    """The suffix is compared without regard to case."""
    assert format_of(path, Source(io.BytesIO(data), path), chosen) == form


def test_opening_a_file_returns_its_size_or_an_error_without_folders(tmp_path: pathlib.Path) -> None:
    """A FIFO has no size; an error message contains the file's name but not its folders."""
    path = tmp_path / "numbers.csv"
    path.write_text(A)
    stream, size = open_input(str(path))
    stream.close()
    assert size == 12
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)
    stream, size = open_input(str(fifo))
    stream.close()
    os.close(holder)
    assert size is None
    for bad in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(InputFileError, match="cannot be read") as caught:
            open_input(str(bad))
        assert str(tmp_path) not in str(caught.value).removeprefix(bad.name)
    for nameless in (".", ""):
        with pytest.raises(InputFileError, match=f"^{re.escape(repr(nameless))}: cannot be read"):
            open_input(nameless)


def test_a_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.stdin` is None if the program is started with ``<&-``."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputFileError, match="standard input: cannot be read: it is closed"):
        open_input("-")


def test_input_file_errors_can_be_pickled() -> None:
    """Like all errors of this package."""
    error = InputFileError("numbers.csv", 7, "holds nothing")
    for again in (type(error)(*error.args), pickle.loads(pickle.dumps(error))):
        assert str(again) == "numbers.csv, line 7: holds nothing"


# Arbitrary bytes.

FRAGMENTS = [
    A, B, C, "to", "to,message\n", "to\n", ",", ",", "\n", "\n", "\r\n", "\r", '"', '"', ";", " ", "hi {CODE}", "é",
    "digits", "\ufeff", "\x0b", "\u2028", "6",
]  # fmt: skip
SOUP = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS).map(str.encode), st.sampled_from([b"\xff", b"\0", b"\xe9"])), max_size=40
).map(b"".join)


def slow_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """Parse RFC 4180 one character at a time: yield each record's first line and its cells, or None if it is broken."""
    at, line = 0, 1
    while at < len(text):
        begins, cells, broken = line, [], False
        while True:
            cell = ""
            if text[at : at + 1] == '"':
                at += 1
                while True:
                    if at >= len(text):
                        raise EOFError
                    if text.startswith('""', at):
                        cell, at = cell + '"', at + 2
                    elif text[at] == '"':
                        at += 1
                        break
                    else:
                        if text[at] == "\n" or (text[at] == "\r" and text[at + 1 : at + 2] != "\n"):
                            line += 1
                        cell, at = cell + text[at], at + 1
                broken = text[at : at + 1] not in {"", delimiter, "\r", "\n"}
            while at < len(text) and (broken or text[at] != delimiter) and text[at] not in "\r\n":
                cell, at = cell + text[at], at + 1
            cells.append(cell)
            if text[at : at + 1] == delimiter and not broken:
                at += 1
                continue
            break
        if broken and line != begins:
            raise EOFError
        at += 2 if text.startswith("\r\n", at) else 1
        line += 1
        yield begins, None if broken else cells


def names(text: str, start: int, delimiter: str) -> list[str] | None:
    """Return the cells of the record at a line, normalised as column names; None if a quote is in the wrong place."""
    with contextlib.suppress(EOFError):
        for line, cells in slow_records(text, delimiter):
            if line == start:
                return None if cells is None else [cell.strip(" \t\u00a0\r\n\ufeff").lower() for cell in cells]
    return None


@settings(max_examples=400, deadline=None)
@example(data=b'""\nto', piece=0)
@example(data=b'" "\nto', piece=0)
@example(data=b"  \nto;message\n", piece=0)
@given(
    data=st.one_of(SOUP, SOUP.map(lambda rest: b"to,message\n" + rest), st.binary(max_size=60)), piece=st.integers(0, 7)
)
def test_arbitrary_bytes_give_an_error_or_the_rows_of_a_slow_reader(data: bytes, piece: int) -> None:
    """The rows are those of the slow reader, in order, independent of the sizes of the reads.

    Blank lines are skipped. The first line that is not blank is a header if it has a column "to", or a single cell
    without a digit, also an empty cell in quotes.
    """
    try:
        found = list(reader(data, piece=piece))
    except InputFileError as error:
        message = str(error)
        assert "9195551" not in message
        return
    while data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
    text = data.decode("utf-8", "surrogateescape")
    start = next(n for n, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1) if line.strip())
    headers = {candidate: names(text, start, candidate) for candidate in ",;\t|"}
    read = [candidate for candidate, found_names in headers.items() if found_names is not None]
    delimiter = next((candidate for candidate in read if "to" in (headers[candidate] or [])), read[0])
    records = [
        (line, cells)
        for line, cells in slow_records(text, delimiter)
        if line == start or (line > start and (cells is None or any(cells)))
    ]
    first = records[0][1] or []
    header = headers[delimiter] or []
    if "to" in header or not any(char.isdigit() for char in "".join(first)):
        records.pop(0)
    assert [row.line for row in found] == [line for line, _ in records]
    place = header.index("to") if "to" in header else 0
    for row, (_, cells) in zip(found, records, strict=True):
        if isinstance(row, InputRow):
            assert cells is not None
            assert row.to == cells[place].strip(" \t\u00a0")
            assert list(row.cells) == cells


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    table=st.lists(st.tuples(st.sampled_from([A, B, C]), CELL, CELL), min_size=1, max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
    piece=st.integers(0, 9),
)
def test_every_row_of_a_quoted_csv_file_is_read(
    table: list[tuple[str, str, str]], end: str, mark: bytes, piece: int
) -> None:
    """A well-formed file is accepted with any contents in its other columns."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerow(["name", "to", "note"])
    writer.writerows([(name, number, note) for number, name, note in table])
    found = list(reader(mark + out.getvalue().encode(), piece=piece))
    assert [row.to for row in found if isinstance(row, InputRow)] == [number for number, _, _ in table]


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.fixed_dictionaries({"to": st.one_of(st.sampled_from([A, B]), CELL, st.none(), st.integers())}),
            st.recursive(st.none() | st.booleans() | st.integers() | CELL, lambda inner: st.lists(inner, max_size=2)),
        ),
        min_size=1,
        max_size=20,
    ),
    piece=st.integers(0, 9),
)
def test_arbitrary_json_values_give_one_row_per_line(values: list[Any], piece: int) -> None:
    """A row is good if and only if it is an object with a valid number."""
    data = "\n".join(json.dumps(value) for value in values).encode()
    try:
        found = list(reader(data, "jsonl", piece=piece))
    except InputFileError as error:
        assert "array" in error.problem  # noqa: PT017 - one of two valid results
        assert isinstance(values[0], list)
        return
    assert [row.line for row in found] == list(range(1, len(values) + 1))
    for row, value in zip(found, values, strict=True):
        assert isinstance(row, InputRow) == (isinstance(value, dict) and value["to"] in {A, B})


# The scan of a whole file.


def test_a_scan_counts_rows_duplicates_and_segments(tmp_path: pathlib.Path) -> None:
    """Segments are counted by each row's own text; calls count once each."""
    long = "{CODE}" + "x" * 200
    data = f"to,message\n{A},\n{B},{long}\n{A},\n{A},{long}\n{B},{long}\nunknown,\n"
    with RepeatCounter() as counter, Rejects(str(tmp_path / "r.csv")) as rejects:
        found = scan(reader(data.encode()), channel="messaging", counter=counter, rejects=rejects)
    assert (found.rows, found.valid, found.bad, found.duplicates) == (6, 5, 1, 2)
    assert list(found.repeat_lines) == [5]
    assert (found.weight, found.lightest, found.heaviest) == (8, 1, 2)
    assert [(bad.line, bad.is_repeat) for bad in found.samples] == [(7, False), (5, True)]
    header, (line, _, *cells) = csv.reader((tmp_path / "r.csv").read_text().splitlines())
    assert (header, line, cells) == (["line", "reason", "to", "message"], "7", ["unknown", ""])
    assert scan_document(found, "messaging", None)["seconds"] == round(8 * 2 / 5, 1)
    assert scan_document(found, "messaging", None, allow_repeats=True)["seconds"] == round(8 * 3 / 5, 1)
    calls = scan(reader(data.encode()), channel="voice")
    assert (calls.weight, calls.duplicates) == (5, 0)


@pytest.mark.parametrize("buffered", [1, 3, 1 << 16])
@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["x", "x ", "y"])), min_size=1, max_size=20)
)
def test_repeats_are_found_like_with_a_dict(buffered: int, values: list[tuple[str, str]]) -> None:
    """A file is scanned and a pipe is indexed: both find the rows that differ from the first of their number."""
    data = "to,scope\n" + "".join(f'{number},"{scope}"\n' for number, scope in values)
    first: dict[str, str] = {}
    repeated = [line for line, (number, scope) in enumerate(values, 2) if first.setdefault(number, scope) != scope]
    with pytest.MonkeyPatch.context() as patch, RepeatCounter() as counter:
        patch.setattr("bandwidth_mfa_async.cli.bulk._repeats._MAX_BUFFERED", buffered)
        found = scan(reader(data.encode()), channel="voice", counter=counter)
    assert list(found.repeat_lines) == repeated
    assert found.duplicates == len(values) - len(first) - len(repeated)
    index = RepeatIndex()
    piped = RowReader(Source(io.BytesIO(data.encode()), "x"), TEMPLATE, "csv", index.is_repeat)
    assert [row.line for row in piped if isinstance(row, BadRow) and row.is_repeat] == repeated
    index.close()


def test_without_own_values_no_row_is_a_repeat() -> None:
    """Rows of the same text are equal; only a dry run counts them."""
    data = f"to,name\n{A},x\n{A},y\n".encode()
    with RepeatCounter() as counter:
        assert scan(reader(data), channel="voice", counter=counter).duplicates == 0
    with RepeatCounter() as counter:
        found = scan(reader(data), channel="voice", counter=counter, count_duplicates=True)
    assert (found.duplicates, found.repeated) == (1, 0)


def numbered(line: int, number: int) -> InputRow:
    return InputRow(line, f"+1{number}", TEMPLATE, ())


def test_duplicates_are_counted_across_several_flushes() -> None:
    """150,000 values exceed the buffer, so the file contains several parts."""
    with RepeatCounter() as counter:
        for line in range(150_000):
            counter.add(numbered(line, line % 140_000))
        assert counter.count() == (10_000, array("q"))


@pytest.mark.parametrize("full", [False, True])
def test_a_temporary_folder_that_is_missing_or_full_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, full: bool
) -> None:
    """The message names TMPDIR. Closing the file flushes the data again; the second failure is suppressed."""
    from bandwidth_mfa_async import ConfigurationError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path if full else tmp_path / "gone"))
    monkeypatch.setattr("bandwidth_mfa_async.cli.bulk._repeats._MAX_BUFFERED", 1)
    if full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: open("/dev/full", "w+b"))  # noqa: SIM115, PTH123
    with (
        pytest.raises(ConfigurationError, match="No space left on device; name" if full else "TMPDIR"),
        RepeatCounter() as counter,
    ):
        counter.add(numbered(1, 9195550100))
