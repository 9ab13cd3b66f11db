"""One attempt over HTTP: bytes out, an `Answer` or a `RequestError` back; the only package with an aiohttp client."""

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
