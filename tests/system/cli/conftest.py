"""A simulator and a Redis with a password."""

from tests.support.cli_fixtures import simulator
from tests.support.redis_fixtures import guarded

__all__ = ["guarded", "simulator"]
