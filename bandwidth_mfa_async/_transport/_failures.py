"""Translates exceptions of aiohttp and the system into errors, for attempts with an unsent and with a begun body."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import aiohttp

from .._tls_reason import tls_reason
from .._wire import TOKEN_OPERATION
from ..errors import (
    ConnectTimeoutError,
    DisconnectedError,
    MFAError,
    NotSentError,
    ReadTimeoutError,
    ResponseDecodeError,
    TLSError,
)

if TYPE_CHECKING:
    from ..errors import RequestError

# aiohttp raises all of these for connections, names, URLs and responses that fail; the last one for a name without an
# address.
_CONNECTION_FAILURES: Final = (aiohttp.ClientError, OSError, EOFError, RuntimeError, ValueError, AssertionError)
_DEFECTS: Final = (NotImplementedError, RecursionError)


def is_connection_failure(failure: BaseException) -> bool:
    """Return whether an exception means that a connection failed; otherwise it is a defect, or an error of ours."""
    return isinstance(failure, _CONNECTION_FAILURES) and not isinstance(failure, (MFAError, *_DEFECTS))


def error_before_send(failure: BaseException, operation: str) -> RequestError:  # noqa: PLR0911 - a table, row by row
    """Return the error for a failure that occurred before the body was begun."""
    url = "token_url" if operation == TOKEN_OPERATION else "base_url"
    # The order matters: aiohttp's TLS and DNS errors are connection errors.
    if isinstance(failure, (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)):
        reason, remedy = tls_reason(failure, url=url) or ("the TLS handshake failed", f"check {url}")
        return TLSError(f"{reason}; {remedy}", operation)
    if isinstance(failure, asyncio.CancelledError):
        return NotSentError("the session was closed while the request waited for a connection", operation)
    if isinstance(failure, TimeoutError):
        return ConnectTimeoutError("the connection was not established in time", operation)
    if isinstance(failure, (aiohttp.ClientConnectorDNSError, socket.gaierror)):
        return NotSentError(f"the service's host name could not be resolved; check {url} and DNS", operation)
    if isinstance(failure, aiohttp.ClientHttpProxyError) and failure.status == 407:
        return NotSentError(
            "the proxy did not accept the credentials (407 Proxy Authentication Required); "
            "check the user name and password in proxy=, which it wants by HTTP Basic",
            operation,
        )
    if isinstance(failure, (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError)):
        return NotSentError("the proxy could not connect; check proxy=", operation)
    return NotSentError(f"the connection could not be established ({_kind(failure)})", operation)


def error_after_send(failure: BaseException, operation: str) -> RequestError:
    """Return the error for a failure that occurred after the body was begun and before a status arrived."""
    if isinstance(failure, TimeoutError):
        return ReadTimeoutError("the request was written and no response arrived in time", operation)
    if isinstance(failure, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError)):
        # The parser's errors carry a status of 400 that the server did not send.
        return ResponseDecodeError("the request was written and the response is not valid HTTP", operation)
    return DisconnectedError(f"the request was written and the connection was lost ({_kind(failure)})", operation)


def _kind(failure: BaseException) -> str:
    number = getattr(failure, "errno", None)
    if isinstance(number, int) and number > 0:
        return f"{type(failure).__name__}, errno {number}"
    return type(failure).__name__
