"""A Redis for tests that break it, the limiter's script in virtual time, and limiters of the shared rate."""

import pytest

from tests.support.limits_fixtures import make_limiter, own_redis
from tests.support.virtual_redis import VirtualScript

__all__ = ["make_limiter", "own_redis"]


@pytest.fixture
def script(redis_server):
    """The script in a real Redis, with the time as an argument."""
    made = VirtualScript(redis_server)
    yield made
    made.client.close()
