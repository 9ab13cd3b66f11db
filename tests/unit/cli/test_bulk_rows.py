"""The reader of a bulk run's input: every row is there once and in order, or its trouble is named with its line."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import os
import pickle
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async import CodeTemplate
from bandwidth_mfa_async.cli.bulk._input_scan import DuplicateCounter, document_of, scan
from bandwidth_mfa_async.cli.bulk._rejects import Rejects
from bandwidth_mfa_async.cli.bulk._rows import BadRow, Format, InputRow, RowReader, format_of
from bandwidth_mfa_async.cli.bulk._source import MAX_LINE, InputFileError, Source, open_input
from tests.conftest import APPLICATION, FROM

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

TEMPLATE = CodeTemplate(FROM, APPLICATION, scope="login")
A, B, C = "+19195551234", "+19195551235", "+19195551236"


class Trickle(io.RawIOBase):
    """A pipe whose other end writes little at a time."""

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


def trouble(data: bytes | str, form: Format = "csv") -> tuple[int | None, str]:
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
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_the_shapes_of_csv(text: str, mark: bytes) -> None:
    """With a header or without, with any line end, any usual separator, with a byte-order mark or not."""
    assert numbers(mark + text.encode()) == [A, B]


def test_columns_say_what_the_command_does_not() -> None:
    """A row's own message, scope and digits win; an empty cell leaves the command's."""
    found = rows(f"to,scope,digits,message\n{A},,,\n{B},pay,8,Use {{CODE}}\n")
    assert found[0].template == TEMPLATE  # type: ignore[union-attr]
    other = found[1].template  # type: ignore[union-attr]
    assert (other.scope, other.digits, other.message, other.from_) == ("pay", 8, "Use {CODE}", FROM)


def test_unknown_columns_are_named_once() -> None:
    """So that a misspelt one is seen; names are made safe to show."""
    reading = reader(f"to,name,massage,{B}\n{A},joe,hi,x\n".encode())
    assert len(list(reading)) == 1
    assert reading.ignored == ["name", "massage", "***"]
    reading = reader(f'{{"to": "{A}", "name": 1}}\n{{"to": "{B}", "name": 2, "x": 3}}\n'.encode(), "jsonl")
    assert len(list(reading)) == 2
    assert reading.ignored == ["name", "x"]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("", "is empty"),
        ("9195550100", "lacks the '+'"),
        ("0019195550100", "begins with 00"),
        ("+1 919 555-1234", "spaces or punctuation"),
        ("(919) 555-1234", "spaces or punctuation"),
        ("1.91956E+10", "shortened by a spreadsheet"),
        ("+12345678901234567", "more than 15 digits"),
        ("joe", "is not a phone number"),
        ("+1919555123x", "is not a phone number"),
        ("+١٢٣٤٥٦٧", "is not a phone number"),
    ],
)
def test_a_bad_number_is_told_what_to_do(cell: str, said: str) -> None:
    """The reason says what a number looks like and never repeats this one."""
    for found in (rows(f"to,name\n{A},x\n{cell},joe\n"), rows("\n" + json.dumps({"to": cell}), "jsonl")):
        (bad,) = [row for row in found if isinstance(row, BadRow)]
        assert said in bad.reason
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
        (f"to,name\n{A}\n", "has 1 columns where the first line has 2"),
        (f"to,name\n{A},x,y\n", "has 3 columns where the first line has 2"),
        (f"to\n{A}\0\n", "holds a NUL byte"),
        (f'to,name\n"{A}"x,y\n', 'a quote (") ends inside a field'),
        (f"to,name\n{A},{'x' * 200_000}\n", "a field is longer than 131,072 characters"),
        (f'to\n"{A}\n"\n', "holds a line break"),
    ],
    ids=lambda text: text[:30],
)
def test_a_bad_row_ends_nothing(text: str, reason: str) -> None:
    """It is given with its line and reason, and the rows around it are read."""
    header, row = text.split("\n", 1)
    rest = ",," if "," not in header else "," * header.count(",")
    good = B if header == "to" else f"{B}{rest}"
    found = rows(f"{header}\n{good}\n{row}{good}\n")
    assert [type(one) for one in found] == [InputRow, BadRow, InputRow]
    assert found[1].line == 3
    assert found[1].reason.replace("to: ", "").startswith(reason)  # type: ignore[union-attr]
    assert "9195551" not in found[1].reason.replace("+19195551234", "")  # type: ignore[union-attr]


def test_bytes_that_are_not_utf8_spoil_their_row_only() -> None:
    """A name in Latin-1 is one bad row; what follows is read."""
    found = rows(f"to,name\n{A},joe\n{B},".encode() + "José".encode("latin-1") + f"\n{C},ann\n".encode())
    assert [(row.line, type(row)) for row in found] == [(2, InputRow), (3, BadRow), (4, InputRow)]
    assert "not UTF-8" in found[1].reason  # type: ignore[union-attr]
    cut = rows(f"to\n{A}\n".encode() + "é".encode()[:1])
    assert [(row.line, type(row)) for row in cut] == [(2, InputRow), (3, BadRow)]


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b"", None, "is empty"),
        (b"\xef\xbb\xbf", None, "is empty"),
        (b" \r\n\n\t", None, "is empty"),
        (b"to\n", None, "holds no row"),
        (b"to,name\n,\n\n", None, "holds no row"),
        (f"to\n{A}\n".encode("utf-16"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-16-le"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-16-be"), 1, "UTF-16"),
        (f"to\n{A}\n".encode("utf-32"), 1, "UTF-16 or UTF-32"),
        (f"to\n{A}\n".encode("utf-32-le"), 1, "UTF-16 or UTF-32"),
        (b"PK\x03\x04\x14\x00", None, "workbook"),
        (b"\x1f\x8b\x08\x00", None, "gunzip"),
        (b"SQLite format 3\x00\x10", None, "database"),
        (f"name,phone\njoe,{A}\n", 1, "rename 'phone' to 'to'"),
        (f"{A},joe\n{B},ann\n", 1, "in a first line"),
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
def test_files_that_cannot_be_read(data: bytes | str, line: int | None, said: str) -> None:
    """What concerns the file as a whole is one error that names the line and the remedy."""
    at, problem = trouble(data)
    assert at == line
    assert said in problem


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ('{"to": "@A"} x', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"to": "@A", "digits": ' + "9" * 5000 + "}", "is not JSON"),
        ('"@A"', "is a text, not an object"),
        ("null", "is null, not an object"),
        ('["@A"]', "is an array, not an object"),
        ('{"To": "@A"}', "has no 'to'"),
        ('{"to": 19195551234}', "to: must be a text, not a number"),
        ('{"to": null}', "to: must be a text, not null"),
        ('{"to": "@A", "to": "@A"}', "a name stands twice"),
        ('{"to": "@A", "digits": "6"}', "digits: must be a whole number"),
        ('{"to": "@A", "digits": true}', "digits: must be a whole number"),
        ('{"to": "@A", "digits": 6.0}', "digits: must be a whole number"),
        ('{"to": "@A", "scope": 1}', "scope: must be a text, not a number"),
        ('{"to": "@A", "scope": ""}', "scope: must not be empty"),
        ('{"to": "@A", "message": "\\ud800 {CODE}"}', "message: must be text that UTF-8 can encode"),
        ('{"to": "@A", "message": {}}', "message: must be a text, not an object"),
        ('{"to": "@A\x00"}', "holds a NUL byte"),
    ],
)
def test_json_lines_are_strict_about_types(line: str, reason: str) -> None:
    """A value of the wrong kind is a bad row; nothing is guessed, nothing is repeated."""
    found = rows(f'{{"to": "{C}"}}\n\n{line.replace("@A", A)}\n{{"to": "{C}"}}', "jsonl")
    assert [(row.line, type(row)) for row in found] == [(1, InputRow), (3, BadRow), (4, InputRow)]
    assert found[1].reason.startswith(reason)  # type: ignore[union-attr]
    assert "9195551" not in found[1].reason.replace('{"to": "+19195551234"}', "")  # type: ignore[union-attr]


def test_json_lines_that_are_right() -> None:
    """Nulls and absent names leave the command's; carriage returns are white space."""
    found = rows(
        f'{{"to": "{A}"}}\r\n{{"to": " {B} ", "message": "{{CODE}}", "scope": "x", "digits": 4}}\n'
        f'{{"digits": null,\r"to": "{C}"}}\n',
        "jsonl",
    )
    assert [row.to for row in found if isinstance(row, InputRow)] == [A, B, C]
    assert [row.template.digits for row in found if isinstance(row, InputRow)] == [6, 4, 6]


def test_a_json_array_is_named() -> None:
    """It would be one bad row, and helps nobody."""
    assert trouble(f'\n[{{"to": "{A}"}}]', "jsonl")[1].startswith("is a JSON array")


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
def test_the_format(path: str, data: bytes, chosen: Format, form: str) -> None:
    """The option, else the name's ending, else the first byte."""
    assert format_of(path, Source(io.BytesIO(data), path), chosen) == form


def test_files_are_opened(tmp_path: pathlib.Path) -> None:
    """A size where there is one; what cannot be opened is named without its folders."""
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


def test_a_closed_standard_input_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no `sys.stdin` where a program is started with it closed, as by ``<&-``."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputFileError, match="standard input: cannot be read: it is closed"):
        open_input("-")


def test_errors_can_be_rebuilt() -> None:
    """As all errors of ours can."""
    error = InputFileError("numbers.csv", 7, "holds nothing")
    for again in (type(error)(*error.args), pickle.loads(pickle.dumps(error))):
        assert str(again) == "numbers.csv, line 7: holds nothing"


# Whatever bytes come in.

FRAGMENTS = [
    A, B, C, "to", "to,message\n", "to\n", ",", ",", "\n", "\n", "\r\n", "\r", '"', '"', ";", " ", "hi {CODE}", "é",
    "digits", "\ufeff", "\x0b", "\u2028", "6",
]  # fmt: skip
SOUP = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS).map(str.encode), st.sampled_from([b"\xff", b"\0", b"\xe9"])), max_size=40
).map(b"".join)


def slow_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | None]]:
    """RFC 4180 a character at a time: the line each record begins on, and its cells; None for one that breaks it."""
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


@settings(max_examples=400, deadline=None)
@given(
    data=st.one_of(SOUP, SOUP.map(lambda rest: b"to,message\n" + rest), st.binary(max_size=60)), piece=st.integers(0, 7)
)
def test_whatever_bytes_come_in(data: bytes, piece: int) -> None:
    """Either a named error, or the rows that a slow reader finds, in order; however the bytes are cut into reads."""
    try:
        found = list(reader(data, piece=piece))
    except InputFileError as error:
        said = str(error)
        assert "9195551" not in said
        return
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    delimiter = ","
    records: list[tuple[int, list[str] | None]] = []
    for candidate in ",;":
        records = [(line, cells) for line, cells in slow_records(text, candidate) if cells is None or any(cells)]
        if records[0][1] and "to" in [cell.strip(" \t\u00a0").lower() for cell in records[0][1]]:
            delimiter = candidate
            break
    else:
        records = [(line, cells) for line, cells in slow_records(text, ",") if cells is None or any(cells)]
    while records and not "".join(records[0][1] or ["x"]).strip():
        records.pop(0)  # lines of spaces before the header
    first = records[0][1] or []
    header = [cell.strip(" \t\u00a0").lower() for cell in first]
    if "to" in header or not any(char.isdigit() for char in "".join(first)):
        records.pop(0)
    assert delimiter in ",;"
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
def test_what_a_spreadsheet_writes_is_read(
    table: list[tuple[str, str, str]], end: str, mark: bytes, piece: int
) -> None:
    """No well-formed file is refused, whatever its other columns hold, and every row is there."""
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
def test_whatever_json_comes_in(values: list[Any], piece: int) -> None:
    """One row a line, in order; good exactly when it is an object with a number."""
    data = "\n".join(json.dumps(value) for value in values).encode()
    try:
        found = list(reader(data, "jsonl", piece=piece))
    except InputFileError as error:
        assert "array" in error.problem  # noqa: PT017 - one of two ways to end
        assert isinstance(values[0], list)
        return
    assert [row.line for row in found] == list(range(1, len(values) + 1))
    for row, value in zip(found, values, strict=True):
        assert isinstance(row, InputRow) == (isinstance(value, dict) and value["to"] in {A, B})


# The look through a whole file.


def test_what_is_found(tmp_path: pathlib.Path) -> None:
    """Rows, bad ones, repeats, and segments by each row's own text."""
    long = "{CODE}" + "x" * 200
    data = f"to,message\n{A},\n{B},{long}\n{A},\n{A},{long}\n{B},{long}\nnobody,\n"
    with DuplicateCounter() as repeats, Rejects(str(tmp_path / "r.csv")) as rejects:
        found = scan(reader(data.encode()), channel="messaging", repeats=repeats, rejects=rejects)
    assert (found.rows, found.valid, found.bad, found.repeats) == (6, 5, 1, 2)
    assert (found.weight, found.lightest, found.heaviest) == (8, 1, 2)
    assert [bad.line for bad in found.samples] == [7]
    header, (line, _, *cells) = csv.reader((tmp_path / "r.csv").read_text().splitlines())
    assert (header, line, cells) == (["line", "reason", "to", "message"], "7", ["nobody", ""])
    assert document_of(found, "messaging", None)["seconds"] == round(8 * 3 / 5, 1)
    calls = scan(reader(data.encode()), channel="voice")
    assert (calls.weight, calls.repeats) == (5, None)


@settings(max_examples=50, deadline=None)
@given(values=st.lists(st.text(max_size=2)))
def test_repeats_are_counted(values: list[str]) -> None:
    """As a set would, without one."""
    with DuplicateCounter() as repeats:
        for value in values:
            repeats.add(value)
        assert repeats.count() == len(values) - len(set(values))


def test_repeats_among_many() -> None:
    """Across what is written to disk in several goes."""
    with DuplicateCounter() as repeats:
        for value in range(300_000):
            repeats.add(f"+1{value % 290_000}")
        assert repeats.count() == 10_000


def test_a_folder_that_takes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Named, with the variable that names another."""
    from bandwidth_mfa_async import ConfigurationError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match="TMPDIR"):
        DuplicateCounter()


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Also where what could not be written is tried once more as the file is closed."""
    from bandwidth_mfa_async import ConfigurationError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: open("/dev/full", "w+b"))  # noqa: SIM115, PTH123
    with pytest.raises(ConfigurationError, match="No space left on device; name"), DuplicateCounter() as found:
        found.add("x")
        found.count()


def test_memory_does_not_grow_with_the_file() -> None:
    """A hundred times the rows, the same peak: nothing is kept of a row that has been counted."""
    import tracemalloc

    class Rows(io.RawIOBase):
        def __init__(self, count: int) -> None:
            self._lines = (b"+1919%07d\n" % n for n in range(count))

        def read(self, size: int = -1) -> bytes:
            return b"".join(itertools.islice(self._lines, size // 13))

    def peak(count: int) -> int:
        tracemalloc.start()
        found = scan(RowReader(Source(Rows(count), "x"), TEMPLATE, "csv"), channel="messaging")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.valid == count
        return top

    peak(100)
    assert peak(200_000) <= 1.1 * peak(20_000)
