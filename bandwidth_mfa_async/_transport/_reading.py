"""Reads responses with a size limit, and rejects those whose end is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.client_proto import ResponseHandler
    from multidict import CIMultiDictProxy

    from .._wire import RawResponse


try:
    from aiohttp.http import HttpResponseParser
except ImportError:
    _parser_module = ""
else:
    _parser_module = HttpResponseParser.__module__

PURE_PYTHON_PARSER: Final = _parser_module == "aiohttp.http_parser"
"""Whether aiohttp parses responses in Python, as it does without its C extensions."""

MAX_RESPONSE_BYTES: Final = 64 * 1024
"""Limit of a response body in bytes; the largest documented one has about 400."""


async def read_body(
    response: RawResponse, status: int, headers: Mapping[str, str], stream: aiohttp.StreamReader
) -> None:
    """Read a body up to the size limit; set `defect` if it is too large or encoded."""
    response.status, response.headers = status, headers
    content = bytearray()
    try:
        while not stream.at_eof():
            content += await stream.readany()
            if len(content) > MAX_RESPONSE_BYTES:
                response.defect = "too large"
                return
    finally:
        response.body = bytes(content)
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        response.defect = "encoded"


def has_unread_bytes(protocol: ResponseHandler) -> bool:
    """Return whether aiohttp's Python parser holds the beginning of a line or a head that no request asked for.

    Use it only for a connection between two requests, or for one whose response head was read. The C parser rejects
    bytes that do not begin a response, and closes the connection.
    """
    parser = getattr(protocol, "_parser", None)
    return bool(getattr(parser, "_tail", None) or getattr(parser, "_lines", None))


def ensure_complete(headers: CIMultiDictProxy[str], protocol: ResponseHandler) -> None:
    """Reject a response that aiohttp's Python parser accepts and its C parser rejects.

    It is unclear where such a response ends, so its body may belong to something else.

    Raises:
        aiohttp.ClientPayloadError: the response has two lengths, or bytes followed its end.
    """
    # The next aiohttp's headers are a plain mapping whose `getall` takes no default.
    lengths = headers.getall("Content-Length") if "Content-Length" in headers else ()
    if len(lengths) > 1 or has_unread_bytes(protocol):
        raise aiohttp.ClientPayloadError("not HTTP")
