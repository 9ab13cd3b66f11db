"""The options of limits, the warnings and the table of `bandwidth-mfa limits`."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.live import Live

from bandwidth_mfa_async import ConfigurationError, Rate
from bandwidth_mfa_async._validation import CHANNELS
from bandwidth_mfa_async.cli._limit_options import _WARNINGS, limits_from_options
from bandwidth_mfa_async.cli._limits import _table
from bandwidth_mfa_async.limits.shared._status import SharedStatus


def test_a_warning_is_printed_above_a_live_display():
    """Text written past the display would be overwritten."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    with Live("sending", console=console, auto_refresh=False):
        _WARNINGS.handle(logging.LogRecord("x", logging.WARNING, "", 0, "%s is lost", ("Redis",), None))
    assert "warning: Redis is lost" in shown.getvalue()


def test_the_title_of_a_narrow_table_is_not_wrapped():
    """A wrapped title would change the height of the live table."""
    shown = io.StringIO()
    Console(file=shown, width=80).print(
        _table([SharedStatus(channel=name, state="known", rate=3) for name in CHANNELS])
    )
    assert "limits, all processes together" in shown.getvalue()


def test_options_are_converted_to_limits(monkeypatch):
    """The rate applies to the channel; a shared limit needs the account id."""
    assert limits_from_options("5/s", None, channel="voice").voice_rate == Rate(5)
    assert limits_from_options(None, None, max_in_flight=3).max_in_flight == 3
    assert "'77'" in repr(limits_from_options(None, "redis://h", account_id="77").shared)
    monkeypatch.delenv("BW_ACCOUNT_ID", raising=False)
    with pytest.raises(ConfigurationError, match="BW_ACCOUNT_ID"):
        limits_from_options(None, "redis://h")


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        ("60/x", "--rate: must look like '5/s', '60/m', '1000/h' or '10/d'"),
        ("0/s", "--rate: count: must be greater than 0"),
        ("5/0s", "--rate: per: must be greater than 0"),
    ],
)
@pytest.mark.parametrize("channel", ["messaging", "voice"])
def test_an_invalid_rate_names_the_option(rate, says, channel):
    """For every channel, with what is wrong with the text."""
    with pytest.raises(ConfigurationError) as caught:
        limits_from_options(rate, None, channel=channel)
    assert str(caught.value) == says
