"""`bandwidth-mfa report` in a process of its own: on a terminal, into a pipe, and with too little space."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_only_a_terminal_without_no_color_has_colours(launch: Path, no_color: str | None, coloured: bool) -> None:
    """NO_COLOR, https://no-color.org."""
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    env |= {} if no_color is None else {"NO_COLOR": no_color}
    leader, follower = pty.openpty()
    output = b""
    command = [sys.executable, "-m", "bandwidth_mfa_async", "report", str(launch)]
    with processes.running(command, stdout=follower, stdin=follower, env=env) as process:
        os.close(follower)
        try:
            while piece := os.read(leader, 65_536):
                output += piece
        except OSError:  # how Linux says that the other end has gone
            pass
        finally:
            os.close(leader)
        assert process.wait(timeout=20) == 0
    assert (re.search(rb"\x1b\[(3[1-7]|9[0-7])m", output) is not None) is coloured


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_report_in_an_encoding_without_blocks(launch: Path, encoding: str) -> None:
    """Bars and sparklines are drawn with ASCII characters."""
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "bandwidth_mfa_async", "report", str(launch)]
    done = processes.run(command, capture_output=True, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"  ####" in done.stdout
    assert b"?" not in done.stdout


def test_a_page_is_written_into_a_pipe(launch: Path, tmp_path: Path, invoke: Callable[..., Any]) -> None:
    """A file that is not regular is written to, not replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with processes.running(["cat", pipe], stdout=processes.PIPE) as reader:
        assert invoke(launch, "--html", pipe).exit_code == 0
        assert reader.communicate(timeout=20)[0].startswith(b"<!doctype html>")
    assert pipe.is_fifo()


def test_a_failed_write_keeps_the_older_page(launch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to do, and no temporary file is left."""
    monkeypatch.chdir(launch.parent)
    Path("page.html").write_text("the page of yesterday")
    before = sorted(Path().iterdir())
    # A limit on the file size simulates a full disk.
    command = f'ulimit -f 8; exec "{sys.executable}" -m bandwidth_mfa_async report launch.db --html page.html'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = processes.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    problem = "--html: page.html cannot be written: File too large"
    assert done.stderr == f"error: {problem}; free some space, or name another file, or - for standard output\n"
    assert Path("page.html").read_text() == "the page of yesterday"
    assert sorted(Path().iterdir()) == before
