"""A simulator, a Redis with a password, and a function that runs a command."""

from tests.support.cli_fixtures import invoke, simulator
from tests.support.redis_fixtures import guarded

__all__ = ["guarded", "invoke", "simulator"]
