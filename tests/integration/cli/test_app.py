"""The command line: exit codes, JSON, and where passwords may come from."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pathlib
import pty
import re
import shlex
import signal
import struct
import sys
import termios
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from bandwidth_mfa_async.cli import main
from bandwidth_mfa_async.cli._app import app
from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.conftest import APPLICATION, FROM, TO
from tests.support import processes
from tests.support.fault_server import environment, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLAGS = ["--from", FROM, "--application-id", APPLICATION]


@pytest.fixture
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator in a separate thread, so that commands can run their own event loops."""
    loop = asyncio.new_event_loop()
    sim = Simulator()
    loop.run_until_complete(sim.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    for name, value in environment(sim).items():
        monkeypatch.setenv(name, value)
    yield sim
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(sim.stop())
    loop.close()


@pytest.fixture
def invoke() -> Callable[..., Any]:
    runner = CliRunner()
    return lambda *args: runner.invoke(app, list(args))


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_output_on_a_full_disk_is_an_error(simulator: Simulator) -> None:
    """One line says that completed work is kept."""
    command = [sys.executable, "-m", "bandwidth_mfa_async", "send", TO, *FLAGS]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = processes.run(command, stdout=full, stderr=processes.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the output cannot be written: No space left on device; completed work is kept"
    ]
    assert len(simulator.inbox) == 1


SCRIPT = "from bandwidth_mfa_async.cli import main; main()"
INTERRUPTIONS = {
    "in a module": "signal.raise_signal(signal.SIGINT)",
    "where Python makes another error of it": """
class Interrupted:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)
class Owner:
    name = Interrupted()
""",
    "where Python goes on after it": """
class Interrupted:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Interrupted()
""",
}


@pytest.mark.parametrize("way", [["-m", "bandwidth_mfa_async"], ["-c", SCRIPT]], ids=["module", "script"])
@pytest.mark.parametrize("interruption", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_ctrl_c_during_the_import_exits_at_once(tmp_path: pathlib.Path, way: list[str], interruption: str) -> None:
    """The exit code is 130 and nothing is printed; an ignored SIGINT stays ignored."""
    (tmp_path / "click.py").write_text(f"import signal, sys\n{interruption}\nsys.exit('went on')\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(pathlib.Path(__file__).parents[3])])}

    def run(handler: signal.Handlers) -> tuple[int, str, str]:
        # Set explicitly: a shell ignores SIGINT in background processes.
        done = processes.run(
            [sys.executable, *way],
            capture_output=True,
            text=True,
            check=False,
            env=env,
            preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        )
        return done.returncode, done.stdout, done.stderr

    assert run(signal.SIG_DFL) == (130, "", "")
    assert run(signal.SIG_IGN) == (1, "", "went on\n")


@pytest.mark.parametrize("thread", [True, False])
def test_the_import_restores_the_signal_handler(monkeypatch: pytest.MonkeyPatch, thread: bool) -> None:
    """Each command installs its own handlers."""
    monkeypatch.setattr(sys, "argv", ["bandwidth-mfa", "--version"])
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor() as pool, pytest.raises(SystemExit, match="0"):
        pool.submit(main).result() if thread else main()
    assert signal.getsignal(signal.SIGINT) is before


def test_send_and_verify_exit_codes(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """0 if accepted or valid, 1 if not valid."""
    sent = invoke("send", TO, *FLAGS, "--scope", "login")
    assert (sent.exit_code, sent.output) == (0, f"accepted {simulator.inbox[-1].message_id}\n")
    right = invoke("verify", TO, simulator.last_code(TO), "--scope", "login")
    assert (right.exit_code, right.output) == (0, "valid\n")
    wrong = invoke("verify", TO, "0000", "--scope", "login", "--json")
    assert wrong.exit_code == 1
    assert json.loads(wrong.output)["valid"] is False


def test_call_prints_the_calls_id(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """Options can come from the environment."""
    os.environ["BW_NUMBER"], os.environ["BW_VOICE_APPLICATION_ID"] = FROM, APPLICATION
    try:
        called = invoke("call", TO, "--json")
    finally:
        del os.environ["BW_NUMBER"], os.environ["BW_VOICE_APPLICATION_ID"]
    document = json.loads(called.output)
    assert (called.exit_code, document["delivery"]) == (0, "accepted")
    assert document["call_id"] == simulator.inbox[-1].message_id


def test_rejected_or_not_sent_exits_with_1(
    simulator: Simulator, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service rejected the request, or it never left this machine."""
    monkeypatch.setenv("BW_PASSWORD", "wrong")
    refused = invoke("send", TO, *FLAGS)
    assert refused.exit_code == 1
    assert "403" in refused.output
    monkeypatch.setenv("BW_MFA_URL", f"http://127.0.0.1:{refused_port()}")
    dead = invoke("send", TO, *FLAGS, "--json", "--timeout", "0.4")
    assert (dead.exit_code, json.loads(dead.output)["delivery"]) == (1, "not_sent")


def test_an_unknown_outcome_exits_with_3(simulator: Simulator, invoke: Callable[..., Any]) -> None:
    """A script can distinguish it from a failure."""
    simulator.faults.script(Fault(drop="after_read"), operation="messaging")
    result = invoke("send", TO, *FLAGS, "--json")
    document = json.loads(result.output)
    assert (result.exit_code, document["delivery"], document["error"]) == (3, "unknown", "DisconnectedError")


@pytest.mark.parametrize(
    "args",
    [
        ["send", "+12", "--from", FROM],
        ["send", "nonsense", *FLAGS],
        ["send", TO, *FLAGS, "--digits", "9"],
        ["send", TO, *FLAGS, "--message", "no placeholder"],
        ["send", TO, *FLAGS, "--timeout", "0"],
        ["send", TO, *FLAGS, "--rate", "0/s"],
        ["call", TO, *FLAGS, "--rate", "60/x"],
        ["send", TO, *FLAGS, "--redis", "http://localhost"],
        ["verify", TO, "12a456"],
        ["verify", TO],
        ["send"],
        ["dance"],
        ["simulate", "--port", "70000"],
        ["demo", "--count", "0"],
    ],
    ids=lambda args: " ".join(args)[:40],
)
def test_bad_usage_exits_with_2(simulator: Simulator, invoke: Callable[..., Any], args: list[str]) -> None:
    """The message says what is wrong, without a traceback."""
    result = invoke(*args)
    assert result.exit_code == 2
    assert result.output
    assert "Traceback" not in result.output
    assert not simulator.inbox


def test_a_missing_environment_exits_with_2(invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All missing variables are named at once."""
    for name in [name for name in os.environ if name.startswith("BW_")]:
        monkeypatch.delenv(name)
    result = invoke("send", TO, *FLAGS)
    assert result.exit_code == 2
    for name in ("BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD"):
        assert name in result.output


def test_no_option_takes_a_password() -> None:
    """Every user of the machine can read a command-line argument."""
    for command in app.commands.values():
        for parameter in command.params:
            assert "password" not in (parameter.name or "")
            assert "secret" not in (parameter.name or "")


def test_the_counts_of_the_demo_are_consistent(invoke: Callable[..., Any]) -> None:
    """Every code has an outcome, and every retry a cause."""
    result = invoke("demo", "--count", "120", "--json", "--seed", "3")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    outcomes = [summary[name] for name in ("accepted", "rejected", "not_sent", "unknown")]
    assert sum(outcomes) == 120
    assert summary["rejected"] == 3
    assert summary["attempts"] == 120 + sum(summary["retries"].values())
    assert set(summary["retries"]) <= {"429", "503"}
    assert summary["accepted"] <= summary["texts"] <= summary["accepted"] + summary["unknown"]
    assert summary["valid"] + summary["invalid"] == summary["texts"]
    assert summary["invalid"] >= 1


def test_the_demo_prints_a_table(invoke: Callable[..., Any]) -> None:
    """Without a terminal there is one table and no animation."""
    result = invoke("demo", "--count", "20")
    assert result.exit_code == 0
    assert "accepted" in result.output
    assert "\x1b[" not in result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_runs_until_a_signal(number: signal.Signals) -> None:
    """It prints the variables to export, serves, and exits cleanly on SIGINT and SIGTERM."""
    with processes.running(
        [sys.executable, "-m", "bandwidth_mfa_async", "simulate", "--port", "0", "--seed", "1"],
        stdout=processes.PIPE,
        stderr=processes.PIPE,
        text=True,
        env={**os.environ, "BW_PASSWORD": "from-the-environment"},
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        variables = dict(word.split("=", 1) for line in lines if "export" in line for word in line.split()[1:])
        assert variables["BW_PASSWORD"] == "from-the-environment"
        sent = processes.run(
            [sys.executable, "-m", "bandwidth_mfa_async", "send", TO, *FLAGS],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **variables},
        )
        assert sent.returncode == 0, sent.stderr
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert "1 messages were sent" in out


def test_simulate_on_a_used_port_exits_with_2(invoke: Callable[..., Any], simulator: Simulator) -> None:
    """The message names the problem."""
    result = invoke("simulate", "--port", str(simulator.port))
    assert result.exit_code == 2
    assert "error" in result.output


@pytest.mark.parametrize("command", [[], *[[name] for name in app.commands]], ids=str)
def test_every_command_has_help(invoke: Callable[..., Any], command: list[str]) -> None:
    """No line is longer than 100 characters."""
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert max(map(len, result.output.splitlines())) <= 100


@pytest.mark.parametrize("name", app.commands)
def test_the_examples_in_the_help_parse(name: str) -> None:
    """Every command's help ends with examples."""
    command = app.commands[name]
    lines = (command.epilog or "").partition("Examples")[2].split("\n")
    examples = [re.split(r"[|<]|&&", line)[0] for line in lines if "bandwidth-mfa" in line]
    assert examples
    for example in examples:
        words = shlex.split(example)
        first = words.index("bandwidth-mfa")
        assert words[first + 1] == name, example
        command.make_context(name, words[first + 2 :]).close()


def on_a_terminal(*args: str, **env: str) -> str:
    """Run the command on a terminal of 60 columns and return its output."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"}}
    shown = b""
    with processes.running(
        [sys.executable, "-m", "bandwidth_mfa_async", *args],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=clean | {"TERM": "xterm"} | env,
    ) as process:
        os.close(terminal)
        try:
            while chunk := os.read(controller, 65536):
                shown += chunk
        except OSError:  # what Linux says when the other side has ended
            pass
        os.close(controller)
        process.wait()
    return shown.decode()


@pytest.mark.parametrize("command", [["doctor", "--timeout", "1"], ["demo", "--count", "20"]], ids=lambda c: c[0])
def test_colours_and_width_follow_the_terminal(simulator: Simulator, command: list[str]) -> None:
    """A terminal has colours unless NO_COLOR is set, and no line is wider than the terminal."""
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", on_a_terminal(*command))
    plain = on_a_terminal(*command, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", plain)
    assert max(len(line.rsplit("\r")[-1]) for line in text.replace("\r\n", "\n").split("\n")) <= 60


def test_bash_completion_offers_commands() -> None:
    """The line for bash in README is run as bash runs it."""
    done = processes.run(
        [pathlib.Path(sys.executable).with_name("bandwidth-mfa")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"_BANDWIDTH_MFA_COMPLETE": "bash_complete", "COMP_WORDS": "bandwidth-mfa d", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["plain,demo", "plain,doctor"]
