"""`bandwidth-mfa bulk` against a simulator: what it sends, what it refuses to send, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pathlib
import re
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from bandwidth_mfa_async.cli.bulk import _run, _scan_progress
from bandwidth_mfa_async.simulator import Fault
from bandwidth_mfa_async.worker._submission import Submission
from tests.conftest import APPLICATION, FROM
from tests.support.bulk_fixtures import A, B, C, both, last_json, many, rejected, sent_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from bandwidth_mfa_async.testing import ThreadedSimulator
    from tests.support.redis_server import RedisServer

# What is sent.


def test_every_number_gets_one_code(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """Duplicates and a second run send nothing more."""
    (folder / "n.csv").write_text(f"to\n{A}\n{B}\n{A}\n")
    first = bulk("n.csv", "--journal", "j.db", "--scope", "login")
    assert (first.exit_code, sent_to(simulator)) == (0, {A: 1, B: 1})
    assert "accepted" in first.stdout
    again = bulk("n.csv", "--journal", "j.db", "--scope", "login", "--json")
    document = last_json(again)
    assert (again.exit_code, len(simulator.inbox)) == (0, 2)
    assert (document["taken"], document["skipped"], document["resume_with"]) == (3, 3, None)
    assert document["skipped_because"] == {"accepted": 3}
    other = bulk("n.csv", "--journal", "j.db", "--scope", "login", "--run", "tomorrow")
    assert (other.exit_code, sent_to(simulator)) == (0, {A: 2, B: 2})


def test_a_rows_values_override_the_options(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """In CSV and in JSON Lines."""
    (folder / "n.csv").write_text(f'to,digits,message,scope\n{A},8,"Use {{CODE}}, now",pay\n{B},,,\n')
    (folder / "n.jsonl").write_text(f'{{"to": "{C}", "digits": 5, "message": "Five {{CODE}}"}}\n')
    assert bulk("n.csv", "--digits", "4", "--scope", "login").exit_code == 0
    assert bulk("n.jsonl").exit_code == 0
    texts = {message.to: message for message in simulator.inbox}
    assert re.fullmatch(r"Use \d{8}, now", texts[A].text)
    assert (len(texts[B].code), texts[B].scope) == (4, "login")
    assert re.fullmatch(r"Five \d{5}", texts[C].text)


def test_voice_places_calls(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """`--voice` uses the application of its own variable."""
    (folder / "n.txt").write_text(A)
    assert bulk("n.txt", "--voice", "--journal", "j.db").exit_code == 0
    assert [message.channel for message in simulator.inbox] == ["voice"]
    texts = bulk("n.txt", "--journal", "j.db", "--application-id", "voice")
    assert texts.exit_code == 2
    assert "another channel" in texts.stderr
    assert len(simulator.inbox) == 1


def test_corrected_rejects_are_sent(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """Bad and rejected rows are written with line and reason; the corrected file is valid input."""
    (folder / "n.csv").write_text(f"name,to,digits\nann,{A},\njoe,2025550101,\nbea,{B},3\nkim,{C},\nsam,+12,,\n")
    simulator.faults.script(Fault(status=400, body={"error": "to number is not reachable"}), to=C)
    result = bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv")
    assert (result.exit_code, sent_to(simulator)) == (1, {A: 1})
    rows = {row["line"]: row for row in rejected(folder / "r.csv")}
    assert rows.keys() == {"3", "4", "5", "6"}
    assert rows["3"]["reason"].startswith("to: does not begin with '+'")
    assert rows["3"]["name"] == "joe"
    assert rows["4"]["reason"] == "digits: must be a whole number from 4 to 8"
    assert rows["5"]["reason"] == "rejected by the service: 400 to number is not reachable"
    assert rows["6"]["reason"] == "has 4 columns, but the header has 3"
    assert (folder / "r.csv").stat().st_mode & 0o777 == 0o600
    assert "n.csv, line 3: to: does not begin" in result.stderr
    # A second run has the same rejects and sends nothing again.
    assert bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv").exit_code == 1
    assert [row["line"] for row in rejected(folder / "r.csv")].count("5") == 1
    assert len(rejected(folder / "r.csv")) == 4
    corrected = (folder / "r.csv").read_text().replace("2025550101", "+12025550101").replace(f"{B},3", f"{B},4")
    (folder / "corrected.csv").write_text("\n".join(corrected.splitlines()[:3]))
    second = bulk("corrected.csv", "--journal", "j.db", "--rejects", "r2.csv")
    assert (second.exit_code, sent_to(simulator)) == (0, {A: 1, "+12025550101": 1, B: 1})
    assert not (folder / "r2.csv").exists()
    # Before rich 14.1 a disabled progress bar prints an empty line.
    assert second.stderr.lstrip() == "corrected.csv: ignored columns: name\n"


def test_unknown_outcomes_exit_with_3_until_they_are_resent(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path
) -> None:
    """A resume does not send them, the rejects do not contain them, and at-least-once sends them again."""
    (folder / "n.csv").write_text(f"{A}\n{B}\n")
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    flags = ["n.csv", "--journal", "j.db", "--rejects", "r.csv", "--max-in-flight", "1"]
    first = bulk(*flags)
    assert first.exit_code == 3
    assert "--resend at-least-once" in first.stdout
    assert bulk(*flags).exit_code == 3
    assert sent_to(simulator) == {A: 1, B: 1}
    assert not (folder / "r.csv").exists()
    settled = bulk(*flags, "--resend", "at-least-once", "--json")
    assert (settled.exit_code, last_json(settled)["possible_duplicates"]) == (0, 1)
    assert sent_to(simulator) == {A: 2, B: 1}


def test_wrong_credentials_stop_a_run_early(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 1, with the service's answer and the next steps; the rows are not rejects."""
    (folder / "n.csv").write_text("\n".join(many(3000)))
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    result = bulk("n.csv", "--journal", "j.db", "--max-in-flight", "5", "--rejects", "r.csv", "--json")
    document = last_json(result)
    assert (result.exit_code, document["error"], document["ending"]) == (1, "PermissionDeniedError", "failed")
    assert document["attempts"] < 30
    # The rows are not wrong: they stay in the journal and need no correction.
    assert document["resume_with"] == "j.db"
    assert not (folder / "r.csv").exists()


def test_a_run_without_a_journal_can_be_resumed(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """The temporary journal is deleted after a finished run; otherwise its path is printed."""
    (folder / "n.csv").write_text(f"{A}\n{B}\n{A}\n")
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    document = last_json(bulk("n.csv", "--json"))
    assert document["unknown"] >= 1
    kept = document["resume_with"]
    assert pathlib.Path(kept).is_file()
    assert kept.startswith(str(folder / "tmp"))
    assert bulk("n.csv", "--journal", kept, "--resend", "at-least-once").exit_code == 0
    before = set((folder / "tmp").iterdir())
    simulator.clear()
    assert bulk("n.csv").exit_code == 0
    assert sent_to(simulator) == {A: 1, B: 1}
    assert set((folder / "tmp").iterdir()) == before


# What is refused: exit 2, and nothing sent.

HEADER_300 = ",".join(["to", *(f"c{n}" for n in range(299))])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "n.csv: is empty"),
        (b"to,name\n", "n.csv: contains no row"),
        (
            f"phone,name\n{A},x\n".encode(),
            "n.csv, line 1: no column is called 'to': pass --column 'phone', or rename it to 'to'",
        ),
        (f"{HEADER_300}\n{A}{',' * 299}\n".encode(), "n.csv, line 1: 300 columns"),
        (
            b"to\n2025550101\n2025550102\nx\n",
            "n.csv, line 2: none of the 3 rows can be sent; the first error: to: does not begin",
        ),
        (b"to\nx\n", "n.csv, line 2: the only row cannot be sent: to: is not a phone number"),
        (f"to\n{A}\n".encode("utf-16"), "n.csv, line 1: is UTF-16"),
        (f'to,name\n{A},x\n{B},"y\n{C},z\n'.encode(), "n.csv, line 3: a quote"),
        (b"to\n" + b"".join(f"{number}\n".encode() for number in many(3000)) + b'"+1', "n.csv, line 3002: a quote"),
        (None, "n.csv: cannot be read: No such file"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_bad_file_sends_nothing(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, content: bytes | None, said: str
) -> None:
    """An error on the last line is found before the first code is sent, and no file is left behind."""
    if content is not None:
        (folder / "n.csv").write_bytes(content)
    for flags in ([], ["--dry-run"], ["--json"]):
        result = bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv", *flags)
        assert result.exit_code == 2
        assert said in both(result)
        assert ("error" in json.loads(result.stdout)) if "--json" in flags else said in result.stderr
        assert not simulator.inbox
        assert not (folder / "j.db").exists()
        # Only a dry run writes the bad rows of a file that cannot be read to its end.
        if flags != ["--dry-run"] and " be sent" not in said:
            assert not (folder / "r.csv").exists()
        (folder / "r.csv").unlink(missing_ok=True)


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--json"]], ids=" ".join)
@pytest.mark.parametrize("name", ["n.csv", "n.jsonl"])
def test_a_file_without_a_valid_row_writes_all_rows_to_the_rejects(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, flags: list[str], name: str
) -> None:
    """A run and a dry run both replace the rejects of an earlier run."""
    lines = ["to,name", *(f"202555010{n},number {n}" for n in range(6))]
    if name == "n.jsonl":
        lines = ["", *(json.dumps({"to": line.partition(",")[0]}) for line in lines[1:])]
    (folder / name).write_text("\n".join(lines))
    (folder / "r.csv").write_text("line,reason,to,name\n" + "7,old,x,an older row\n" * 99)
    result = bulk(name, "--journal", "j.db", "--rejects", "r.csv", *flags)
    assert result.exit_code == 2
    assert "none of the 6 rows can be sent; the first error: to: does not begin" in both(result)
    assert "; r.csv contains every row" in both(result)
    rows = rejected(folder / "r.csv")
    assert [(row["line"], row["to"]) for row in rows] == [(str(n + 2), f"202555010{n}") for n in range(6)]
    assert all(row["reason"].startswith("to: does not begin with '+'") for row in rows)
    assert not simulator.inbox
    corrected = (folder / "r.csv").read_text().replace(",202555", ",+1202555")
    (folder / "corrected.csv").write_text(corrected)
    assert bulk("corrected.csv", "--journal", "j.db").exit_code == 0
    assert len(simulator.inbox) == 6


def change(path: pathlib.Path, how: str) -> None:
    """Change a file as other programs do."""
    content = path.read_text()
    if how == "replaced":
        other = path.with_suffix(".new")
        other.write_text(content)
        other.replace(path)
    elif how == "removed":
        path.unlink()
    elif how == "appended":
        with path.open("a") as file:
            file.write(f"{C}\n")
    else:
        path.write_text(
            {"rewritten": content.replace("+1202", "+1303"), "truncated": content[: len(content) // 2]}[how]
        )


CHANGES = ["rewritten", "appended", "truncated", "replaced", "removed"]


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("valid", [True, False])
def test_a_file_that_changes_after_the_check_is_not_sent(
    bulk: Any,
    simulator: ThreadedSimulator,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    valid: bool,
) -> None:
    """A file without a valid row is scanned twice, for its rejects; only the file that was opened counts."""
    path = folder / "n.csv"
    path.write_text("\n".join(many(40) if valid else ["+1202555x", "2025550102"] * 9))
    scan = _scan_progress.scan

    def then_changed(*args: Any, **options: Any) -> Any:
        found = scan(*args, **options)
        if path.exists():
            change(path, how)
        return found

    monkeypatch.setattr(_scan_progress, "scan", then_changed)
    result = bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv", "--json")
    assert result.exit_code == 2
    assert "n.csv: was changed, replaced or removed" in both(result)
    assert not simulator.inbox
    assert not (folder / "r.csv").exists()


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_during_the_run_ends_it(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Only rows that were checked are sent, each once; the run drains, says so and ends with 2."""
    numbers = many(3_000)
    path = folder / "n.csv"
    # Longer than the piece that is read at once.
    path.write_text("to,note\n" + "".join(f"{number},{'x' * 300}\n" for number in numbers))
    record = _run._record
    seen: list[object] = []

    def then_changed(*args: Any) -> None:
        record(*args)
        seen.append(args)
        if len(seen) == 100:
            change(path, how)

    monkeypatch.setattr(_run, "_record", then_changed)
    result = bulk("n.csv", "--journal", "j.db", "--max-in-flight", "10", "--json")
    document = last_json(result)
    assert (result.exit_code, document["ending"], document["unknown"]) == (2, "failed", 0)
    assert "n.csv: was changed, replaced or removed" in result.stderr
    assert "to continue, run the same command again" in result.stderr
    sent = sent_to(simulator)
    assert sent == dict.fromkeys(numbers[: len(sent)], 1)
    assert 100 <= len(sent) <= 512


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_after_it_was_read_is_not_finished(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A small file is read at once: its rows are sent as they were checked, and the exit code is 2."""
    path = folder / "n.csv"
    path.write_text(f"{A}\n{B}\n")
    send_rows = _run._send_rows

    async def then_changed(*args: Any) -> None:
        await send_rows(*args)
        change(path, how)

    monkeypatch.setattr(_run, "_send_rows", then_changed)
    result = bulk("n.csv", "--journal", "j.db", "--json")
    assert (result.exit_code, last_json(result)["ending"]) == (2, "failed")
    assert sent_to(simulator) == {A: 1, B: 1}


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_while_it_is_submitted_to_workers_is_an_error(
    bulk: Any,
    redis_server: RedisServer,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """The command ends with 2 instead of watching a job with rows that were not checked, or without some."""
    path = folder / f"{how}.csv"
    path.write_text(f"{A}\n{B}\n")
    submit = Submission.run

    async def then_changed(submission: Submission) -> None:
        await submit(submission)
        change(path, how)

    monkeypatch.setattr(Submission, "run", then_changed)
    result = bulk(path.name, "--worker", redis_server.url, "--json")
    assert (result.exit_code, last_json(result)["ending"]) == (2, "failed")
    assert f"{path.name}: was changed, replaced or removed" in result.stderr


@pytest.mark.parametrize("after", [0.0, 1e9])
def test_a_job_without_workers_is_named(
    bulk: Any, redis_server: RedisServer, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, after: float
) -> None:
    """After some seconds in which no worker took anything, the command says how to start one."""
    from bandwidth_mfa_async.cli.bulk import _job

    (folder / "n.csv").write_text(f"{A}\n")
    monkeypatch.setattr(_job, "NO_WORKER_AFTER", after)
    polls: list[int] = []
    poll = _job._JobWatcher._poll_once

    async def then_stopped(watcher: Any, display: Any) -> Any:
        polls.append(display.state == "sending")
        if sum(polls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return await poll(watcher, display)

    monkeypatch.setattr(_job._JobWatcher, "_poll_once", then_stopped)
    result = bulk("n.csv", "--worker", redis_server.url)
    assert result.exit_code == 1
    said = result.stderr.count(
        "no worker has taken anything for 5 seconds; start one with: taskiq worker worker:broker"
    )
    assert said == (after == 0)


def test_a_wait_for_the_lease_of_a_dead_worker_is_explained(
    bulk: Any, redis_server: RedisServer, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claimed the chunk and does not renew its lease: the command says how long that can take, once."""
    from bandwidth_mfa_async.cli.bulk import _job
    from bandwidth_mfa_async.worker import RedisLedger

    (folder / "n.csv").write_text(f"{A}\n")
    polls: list[int] = []
    poll = _job._JobWatcher._poll_once

    async def claimed_then_stopped(watcher: Any, display: Any) -> Any:
        polls.append(display.state == "sending")
        if sum(polls) == 1:
            async with RedisLedger(redis_server.url, require_aof=False) as ledger:
                await ledger.claim_chunk("n", 0, ledger.new_lease())
        if sum(polls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return await poll(watcher, display)

    def elapsed(_watch: Any, leases: dict[str, str], _now: float) -> float | None:
        """Return what the watch returns 16 seconds later."""
        assert [lease.split()[1].isdigit() for lease in leases.values()] == [True]
        return 13.2

    monkeypatch.setattr(_job._JobWatcher, "_poll_once", claimed_then_stopped)
    monkeypatch.setattr(_job.LeaseWatch, "longest_wait", elapsed)
    result = bulk("n.csv", "--worker", redis_server.url)
    assert result.stderr.count("waiting up to 14 s for the lease of a worker that died") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.csv", f"Name;Phone\nAnn;{A}\nBob;x1\n"),
        ("n.csv", f"phone\n{A}\nx1\n"),
        ("n.jsonl", f'{{"Phone": "{A}", "name": "Ann"}}\n{{"Phone": "x1"}}\n'),
    ],
)
def test_the_column_of_the_numbers_is_named(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, name: str, content: str
) -> None:
    """Rows to correct go to a rejects file that is read with the same command."""
    (folder / name).write_text(content)
    result = bulk(name, "--column", "Phone", "--rejects", "r.csv", "--json")
    assert (result.exit_code, last_json(result)["accepted"]) == (1, 1)
    assert sent_to(simulator) == {A: 1}
    rejects = folder / "r.csv"
    rejects.write_text(rejects.read_text().replace("x1", B))
    result = bulk("r.csv", "--column", "Phone", "--json")
    assert (result.exit_code, sent_to(simulator)) == (0, {A: 1, B: 1})


@pytest.mark.parametrize(
    ("content", "column", "said"),
    [
        (f"to,phone\n{A},{B}\n", "phone", "n.csv, line 1: has a column 'to' beside 'phone': rename it"),
        (f"phone,Phone\n{A},{B}\n", "phone", "n.csv, line 1: more than one column is called 'phone': keep one"),
        (f"to,name\n{A},x\n", "mobile", "n.csv, line 1: no column is called 'mobile': correct --column, or add a"),
        (f"{A}\n", "mobile", "n.csv, line 1: no column is called 'mobile'"),
        (f"to,name\n{A},x\n", " ", "--column: name the column with the numbers, like 'phone'"),
        (f"to,name\n{A},x\n", "Message", "--column: name the column with the numbers, like 'phone'"),
    ],
)
def test_a_wrong_column_is_named(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, content: str, column: str, said: str
) -> None:
    """Nothing is sent."""
    (folder / "n.csv").write_text(content)
    result = bulk("n.csv", "--column", column)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not simulator.inbox


# One text per number.


@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_second_row_for_a_number_is_not_sent(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, piped: bool, form: str
) -> None:
    """Its text differs by a blank; it is named and counted, and --allow-repeats sends it."""
    rows = [(A, "login"), (B, "login"), (A, "login"), (A, "login "), (A, "login ")]
    if form == "csv":
        content = "to,scope\n" + "".join(f'{number},"{scope}"\n' for number, scope in rows)
    else:
        content = "".join(json.dumps({"to": number, "scope": scope}) + "\n" for number, scope in rows)
    (folder / "n").write_text(content)
    path = "n"
    if piped:
        os.mkfifo(path := "fifo")

    def run(*flags: str) -> Any:
        arguments = [path, "--format", form, "--rejects", "r.csv", "--json", *flags]
        if not piped:
            return bulk(*arguments)
        # A daemon: it would wait for ever if the command did not open the FIFO.
        threading.Thread(target=(folder / "fifo").write_text, args=(content,), daemon=True).start()
        return bulk(*arguments)

    first = run("--journal", "j.db")
    document = last_json(first)
    assert sent_to(simulator) == {A: 1, B: 1}
    assert (first.exit_code, document["repeats"], document["taken"]) == (1, 2, 5)
    line = 5 if form == "csv" else 4
    assert f"{path}, line {line}: to: an earlier row has this number with another text" in first.stderr
    assert "2 rows not sent: the number has another text already; --allow-repeats" in first.stderr
    # Sending the rejects must not send to a number twice.
    assert not (folder / "r.csv").exists()
    allowed = run("--journal", "j.db", "--allow-repeats")
    document = last_json(allowed)
    assert (allowed.exit_code, document["repeats"], document["accepted"], document["skipped"]) == (0, 0, 1, 4)
    assert sent_to(simulator) == {A: 2, B: 1}


def test_a_dry_run_counts_repeats(bulk: Any, folder: pathlib.Path) -> None:
    """They are not bad rows, and the exit code is 1 unless they are allowed."""
    (folder / "n.csv").write_text(f"to,scope\n{A},login\n{A},log in\n{A},login\n")
    result = bulk("n.csv", "--dry-run")
    assert result.exit_code == 1
    assert "repeats" in result.stdout
    assert "n.csv, line 3: to: an earlier row" in result.stderr
    allowed = bulk("n.csv", "--dry-run", "--json", "--allow-repeats")
    document = last_json(allowed)
    counts = [document[name] for name in ("valid", "bad", "duplicates", "repeats")]
    assert (allowed.exit_code, counts) == (0, [3, 0, 1, 1])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("to,message\n{A},Use {{CODE}}\n{B},Use {{CODE}}\n", "to,message\n{A},Enter {{CODE}}\n{B},Use {{CODE}}\n"),
        ("to\n{A}\n{B}\n", "to,scope\n{A},login\n{B},\n"),
        ("to,scope\n{A},login\n{B},\n", "to\n{A}\n{B}\n"),
        ("to,digits\n{A},4\n{B},\n", "to,digits\n{A},5\n{B},\n"),
    ],
)
def test_a_journal_guards_columns_like_options(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, before: str, after: str
) -> None:
    """With an edited column, a number that has its text gets no other one unless --allow-repeats is given."""
    path = folder / "n.csv"
    path.write_text(before.format(A=A, B=B))
    assert bulk("n.csv", "--journal", "j.db").exit_code == 0
    path.write_text(after.format(A=A, B=B))
    result = bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv", "--json")
    document = last_json(result)
    assert sent_to(simulator) == {A: 1, B: 1}
    assert (result.exit_code, document["repeats"], document["skipped"], document["accepted"]) == (1, 1, 1, 0)
    assert "n.csv, line 2: to: the journal has another text" in result.stderr
    allowed = bulk("n.csv", "--journal", "j.db", "--allow-repeats", "--json")
    assert (allowed.exit_code, last_json(allowed)["accepted"]) == (0, 1)
    assert sent_to(simulator) == {A: 2, B: 1}
    # The first text is recorded as well as the second one.
    path.write_text(f"to,scope\n{A},third\n{C},\n")
    document = last_json(bulk("n.csv", "--journal", "j.db", "--json"))
    assert (document["repeats"], document["accepted"]) == (1, 1)


def test_a_rejected_text_can_be_corrected(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """Nothing was sent for it, so another text with the same journal is not a repeat."""
    (folder / "n.csv").write_text(f"to,message\n{A},Use {{CODE}}\n{B},\n")
    simulator.faults.script(Fault(status=400, body={"error": "bad text"}), to=A)
    assert bulk("n.csv", "--journal", "j.db", "--rejects", "r.csv").exit_code == 1
    (folder / "corrected.csv").write_text((folder / "r.csv").read_text().replace("Use", "Enter"))
    assert bulk("corrected.csv", "--journal", "j.db").exit_code == 0
    assert sent_to(simulator) == {A: 1, B: 1}
    # The first file again: its text was not sent, but the corrected one was.
    assert last_json(bulk("n.csv", "--journal", "j.db", "--json"))["repeats"] == 1
    assert sent_to(simulator) == {A: 1, B: 1}


def not_a_journal(folder: pathlib.Path) -> None:
    with sqlite3.connect(folder / "j.db") as database:
        database.execute("CREATE TABLE other (x)")
    database.close()


def newer_journal(folder: pathlib.Path) -> None:
    with sqlite3.connect(folder / "j.db") as database:
        database.execute("PRAGMA application_id = 0x424D4641")
        database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    ("flags", "said", "prepare"),
    [
        (["--rate", "0"], "--rate", None),
        (["--rate", "0/s"], "--rate", None),
        (["--rate", "fast"], "--rate", None),
        (["--max-in-flight", "0"], "--max-in-flight", None),
        (["--resend", "always"], "--resend", None),
        (["--digits", "9"], "--digits: must be a whole number from 4 to 8", None),
        (["--message", "no code"], "--message: must hold {CODE}", None),
        (["--from", "nonsense"], "--from: must be an E.164 number", None),
        (["--scope", "x" * 26], "--scope: must be at most 25", None),
        (["--rejects", "missing/r.csv"], "--rejects: missing/r.csv cannot be written", None),
        (["--rejects", "tmp"], "--rejects: tmp cannot be written", None),
        (["--rejects", "n.csv"], "--rejects: n.csv is already used by this command", None),
        (
            ["--rejects", "link"],
            "--rejects: link is already used by this command",
            lambda folder: (folder / "link").symlink_to("n.csv"),
        ),
        (
            ["--rejects", "notes.csv"],
            "notes.csv exists and is not a rejects file",
            lambda folder: (folder / "notes.csv").write_text("my notes"),
        ),
        (["--rejects", "j.db"], "exists and is not a rejects file", not_a_journal),
        (["--rejects", ""], "--rejects: is empty", None),
        (["--journal", ""], "--journal: is empty", None),
        (["--journal", "missing/j.db"], "missing/j.db", None),
        (["--journal", "tmp"], "tmp: this is a folder", None),
        (["--journal", "n.csv"], "--journal: n.csv is the input", None),
        (["--journal", "j.db", "--rejects", "j.db"], "--rejects: j.db is", newer_journal),
        (["--journal", "both", "--rejects", "both"], "--rejects: both is already used by this command", None),
        *(
            (["--journal", "j.db", "--rejects", f"j.db{ending}"], f"--rejects: j.db{ending} is already used by", None)
            for ending in ("-wal", "-shm", "-mark")
        ),
        (["--journal", "j.db"], "another program's database", not_a_journal),
        (["--journal", "j.db"], "made by a newer", newer_journal),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_send_nothing_and_change_no_file(
    bulk: Any,
    simulator: ThreadedSimulator,
    folder: pathlib.Path,
    flags: list[str],
    said: str,
    prepare: Callable[[pathlib.Path], object] | None,
) -> None:
    """The error names the option; existing files stay unchanged."""
    (folder / "n.csv").write_text(f"{A}\n")
    if prepare is not None:
        prepare(folder)

    def files() -> dict[pathlib.Path, bytes]:
        return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    before = files()
    result = bulk("n.csv", *flags)
    assert result.exit_code == 2
    assert said in both(result)
    assert not simulator.inbox
    assert files() == before


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (["--scope", "other"], "scope"),
        (["--message", "Other {CODE}"], "message"),
        (["--digits", "4"], "digits"),
        (["--from", "+19195550100"], "from_"),
        (["--application-id", "other"], "application_id"),
    ],
)
def test_a_journal_of_another_template_is_refused(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, changed: list[str], difference: str
) -> None:
    """The error names the difference; otherwise every number would get a second text."""
    (folder / "n.csv").write_text(f"{A}\n")
    assert bulk("n.csv", "--journal", "j.db").exit_code == 0
    result = bulk("n.csv", "--journal", "j.db", *changed)
    assert result.exit_code == 2
    assert f"another {difference}" in result.stderr
    assert len(simulator.inbox) == 1


def test_missing_options_and_variables_are_named(
    bulk: Any, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check comes before the file is read."""
    (folder / "n.csv").write_text(f"{A}\n")
    monkeypatch.delenv("BW_NUMBER")
    monkeypatch.delenv("BW_MESSAGING_APPLICATION_ID")
    result = bulk("n.csv")
    assert (result.exit_code, "--from, --application-id" in result.stderr) == (2, True)
    monkeypatch.delenv("BW_PASSWORD")
    result = bulk("n.csv", "--from", FROM, "--application-id", "x")
    assert (result.exit_code, "BW_PASSWORD" in result.stderr) == (2, True)


def test_a_rejects_file_on_a_full_disk_is_an_error(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path
) -> None:
    """The error names the file, and nothing is sent."""
    (folder / "n.csv").write_text(f"{A}\nx\n")
    result = bulk("n.csv", "--rejects", "/dev/full")
    assert result.exit_code == 2
    assert "--rejects: /dev/full cannot be written: No space left" in result.stderr
    assert not simulator.inbox


def test_unknown_rows_are_exported(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """With their lines, also in later runs; the file is private and is the input of a run that sends them again."""
    (folder / "n.csv").write_text(f"to,name\n{A},ann\n{B},=bea\n{C},cy\n")
    simulator.faults.script(Fault(drop="after_read"), to=B)
    flags = ["--journal", "j.db", "--unknowns", "u.csv"]
    for _ in range(2):
        result = bulk("n.csv", *flags, "--rejects", "r.csv")
        assert result.exit_code == 3
        assert "u.csv: 1 unknown row" in result.stdout
        (row,) = rejected(folder / "u.csv")
        assert row == {"line": "3", "reason": "unknown: the code may have been sent", "to": B, "name": "'=bea"}
        assert (folder / "u.csv").stat().st_mode & 0o777 == 0o600
        assert not (folder / "r.csv").exists()
    assert bulk("u.csv", "--journal", "j.db", "--resend", "at-least-once").exit_code == 0
    assert sent_to(simulator) == {A: 1, B: 2, C: 1}
    refused = bulk("n.csv", "--unknowns", "x.csv", "--rejects", "x.csv")
    assert (refused.exit_code, "--unknowns: x.csv is already used" in refused.stderr) == (2, True)


def test_rejected_rows_are_shown_as_they_come(bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """The first five, with their lines; bad rows are shown by the check."""
    (folder / "n.csv").write_text("\n".join(["to", "x", *many(20)]))
    simulator.faults.chance(Fault(status=400, body={"error": "no"}), 1.0)
    result = bulk("n.csv", "--max-in-flight", "1")
    lines = [line for line in result.stderr.splitlines() if ", line " in line]
    assert lines[0].startswith("n.csv, line 2: to: is not a phone number")
    assert lines[1:] == [f"n.csv, line {n}: rejected by the service: 400 no" for n in range(3, 8)]


def test_escape_sequences_in_file_names_are_not_printed(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path
) -> None:
    """A terminal would execute them."""
    name = "n\x1b]0;owned\x07\u202e.csv"
    (folder / name).write_text(f"{A}\nx\n")
    shown = "n\\x1b]0;owned\\x07\\u202e.csv"
    results = [
        bulk(name, "--rejects", f"r{name}", "--journal", f"j{name}"),
        bulk(name, "--rejects", name),
        bulk(name, "--journal", f"missing/{name}"),
        bulk(f"gone{name}"),
    ]
    for result in results:
        assert shown in both(result)
        assert not re.search("[\x1b\x07\u202e]", both(result))


# A dry run.


def test_a_dry_run_sends_nothing(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts, needs no credentials, and says at what rate; 0 when all is good, 1 when some rows are bad."""
    for name in [name for name in os.environ if name.startswith("BW_")]:
        monkeypatch.delenv(name)
    (folder / "n.csv").write_text(f"to,message\n{A},\n{B},{{CODE}}{'x' * 200}\n{A},\n")
    good = bulk("n.csv", "--dry-run", "--json")
    assert good.exit_code == 0
    expected = {"rows": 3, "valid": 3, "bad": 0, "duplicates": 1, "segments": 4, "rate_per_second": 1.0, "seconds": 2.7}
    document = last_json(good)
    assert {name: document[name] for name in expected} == expected
    assert "360014169214" in document["rate_source"]
    (folder / "n.csv").write_text(f"name,to\nann,{A}\nbea,x\n")
    some = bulk("n.csv", "--dry-run", "--rate", "30/m", "--rejects", "r.csv")
    assert some.exit_code == 1
    assert "2 s" in some.stdout
    assert "360014169214" not in some.stdout
    (row,) = rejected(folder / "r.csv")
    assert (row.keys(), row["line"], row["name"]) == ({"line", "reason", "name", "to"}, "3", "bea")
    calls = last_json(bulk("n.csv", "--dry-run", "--voice", "--json"))
    assert (calls["calls"], calls["rate_per_second"]) == (1, 5.0)
    assert bulk("n.csv", "--dry-run", "--rate", "0/s").exit_code == 2
    assert not simulator.inbox
    assert not list((folder / "tmp").iterdir())


# An interruption, the help, and a slow input.


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_check_ends_the_run(
    bulk: Any,
    simulator: ThreadedSimulator,
    folder: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    flags: list[str],
) -> None:
    """The exit code is the shell's for the signal, such as 130 for Ctrl-C."""
    (folder / "n.csv").write_text(f"{A}\n")

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr("bandwidth_mfa_async.cli.bulk._scan_progress.scan", interrupted)
    before = signal.getsignal(number)
    signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        result = bulk("n.csv", *flags)
    finally:
        signal.signal(number, before)
    assert (result.exit_code, result.stderr) == (128 + number, "stopped; nothing was sent\n")
    assert not simulator.inbox


def test_help_documents_exit_codes_and_signals(bulk: Any) -> None:
    """They are part of the contract."""
    text = " ".join(bulk("--help").stdout.split())
    for word in (
        "Exit codes: 0 all accepted",
        "3 some unknown",
        "SIGTERM",
        "--journal",
        "codes already sent are skipped",
        "JSON Lines",
    ):
        assert word.lower() in text.lower(), word


async def test_a_slow_input_does_not_block_the_event_loop(simulator: ThreadedSimulator, folder: pathlib.Path) -> None:
    """A thread reads the rows, so a slow disk does not make requests in flight time out."""
    from bandwidth_mfa_async import CodeTemplate, MFAClient
    from bandwidth_mfa_async.cli._signals import SignalHandlers
    from bandwidth_mfa_async.cli.bulk._plan import Plan
    from bandwidth_mfa_async.cli.bulk._rejects import RowFiles
    from bandwidth_mfa_async.cli.bulk._source import InputFile

    fifo = folder / "fifo"
    os.mkfifo(fifo)
    plan = Plan(
        input=await asyncio.to_thread(InputFile, str(fifo)),
        form="csv",
        template=CodeTemplate(FROM, APPLICATION),
        channel="messaging",
        journal=str(folder / "j.db"),
        run="",
        max_in_flight=10,
    )
    writer = asyncio.create_task(asyncio.to_thread(fifo.write_text, "\n".join(many(50))))
    with SignalHandlers() as signals:
        async with MFAClient.from_env() as client:
            done = await _run.send(plan, client, files=RowFiles(), console=Console(file=io.StringIO()), signals=signals)
    await writer
    assert (done.summary.accepted, done.error) == (50, None)
