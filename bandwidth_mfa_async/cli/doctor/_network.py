"""The way to the service, without a word to it: DNS, TCP, TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ._types import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..._clock import Clock

FIREWALL: Final = "check that a firewall lets this machine out; behind a proxy, pass proxy= to MFAClient"
_DAY: Final = 86_400.0
# A certificate with fewer days left than this should have been renewed by whoever runs the service.
_CERTIFICATE_DAYS: Final = 14


async def reach(base_url: str, timeout: float, clock: Clock) -> AsyncIterator[Finding]:
    """Look at name, port and certificate, and end with the first that fails.

    Args:
        base_url: a checked URL.
        timeout: seconds for each.
        clock: what a certificate's days are counted by.
    """
    parts = urlsplit(base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(timeout):
            loop = asyncio.get_running_loop()
            resolved = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        late = isinstance(error, TimeoutError)
        detail = f"{host} was not resolved{' in time' if late else ''}"
        yield Finding("dns", "fail", detail, "check BW_MFA_URL's host name and this machine's resolver")
        return
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in resolved))
    yield Finding("dns", "ok", f"{host} is {', '.join(addresses)}")

    results = await asyncio.gather(*(_connect(address, port, timeout) for address in addresses))
    dead = [f"{address} ({why})" for address, why in zip(addresses, results, strict=True) if why]
    if len(dead) == len(addresses):
        remedy = f"check BW_MFA_URL's port; {FIREWALL}"
        yield Finding("tcp", "fail", f"no connection to port {port}: {', '.join(dead)}", remedy)
        return
    if dead:
        remedy = "the others are used; if it stays so, ask who runs this machine's network"
        yield Finding("tcp", "warn", f"port {port} does not answer at {', '.join(dead)}", remedy)
    else:
        yield Finding("tcp", "ok", f"port {port} answers")
    if not secure:
        yield Finding("tls", "skip", "plain http, which is allowed for this machine itself only")
        return
    address = next(address for address, why in zip(addresses, results, strict=True) if not why)
    yield await _tls(address, port, host, timeout, clock)


async def _connect(address: str, port: int, timeout: float) -> str:
    """Return why no connection could be made; nothing if one was."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else type(error).__name__
    writer.close()
    return ""


# OpenSSL's X509_V_ERR numbers (https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/).
_CERTIFICATE_REMEDIES: Final = {
    9: "check this machine's clock",
    10: "check this machine's clock; if it is right, tell whoever runs the service",
    62: "check BW_MFA_URL's host name; a captive portal or an inspecting proxy answers in this way too",
    64: "check BW_MFA_URL's host name; a captive portal or an inspecting proxy answers in this way too",
}
_UNTRUSTED: Final = (
    "install this machine's CA certificates (ca-certificates, or Python's Install Certificates), or name yours with "
    "SSL_CERT_FILE or MFAClient(ssl=...); an inspecting proxy has a CA of its own"
)


async def _tls(address: str, port: int, host: str, timeout: float, clock: Clock) -> Finding:
    # Reading the authorities takes 100 ms of blocking I/O.
    context = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        remedy = _CERTIFICATE_REMEDIES.get(error.verify_code, _UNTRUSTED)
        return Finding("tls", "fail", f"the certificate is refused: {error.verify_message}", remedy)
    except TimeoutError:
        return Finding("tls", "fail", f"no TLS handshake within {timeout:g} s", FIREWALL)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        remedy = f"check that BW_MFA_URL names a TLS port; {FIREWALL}"
        return Finding("tls", "fail", f"the handshake failed: {reason}".lower(), remedy)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate, protocol = tls.getpeercert() or {}, tls.version()
    writer.close()
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - clock.time()) / _DAY
    detail = f"{protocol}, certificate valid for {days:.0f} more days"
    if days < _CERTIFICATE_DAYS:
        remedy = "tell whoever runs the service; from its last day on every call fails with TLSError"
        return Finding("tls", "warn", detail, remedy)
    return Finding("tls", "ok", detail)
