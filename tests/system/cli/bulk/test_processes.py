"""`bandwidth-mfa bulk` in a process of its own: signals, kills and pipes."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import JournalReport, MFAClient
from bandwidth_mfa_async.simulator import Fault
from tests.support import processes
from tests.support.bulk_fixtures import A, B, C, last_json, many, rejected, sent_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bandwidth_mfa_async.testing import ThreadedSimulator


class Running:
    """The command in a separate process."""

    def __init__(self, *args: str, prefix: Sequence[str] = (), **options: Any) -> None:
        self.process = processes.start(
            [*prefix, sys.executable, "-m", "bandwidth_mfa_async", "bulk", *args],
            **(
                {"stdout": processes.PIPE, "stderr": processes.PIPE, "text": True}
                | options
                | {"env": {**os.environ, "COLUMNS": "120"} | options.get("env", {})}
            ),
        )

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def start(simulator: ThreadedSimulator, folder: pathlib.Path) -> Iterator[Callable[..., Running]]:
    """Start commands; kill those that still run at the end."""
    running: list[Running] = []

    def make(*args: str, **options: Any) -> Running:
        running.append(Running(*args, **options))
        return running[-1]

    yield make
    for one in running:
        processes.end(one.process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_the_run(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running], number: signal.Signals
) -> None:
    """Codes in flight finish, none is unknown, and the same command resumes: each number gets one code."""
    numbers = many(400)
    (folder / "n.csv").write_text("\n".join(numbers))
    simulator.faults.chance(Fault(delay=0.2), 1.0)
    flags = ["n.csv", "--journal", "j.db", "--max-in-flight", "20"]
    running = start(*flags)
    until(lambda: len(simulator.inbox) > 60)
    running.process.send_signal(number)
    code, out, err = running.end()
    assert (code, "Traceback" in err) == (1, False), err
    assert "stopping: codes in flight may finish" in err
    assert "to continue, run the same command again" in out
    sent = len(simulator.inbox)
    assert sent < 400
    totals = JournalReport.read(folder / "j.db").totals
    assert totals.input_items == 400
    assert totals.items + totals.not_taken == 400
    assert totals.not_taken > 0
    simulator.faults.clear()
    code, out, err = start(*flags, "--json").end()
    assert code == 0, err
    document = json.loads(out)
    assert document["skipped_because"] == {"accepted": sent}
    assert sent_to(simulator) == dict.fromkeys(numbers, 1)


def test_nohup_keeps_a_run_alive(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running]
) -> None:
    """A SIGHUP that is ignored at the start stays ignored."""
    numbers = many(60)
    (folder / "n.csv").write_text("\n".join(numbers))
    simulator.faults.chance(Fault(delay=0.1), 1.0)
    running = start("n.csv", "--max-in-flight", "10", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    until(lambda: len(simulator.inbox) > 20)
    running.process.send_signal(signal.SIGHUP)
    code, _, err = running.end()
    assert code == 0, err
    assert sent_to(simulator) == dict.fromkeys(numbers, 1)


def has_open(pid: int, path: pathlib.Path) -> bool:
    """Return whether a process has a file open; Linux only."""
    with contextlib.suppress(OSError):
        return any(link.readlink() == path for link in pathlib.Path(f"/proc/{pid}/fd").iterdir())
    return False


def children(pid: int) -> list[int]:
    return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and namespaces")
@pytest.mark.parametrize("first", [False, True], ids=["process", "first process of a container"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_the_check_ends_the_run(
    simulator: ThreadedSimulator,
    folder: pathlib.Path,
    start: Callable[..., Running],
    number: signal.Signals,
    first: bool,
) -> None:
    """Nothing is sent, also where the system drops signals without a handler."""
    prefix = ["unshare", "--pid", "--fork"]
    if first and processes.run([*prefix, "true"], check=False).returncode:
        pytest.skip("no rights for a PID namespace")
    path = folder / "n.csv"
    path.write_text("to,note\n" + "+19195550100,\n" * 1_000_000)
    running = start("n.csv", prefix=prefix if first else [])
    if first:
        until(lambda: bool(children(running.process.pid)))
    (pid,) = children(running.process.pid) if first else [running.process.pid]
    until(lambda: has_open(pid, path))
    os.kill(pid, number)
    code, out, err = running.end()
    assert (code, out, err.strip()) == (128 + number, "", "stopped; nothing was sent")
    assert not simulator.inbox


def test_a_second_signal_cancels_codes_in_flight(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running]
) -> None:
    """They become unknown, and the run exits at once with 3 and its summary."""
    (folder / "n.csv").write_text("\n".join(many(100)))
    simulator.faults.chance(Fault(delay=60.0), 1.0)
    running = start("n.csv", "--journal", "j.db", "--max-in-flight", "7", "--json")
    until(lambda: len(simulator.inbox) == 7)
    running.process.send_signal(signal.SIGINT)
    assert running.process.stderr is not None
    assert "stopping" in next(line for line in running.process.stderr if line.strip())
    assert running.process.poll() is None
    running.process.send_signal(signal.SIGTERM)
    code, out, err = running.end()
    document = json.loads(out)
    assert (code, document["unknown"], document["accepted"], document["ending"]) == (3, 7, 0, "stopped"), err


def test_a_late_ctrl_c_does_not_hide_the_summary(
    bulk: Any, simulator: ThreadedSimulator, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the client closes, everything is sent; without the summary the user might send it again."""
    (folder / "n.csv").write_text(f"{A}\n")
    handler = signal.getsignal(signal.SIGINT)

    async def close(client: MFAClient, *_error: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await client.aclose()

    monkeypatch.setattr("bandwidth_mfa_async.MFAClient.__aexit__", close)
    result = bulk("n.csv", "--json")
    assert (result.exit_code, sent_to(simulator)) == (0, {A: 1})
    assert last_json(result)["accepted"] == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_kill_9_loses_no_item(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running]
) -> None:
    """No number gets two texts, every item has an outcome, and at most the codes in flight are unknown."""
    numbers = many(600)
    (folder / "n.csv").write_text("to\n" + "\n".join(numbers))
    simulator.faults.chance(Fault(delay=0.1), 1.0)
    flags = ["n.csv", "--journal", "j.db", "--max-in-flight", "20", "--json"]
    for sent in (50, 250):
        running = start(*flags)
        until(lambda sent=sent: len(simulator.inbox) > sent)  # type: ignore[misc]
        running.process.kill()
        running.end()
    simulator.faults.clear()
    code, out, err = start(*flags).end()
    document = json.loads(out)
    assert code == 3, err
    assert 0 < document["unknown"] <= 40
    assert document["taken"] == 600
    assert document["accepted"] + document["unknown"] + document["skipped"] == 600
    texts = sent_to(simulator)
    assert max(texts.values()) == 1
    assert 600 - len(texts) <= document["unknown"]


def test_rows_of_a_pipe_are_sent_as_they_arrive(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running]
) -> None:
    """The first rows are sent while the writer still writes; the run ends when the pipe is closed."""
    running = start("-", "--json", "--rejects", "r.csv", stdin=processes.PIPE)
    assert running.process.stdin is not None
    lines = [f'{{"to": "{number}", "digits": 4}}\n' for number in many(4)]
    running.process.stdin.write("".join(lines[:2]) + "nonsense\n")
    running.process.stdin.flush()
    until(lambda: len(simulator.inbox) == 2)
    running.process.stdin.write("".join(lines[2:]))
    running.process.stdin.flush()
    until(lambda: len(simulator.inbox) == 4)
    code, out, err = running.end()
    document = json.loads(out)
    assert (code, document["accepted"], document["invalid"]) == (1, 4, 1), err
    assert "standard input, line 3: is not JSON" in err
    assert rejected(folder / "r.csv")[0]["row"] == "nonsense"


def test_a_signal_stops_a_run_that_waits_for_a_pipe(
    simulator: ThreadedSimulator, folder: pathlib.Path, start: Callable[..., Running]
) -> None:
    """The pipe is open and has no data."""
    running = start("-", "--journal", "j.db", stdin=processes.PIPE)
    assert running.process.stdin is not None
    running.process.stdin.write("to,name\n" + "".join(f"{number},some name\n" for number in many(5)))
    running.process.stdin.flush()
    until(lambda: len(simulator.inbox) == 5)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=20) == 1
    assert running.process.stderr is not None
    assert running.process.stdout is not None
    assert "to continue" in running.process.stdout.read()
    assert "Fatal" not in running.process.stderr.read()


@pytest.mark.parametrize(
    ("data", "code", "said", "sent"),
    [
        ("", 2, "standard input: is empty", 0),
        ("name,phone\nx,+1\n", 2, "standard input, line 1: no column is called 'to'", 0),
        ("x\ny\nz\n", 2, "standard input, line 2: none of the 2 rows can be sent", 0),
        (f'to,name\n{A},"x\n{B},y\n', 2, "standard input, line 2: a quote", 0),
        (f'to,name\n{A},x\n{B},"y\n{C},z\n', 2, "standard input, line 3: a quote", 1),
    ],
)
def test_an_error_in_a_pipe_stops_the_run(
    simulator: ThreadedSimulator,
    start: Callable[..., Running],
    data: str,
    code: int,
    said: str,
    sent: int,
) -> None:
    """A pipe is read once: the run stops at the error, and the summary shows what was sent before."""
    running = start("-", stdin=processes.PIPE)
    out, err = running.process.communicate(data, timeout=60)
    assert (running.process.returncode, len(simulator.inbox)) == (code, sent)
    assert said in err
    assert ("delivery outcomes" in out) == bool(sent or "none of" in said)
