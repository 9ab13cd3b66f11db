"""The client that a command sends with."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .._client import MFAClient


def open_client(**overrides: Any) -> MFAClient:
    """Return a client of the environment's account; a missing password is asked for on a terminal.

    Args:
        **overrides: constructor arguments that win over the environment.

    Raises:
        ConfigurationError: names every variable that is missing.
    """
    missing = os.environ.get("BW_USERNAME") and not os.environ.get("BW_PASSWORD")
    if missing and sys.stdin is not None and sys.stdin.isatty():
        # Kept in this process only: an argument would be seen by everyone on the machine.
        os.environ["BW_PASSWORD"] = click.prompt("password", hide_input=True, err=True)
    return MFAClient.from_env(**overrides)
