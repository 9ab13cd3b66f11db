"""A Lua script, run by its digest so that its text travels once."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class Script:
    """A Lua script.

    redis-py's `register_script` is not used: it needs SCRIPT LOAD, which is another permission and a round trip more,
    and computes a SHA-1 that FIPS builds of Python refuse.

    Args:
        text: its source.
    """

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def load(cls, package: str, *path: str) -> Self:
        """Read a script from a package's files; call it on import, not in the event loop."""
        return cls(resources.files(package).joinpath(*path).read_text("utf-8"))

    async def run(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run it with a redis-py client; send the text only if Redis does not have it."""
        from redis.exceptions import NoScriptError

        try:
            return await client.evalsha(self.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a new Redis, or one that was restarted
            return await client.eval(self.text, len(keys), *keys, *arguments)
