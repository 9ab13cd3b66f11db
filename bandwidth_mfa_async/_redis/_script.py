"""A Lua script that runs by its digest, so that its text is sent once."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_text(value: Any) -> str:
    """Return a value of Redis's reply as text: bytes, or a number."""
    return value.decode() if isinstance(value, bytes) else str(value)


class Script:
    """A Lua script.

    Does not use redis-py's `register_script`: that needs SCRIPT LOAD, which is one more permission and one more round
    trip, and computes SHA-1 in a way that FIPS builds of Python refuse.

    Args:
        text: the source.
    """

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def load(cls, package: str, *path: str) -> Self:
        """Read a script from a package's files. Call it at import, not in the event loop."""
        return cls(resources.files(package).joinpath(*path).read_text("utf-8"))

    async def run(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run the script with a redis-py client; send its text only if Redis does not have it."""
        from redis.exceptions import NoScriptError

        try:
            return await client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a new or restarted Redis
            return await client.eval(self.text, len(keys), *keys, *arguments)

    async def run_then(self, client: Any, keys: Sequence[str], arguments: Sequence[Any], command: Sequence[Any]) -> Any:
        """Run the script and then a command on the same connection, as ``WAIT`` needs; return both replies."""
        async with client.client() as connection:
            reply = await self.run(connection, keys, arguments)
            return reply, await connection.execute_command(*command)
