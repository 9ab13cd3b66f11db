"""The command line's options, help and environment, without a server."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click
import pytest

from bandwidth_mfa_async.cli import main
from bandwidth_mfa_async.cli._app import app
from tests.conftest import TO
from tests.support.cli_fixtures import FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("thread", [True, False])
def test_the_import_restores_the_signal_handler(monkeypatch: pytest.MonkeyPatch, thread: bool) -> None:
    """Each command installs its own handlers."""
    monkeypatch.setattr(sys, "argv", ["bandwidth-mfa", "--version"])
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor() as pool, pytest.raises(SystemExit, match="0"):
        pool.submit(main).result() if thread else main()
    assert signal.getsignal(signal.SIGINT) is before


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


def test_an_option_shows_its_variable() -> None:
    """Otherwise the help calls an option required that the environment may set."""
    for command in app.commands.values():
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar is not None:
                assert option.show_envvar, (command.name, option.name)
                assert option.envvar != "BW_STORE_URL" or "--store" in option.opts, command.name


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
