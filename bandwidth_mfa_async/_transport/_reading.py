"""Reads answers with a size limit and rejects incomplete ones."""

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
"""Bytes of an answer that are read; the largest documented one has about 400."""


async def read_body(
    response: RawResponse, status: int, headers: Mapping[str, str], stream: aiohttp.StreamReader
) -> None:
    """Read a body as far as it may go, and say why it is not whole or not readable."""
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
    """Tell whether aiohttp's parser in Python holds the beginning of a line or a head that nobody asked for.

    Only for a connection between two requests, or with an answer whose head was read. The parser in C refuses what
    begins no answer, and closes the connection.
    """
    parser = getattr(protocol, "_parser", None)
    return bool(getattr(parser, "_tail", None) or getattr(parser, "_lines", None))


def ensure_complete(headers: CIMultiDictProxy[str], protocol: ResponseHandler) -> None:
    """Refuse an answer that aiohttp's parser in Python takes and the one in C does not.

    Where it ends is doubtful, so what it says may belong to something else.

    Raises:
        aiohttp.ClientPayloadError: it has two lengths, or bytes came after its end.
    """
    if len(headers.getall("Content-Length", ())) > 1 or has_unread_bytes(protocol):
        raise aiohttp.ClientPayloadError("not HTTP")
