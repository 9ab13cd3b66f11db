"""`bandwidth-mfa report` on a journal: what it prints, writes and refuses."""

from __future__ import annotations

import asyncio
import errno
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from markupsafe import escape

from bandwidth_mfa_async import BulkSender, CodeTemplate, MFAClient, SQLiteJournal
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.support.journal_file import BEGAN, make_journal

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPTED = ("accepted", None, None, 0)
UNKNOWN = ("unknown", "ReadTimeoutError", None, 0)
EVIL = "<img src=x onerror=ran.push(1)>&\"'</script>"


def test_the_summary_fits_80_columns(launch: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It contains outcomes, speed, failures and next steps, without colours in a pipe."""
    monkeypatch.setenv("COLUMNS", "80")
    result = invoke(launch)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    for shown in ("codes were accepted", "killed", "finished", "p99", "429s", "BadRequestError 400", "AT_LEAST_ONCE"):
        assert shown in result.output


@pytest.mark.parametrize("how", [(), ("--html", "-"), ("--json",)])
def test_an_interrupted_run_is_counted_against_its_whole_input(
    tmp_path: Path, invoke: Callable[..., Any], how: tuple[str, ...]
) -> None:
    """The headline, the outcomes and the next steps say what no run has taken."""
    sessions = [(BEGAN + 0.2, BEGAN + 60.0, "stopped")]
    path = make_journal(tmp_path / "run.db", items=[ACCEPTED] * 1_884, sessions=sessions, input_items="5000")
    output = " ".join(invoke(path, *how).output.split())
    if how == ("--json",):
        totals = json.loads(output)["totals"]
        assert (totals["input_items"], totals["not_taken"], totals["items"]) == (5_000, 3_116, 1_884)
        return
    assert "1,884 of 5,000 codes were accepted" in output
    assert "3,116 items not taken from the input yet" in output
    assert "in the input, but no run has read it yet" in output
    assert "37.7 %" in output
    assert "62.3 %" in output


@pytest.mark.parametrize("how", [(), ("--html", "-")])
def test_the_next_steps_are_right_for_one_item(
    tmp_path: Path, invoke: Callable[..., Any], how: tuple[str, ...]
) -> None:
    """A single item is not "them"."""
    rejected, sending = ("rejected", "BadRequestError", 400, 0), ("sending", None, None, 0)
    items = [UNKNOWN, rejected, sending, ("pending", None, None, 0)]
    path = make_journal(tmp_path / "run.db", items=items, sessions=[(BEGAN + 0.2, BEGAN + 60.0, "stopped")])
    text = re.sub(r"(?s)<script.*?</script>|<[^>]*>", "", invoke(path, *how).output)
    steps = " ".join(text.split()).lower().partition("next steps")[2].partition("codes over time")[0]
    assert steps.count("1 item ") >= 4
    assert not re.search(r"\b(them|they|1 items)\b", steps)


@pytest.mark.parametrize("how", [(), ("--html", "-"), ("--json",)])
def test_possible_duplicates_are_shown(tmp_path: Path, invoke: Callable[..., Any], how: tuple[str, ...]) -> None:
    """Also that an older version did not record them."""
    recorded = make_journal(tmp_path / "run.db", items=[ACCEPTED] * 3, possible_duplicate=True)
    older = make_journal(tmp_path / "older.db", items=[ACCEPTED] * 3, possible_duplicate=None)
    plain = make_journal(tmp_path / "plain.db", items=[ACCEPTED] * 3)
    outputs = [" ".join(invoke(path, *how).output.split()) for path in (recorded, older, plain)]
    if how == ("--json",):
        names = ("possible_duplicates", "possible_duplicates_unrecorded")
        assert [tuple(json.loads(output)[name] for name in names) for output in outputs] == [(3, 0), (0, 3), (0, 0)]
        return
    assert "3 possible duplicates" in outputs[0]
    assert "0 possible duplicates; not recorded for 3 by an older version" in outputs[1]
    assert "possible duplicate" not in outputs[2].lower()


def test_json_is_one_document(launch: Path, invoke: Callable[..., Any]) -> None:
    """It contains more positions than the summary."""
    document = json.loads(invoke(launch, "--json").output)
    assert document["totals"]["items"] == 2_000
    assert sum(document["counts"].values()) == 2_000
    assert len(document["unknown_positions"]) == document["counts"]["unknown"]


def test_positions_are_limited_and_the_rest_is_counted(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """The summary shows 20 positions and JSON 1,000, with the number of the others."""
    path = make_journal(tmp_path / "run.db", items=[UNKNOWN] * 1_500)
    assert "19 and 1,480 more" in " ".join(invoke(path).output.split())
    assert len(json.loads(invoke(path, "--json").output)["unknown_positions"]) == 1_000
    assert "19 and 1,480 more" in invoke(path, "--html", "-").output


def test_the_page_is_written_to_a_file_or_standard_output(
    launch: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    """An older page is replaced."""
    page = tmp_path / "page.html"
    page.write_text("the page of yesterday")
    assert invoke(launch, "--html", page).output == f"wrote {page}: open it in a browser\n"
    written = re.sub(r"read \S+ \S+ UTC", "", page.read_text())
    assert written == re.sub(r"read \S+ \S+ UTC", "", invoke(launch, "--html", "-").output)
    assert written.startswith("<!doctype html>")


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-mark"])
def test_the_page_never_overwrites_the_journal(
    launch: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Nor a file beside it, existing or not, under any name or link."""
    monkeypatch.chdir(launch.parent)
    own = Path(f"{launch}{ending}")
    link, hard, alias = Path("page.html"), Path("hard.html"), Path("alias.db")
    link.symlink_to(own.name)
    alias.symlink_to(launch.name)
    targets = [own, Path(own.name), Path("..", launch.parent.name, own.name), link]

    def refused(journal: Path, target: Path) -> None:
        result = invoke(journal, "--html", target)
        assert result.exit_code == 2, target
        assert f"error: --html: {target} is the journal or one of its files" in result.output

    for target in targets:
        refused(launch, target)
        refused(alias, target)
    assert own.exists() is not bool(ending)
    if ending:
        own.write_bytes(b"kept")
    os.link(own, hard)
    before = own.read_bytes()
    for target in [*targets, hard]:
        refused(launch, target)
    assert own.read_bytes() == before


def test_a_replaced_page_keeps_its_link_and_mode(launch: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """A new page has the mode of any new file."""
    folder = tmp_path / "pages"
    folder.mkdir()
    page, link, new = folder / "page.html", tmp_path / "link.html", folder / "new.html"
    page.write_text("the page of yesterday")
    page.chmod(0o640)
    link.symlink_to(page)
    (tmp_path / "any").touch()
    assert invoke(launch, "--html", link).exit_code == 0
    assert invoke(launch, "--html", new).exit_code == 0
    assert link.is_symlink()
    assert page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mode == (tmp_path / "any").stat().st_mode
    assert sorted(folder.iterdir()) == [new, page]


def test_a_page_without_write_permission_is_an_error(
    launch: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page or its folder is read-only."""
    page = launch.with_name("page.html")
    page.write_text("the page of yesterday")
    for name in ("open", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(f"bandwidth_mfa_async.cli._files.os.{name}", _denied)
            result = invoke(launch, "--html", page)
        assert result.exit_code == 2
        assert "Permission denied; get write permission for its folder, or name another file" in result.output
        assert page.read_text() == "the page of yesterday"
        assert sorted(launch.parent.iterdir()) == [launch, page]


def _denied(*_: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing.db"], "there is no such file"),
        (
            ["launch.db", "--html", "no/such/folder.html"],
            (
                "error: --html: no/such/folder.html cannot be written: No such file or directory; "
                "create its folder, or name"
            ),
        ),
        pytest.param(
            ["launch.db", "--html", "/dev/full"],
            "error: --html: /dev/full cannot be written: No space left on device; "
            "free some space, or name another file",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full"),
        ),
        (["launch.db", "--html", "loop"], "error: --html: loop cannot be written: Too many levels of symbolic links"),
        (["launch.db", "--html", "."], "is a directory"),
        (["launch.db", "--json", "--html", "page.html"], "exclude each other"),
        ([], "Missing argument"),
        (["text.db"], "is not a journal"),
    ],
)
def test_bad_usage_exits_with_2(
    launch: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    """The message says what is wrong, without a traceback."""
    monkeypatch.chdir(launch.parent)
    Path("text.db").write_text("to\n" * 1_000)
    Path("loop").symlink_to("loop")
    result = invoke(*args)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output


def test_every_journal_has_a_summary_and_a_page(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """Empty, one item, only invalid items, one second, all rejected, in flight, and extreme values."""
    invalid = ("invalid", "InvalidRequestError", None, 0)
    throttled = ("rejected", "RateLimitError", 429, 1)
    journals: dict[str, dict[str, Any]] = {
        "nothing": {"sessions": []},
        "a session without items": {},
        "one": {"items": [ACCEPTED], "seconds": {BEGAN: {"accepted": 1}}, "latency": [0.1]},
        "one failed": {"items": [UNKNOWN], "seconds": {BEGAN: {"unknown": 1}}},
        "invalid": {"items": [invalid] * 9, "seconds": {BEGAN + at: {"invalid": 3} for at in range(3)}},
        "all 429": {
            "items": [throttled] * 60,
            "seconds": {BEGAN + at: {"rejected": 1, "throttled": 3} for at in range(60)},
            "latency": [0.01] * 60,
        },
        "only retries": {"items": [("sending", None, None, 0)], "seconds": {BEGAN + 9: {"throttled": 9}}},
        "a strange cause": {"items": [("unknown", EVIL, 599, 0)], "run": EVIL, "channel": EVIL},
        "fast and slow": {"items": [ACCEPTED] * 2, "latency": [1e-6, 9e4]},
        "ages": {"seconds": {at: {"accepted": 1} for at in (-(10**9), 0, 4 * 10**9)}, "items": [ACCEPTED]},
    }
    for name, content in journals.items():
        path = make_journal(tmp_path / f"{name}.db", **content)
        summary, page = invoke(path), invoke(path, "--html", "-")
        assert (summary.exit_code, page.exit_code) == (0, 0), (name, summary.exception, page.exception)
        assert "next steps" in summary.output
        assert "<h1>" in page.output
        check_page(page.output)


class Checker(HTMLParser):
    """Checks the structure and the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in {"style", "src", "href"} and (tag, value) != ("link", "data:,")):
                self.problems.append(f"{tag} {name}={value}")
        if tag == "svg" and "role" in dict(attrs) and not dict(attrs).get("aria-label"):
            self.problems.append("a drawing without a name")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")


def check_page(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    assert (checker.problems, checker.open) == ([], [])
    assert "default-src 'none'" in html.unescape(page)
    assert page.count("<script>") == 1
    assert "http" not in page.replace("http-equiv", "")
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page).lower().replace("finance", "")


def test_text_from_a_journal_is_escaped(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """It is neither markup on the page nor rich's markup in the terminal."""
    items = [("unknown", EVIL, 599, 0)]
    page = invoke(make_journal(tmp_path / "a.db", items=items, run=EVIL), "--html", "-").output
    assert escape(EVIL) in page
    assert "<img" not in page
    summary = invoke(make_journal(tmp_path / "b.db", items=items, run="[red]launch[/] :smile: [link=x]")).output
    assert "[red]launch[/] :smile: [link=x]" in summary


async def test_no_report_contains_personal_data(tmp_path: Path) -> None:
    """Sentinels in numbers, texts, names and errors are in no summary, JSON document or page."""
    secret = CodeTemplate("+18887776655", "s3ntinel", scope="s3ntinel", message="s3ntinel {CODE}")
    path = tmp_path / "run.db"
    async with Simulator() as sim, MFAClient(**sim.client_kwargs()) as mfa:
        sim.faults.script(Fault(status=400, body=b'{"error": "no: +19998887766"}'), Fault(drop="after_read"))
        numbers = ["+19998887766", "+19998887767", "+19998887768", "unknown 9998887766"]
        async with BulkSender(mfa, journal=SQLiteJournal(path, run="s3ntinel"), max_in_flight=1) as bulk:
            done = [outcome.delivery async for outcome in bulk.send(numbers, template=secret)]
    assert sorted(done) == ["accepted", "invalid", "rejected", "unknown"]
    for option in ([], ["--json"], ["--html", "-"]):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["report", str(path), *option])
        assert result.exit_code == 0
        for sentinel in ("999888776", "8887776655", "s3ntinel"):
            assert sentinel not in result.output


def test_a_page_for_a_pipe_that_no_program_reads_is_an_error(
    launch: Path, tmp_path: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening such a pipe blocks for ever."""
    monkeypatch.setattr("bandwidth_mfa_async._files.READER_TIMEOUT", 0.0)
    os.mkfifo(tmp_path / "pipe")
    result = invoke(launch, "--html", tmp_path / "pipe")
    assert result.exit_code == 2
    assert "start the program that reads it first, or name another file" in result.stderr
