"""The command line in a process of its own: signals, a terminal, a full disk and completion."""

from __future__ import annotations

import fcntl
import itertools
import os
import pathlib
import pty
import re
import signal
import struct
import sys
import termios

import pytest

from bandwidth_mfa_async.simulator import Simulator
from tests.conftest import TO
from tests.support import processes
from tests.support.cli_fixtures import FLAGS


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
        lines = list(itertools.takewhile(lambda line: "curl" not in line, process.stdout))
        variables = dict(word.split("=", 1) for line in lines if "export" in line for word in line.split()[1:])
        # A value of the environment is not printed.
        assert "BW_PASSWORD" not in variables
        variables["BW_PASSWORD"] = "from-the-environment"
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
        assert "stopped; 1 message sent" in out


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
    """The guide's line for bash is run as bash runs it."""
    done = processes.run(
        [pathlib.Path(sys.executable).with_name("bandwidth-mfa")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {"_BANDWIDTH_MFA_COMPLETE": "bash_complete", "COMP_WORDS": "bandwidth-mfa d", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["plain,demo", "plain,doctor"]
