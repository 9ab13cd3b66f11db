"""Consoles respect the terminal, and a stream that fails is quiet."""

from __future__ import annotations

import errno
import io

import pytest

from bandwidth_mfa_async.cli._output import OutputConsole, QuietStream, can_animate, can_print_blocks


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}], ids=str)
def test_only_a_terminal_is_animated(monkeypatch: pytest.MonkeyPatch, force: dict[str, str]) -> None:
    """Whatever FORCE_COLOR says; NO_COLOR and a dumb terminal have no animation."""
    for name, value in {"TERM": "xterm", **force}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not can_animate(OutputConsole(stderr=True))
    monkeypatch.setattr("sys.stderr", Terminal())
    assert can_animate(OutputConsole(stderr=True))
    monkeypatch.setenv("TERM", "dumb")
    assert not can_animate(OutputConsole(stderr=True))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not can_animate(OutputConsole(stderr=True))


@pytest.mark.parametrize("columns", ["0", "00"])
def test_no_width_means_80(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """Rich prints nothing on a console that is 0 wide."""
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    monkeypatch.setenv("COLUMNS", columns)
    console = OutputConsole()
    console.print("result")
    assert (console.width, out.getvalue()) == (80, "result\n")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "koi8-r"])
def test_blocks_are_printed_only_in_an_encoding_that_has_them(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """The encoding of the stream decides."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert can_print_blocks() == (encoding == "utf-8")


class Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, _text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "x"),
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EIO, "x"),
        UnicodeEncodeError("ascii", "\u2588", 0, 1, "x"),
        ValueError("I/O operation on closed file"),
    ],
    ids=repr,
)
def test_a_stream_that_fails_is_quiet(error: Exception) -> None:
    """Writing and flushing raise nothing, and the loss is known."""
    stream = QuietStream(Broken(error))
    stream.flush()
    assert stream.failed
    assert stream.write("text") == 4
    assert QuietStream(None).failed


def test_a_stream_that_works_is_unchanged() -> None:
    """Everything but its buffer is available, so that click writes through it."""
    stream = QuietStream(out := io.StringIO())
    stream.write("text")
    stream.flush()
    assert (out.getvalue(), stream.failed, stream.isatty(), hasattr(stream, "buffer")) == ("text", False, False, False)
