"""A function that runs a command."""

from tests.support.cli_fixtures import invoke

__all__ = ["invoke"]
