"""Opens the client of a command from the environment."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .._client import MFAClient


def open_client(**overrides: Any) -> MFAClient:
    """Return a client for the environment's account; on a terminal, prompt for a missing password.

    Args:
        **overrides: constructor arguments that take precedence over the environment.

    Raises:
        ConfigurationError: variables are missing; the message names all of them.
    """
    missing = os.environ.get("BW_USERNAME") and not os.environ.get("BW_PASSWORD")
    if missing and sys.stdin is not None and sys.stdin.isatty():
        # Set in this process only: a command-line argument would be visible to every user of the machine.
        os.environ["BW_PASSWORD"] = click.prompt("password", hide_input=True, err=True)
    return MFAClient.from_env(**overrides)
