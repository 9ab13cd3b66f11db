"""Makes the installed aiohttp look like its development branch, for a run over the documented interface.

A pytest plugin: `pytest -p tests.support.next_aiohttp`. Before the package is imported it changes aiohttp as version 4
does: no `BasicAuth`, a `ClientRequest` whose arguments are keywords without defaults, a `ClientSession` that cannot be
subclassed, and response headers that are a plain mapping.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
import aiohttp.client

# From `ClientRequest.__init__` of aiohttp's master, 2026-08-22.
_REQUIRED = frozenset(
    {
        *("params", "headers", "skip_auto_headers", "data", "cookies", "version", "compress", "chunked", "expect100"),
        *("loop", "response_class", "proxy", "timer", "session", "ssl", "proxy_headers", "traces", "trust_env"),
        "server_hostname",
    }
)


class KeywordRequest(aiohttp.ClientRequest):
    """A request with the signature of aiohttp 4."""

    def __init__(self, method: str, url: Any, **options: Any) -> None:
        if missing := _REQUIRED - options.keys():
            raise TypeError(f"ClientRequest.__init__() missing {len(missing)} required keyword-only arguments")
        super().__init__(method, url, **options)


class _Headers(Mapping[str, str]):
    """The headers of a response: repeated ones are joined, and `getall` takes no default."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def getall(self, key: str, *default: Any) -> tuple[str, ...]:
        if default and not sys._getframe(1).f_globals["__name__"].startswith("aiohttp."):
            raise TypeError("getall() takes 2 positional arguments but 3 were given")
        return tuple(part.strip() for part in self[key].split(",")) if key in self else ()

    def __getitem__(self, key: str) -> str:
        return ", ".join(self._headers.getall(key))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._headers))

    def __len__(self) -> int:
        return len(set(self._headers))


def _forbid(cls: type[aiohttp.ClientSession]) -> None:
    raise TypeError(f"Inheritance class {cls.__name__} from ClientSession is forbidden")


def pytest_configure() -> None:
    """Check that the package was imported after these changes, and that the fast path is off because of them."""
    from bandwidth_mfa_async._transport._fast_path import _destination_class

    assert issubclass(_destination_class(), KeywordRequest)


def _install() -> None:
    changed: Any = aiohttp
    del changed.BasicAuth
    changed.ClientRequest = changed.client.ClientRequest = KeywordRequest
    session: Any = aiohttp.ClientSession
    session.__init__.__kwdefaults__["request_class"] = KeywordRequest
    session.__init_subclass__ = classmethod(_forbid)
    response: Any = aiohttp.ClientResponse
    response.headers = property(lambda self: _Headers(self._headers))


_install()
