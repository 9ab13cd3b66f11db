"""Make one HTTP attempt: bytes out, a `RawResponse` or a `RequestError` back.

This is the only package with an aiohttp client. Read it in this order:

1. `_session`: the connection pool, the time limit of an attempt, and the error when no response arrives.
2. `_documented`: how an attempt is sent through aiohttp's documented interface. This is the reference behaviour.
3. `_body`, `_reading`, `_failures`: whether the body may have been written, how a response is read, and what an
   exception means.
4. `_fast_path`: an optimisation of `_documented` with the same behaviour for half the CPU. It uses parts of aiohttp
   that are not documented, and `_documented` takes over when they are missing.
5. `_deadlines`, `_pool`, `_tls`, `_options`: attempt timeouts, how connections are opened and retired, the default TLS
   context, and checks of constructor arguments.
"""

from __future__ import annotations

from yarl import URL

from ._body import Body, Headers
from ._options import checked_transport_options
from ._reading import MAX_RESPONSE_BYTES
from ._session import Transport, absolute_url, endpoint, request_headers

__all__ = [
    "MAX_RESPONSE_BYTES",
    "URL",
    "Body",
    "Headers",
    "Transport",
    "absolute_url",
    "checked_transport_options",
    "endpoint",
    "request_headers",
]
