"""The network checks of the command `doctor`: DNS, TCP and TLS, without an HTTP request."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ..._tls_reason import tls_reason
from .._formats import plural
from ._types import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..._clock import Clock

FIREWALL: Final = "check that the firewall allows this connection; behind a proxy, pass proxy= to MFAClient"
_DAY: Final = 86_400.0
# The service's operator should have renewed a certificate with fewer days left.
_CERTIFICATE_DAYS: Final = 14


async def check_network(base_url: str, timeout: float, clock: Clock) -> AsyncIterator[Finding]:
    """Check name, port and certificate, and stop at the first that fails.

    Args:
        base_url: a valid URL.
        timeout: the timeout of each check, in seconds.
        clock: the clock for the days until the certificate expires.
    """
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            resolved = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        timed_out = isinstance(error, TimeoutError)
        detail = f"{host} was not resolved{' in time' if timed_out else ''}"
        yield Finding("dns", "fail", detail, "check BW_MFA_URL's host name and this machine's resolver")
        return
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in resolved))
    yield Finding("dns", "ok", f"{host} is {', '.join(addresses)}")

    results = await asyncio.gather(*(_connect(address, port, timeout) for address in addresses))
    unreachable = [f"{address} ({why})" for address, why in zip(addresses, results, strict=True) if why]
    if len(unreachable) == len(addresses):
        remedy = f"check BW_MFA_URL's port; {FIREWALL}"
        yield Finding("tcp", "fail", f"no connection to port {port}: {', '.join(unreachable)}", remedy)
        return
    if unreachable:
        remedy = "the other addresses are used; if this persists, ask your network's administrator"
        yield Finding("tcp", "warn", f"port {port} does not answer at {', '.join(unreachable)}", remedy)
    else:
        yield Finding("tcp", "ok", f"port {port} answers")
    if not secure:
        yield Finding("tls", "skip", "plain http, which is allowed on loopback only")
        return
    address = next(address for address, why in zip(addresses, results, strict=True) if not why)
    yield await _check_tls(address, port, host, timeout, clock)


async def _connect(address: str, port: int, timeout: float) -> str:
    """Return why a connection failed; an empty string if it succeeded."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else type(error).__name__
    writer.close()
    return ""


async def _check_tls(address: str, port: int, host: str, timeout: float, clock: Clock) -> Finding:
    # Loading the CA certificates takes 100 ms of blocking I/O.
    context = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    except TimeoutError:
        return Finding("tls", "fail", f"no TLS handshake within {timeout:g} s", FIREWALL)
    except OSError as error:  # ssl.SSLError is one
        found = tls_reason(error, url="BW_MFA_URL")
        if found is not None:
            return Finding("tls", "fail", *found)
        reason = error.strerror or type(error).__name__
        remedy = f"check that BW_MFA_URL names a TLS port; {FIREWALL}"
        return Finding("tls", "fail", f"the TLS handshake failed: {reason}".lower(), remedy)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate, protocol = tls.getpeercert() or {}, tls.version()
    writer.close()
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - clock.time()) / _DAY
    detail = f"{protocol}, certificate valid for {plural(round(days), 'more day')}"
    if days < _CERTIFICATE_DAYS:
        remedy = "inform the service's operator; once the certificate expires, every call fails with TLSError"
        return Finding("tls", "warn", detail, remedy)
    return Finding("tls", "ok", detail)
