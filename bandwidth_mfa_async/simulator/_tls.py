"""A certificate authority and a server certificate, made at start."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import Final, Literal, TypeAlias

from attrs import frozen

from ._errors import InvalidOptionError, SimulatorStateError

Certificate: TypeAlias = Literal["valid", "expired", "wrong_host"]
"""The kind of certificate that the server presents."""


# A TLS record: an alert, fatal, handshake_failure (RFC 8446, sections 5.1 and 6.2).
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"


class _ServerSSLObject(ssl.SSLObject):
    """A TLS connection whose handshake can be made to fail."""

    incoming: ssl.MemoryBIO
    alert_output: ssl.MemoryBIO | None = None

    def do_handshake(self) -> None:
        """Perform the handshake, or respond to the client's hello with an alert and wait until it disconnects.

        If OpenSSL sends the alert, event loops drop the connection before the alert is written.
        """
        if self.alert_output is None:
            super().do_handshake()
            return
        if self.incoming.pending:
            self.incoming.read()
            self.alert_output.write(_ALERT)
        raise ssl.SSLWantReadError


class ServerContext(ssl.SSLContext):
    """A server context whose next handshakes can be made to fail."""

    sslobject_class: type[ssl.SSLObject] = _ServerSSLObject
    failures_left: int = 0
    """The number of the next handshakes that fail."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the ssl module's own signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Start one connection; event loops call this method."""
        connection = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        if self.failures_left > 0 and isinstance(connection, _ServerSSLObject):
            self.failures_left -= 1
            connection.incoming = incoming
            connection.alert_output = outgoing
        return connection


@frozen(eq=False)
class TLS:
    """The server context and what clients need to trust its certificate."""

    server: ServerContext
    client: ssl.SSLContext
    """Trusts only the simulator's authority."""
    ca_pem: bytes
    """The authority's certificate, for clients in other programs."""


def make_tls(hosts: list[str], certificate: Certificate) -> TLS:
    """Make an authority and a certificate for `hosts`, ``localhost`` and the loopback addresses.

    Args:
        hosts: the address that the server listens on, and the machine's other names.
        certificate: "valid", "expired" (yesterday) or "wrong_host" (for another name).

    Raises:
        InvalidOptionError: `certificate` is none of these.
        SimulatorStateError: the `trustme` package is not installed.
    """
    try:
        import trustme
    except ImportError:
        raise SimulatorStateError("tls=True needs the trustme package: pip install trustme") from None
    authority = trustme.CA()
    names = list(dict.fromkeys([*hosts, "localhost", "127.0.0.1", "::1"]))
    now = dt.datetime.now(dt.UTC)
    match certificate:
        case "valid":
            leaf = authority.issue_cert(*names)
        case "expired":
            day = dt.timedelta(days=1)
            leaf = authority.issue_cert(*names, not_before=now - 2 * day, not_after=now - day)
        case "wrong_host":
            leaf = authority.issue_cert("mfa.bandwidth.invalid")
        case _:
            raise InvalidOptionError("certificate must be 'valid', 'expired' or 'wrong_host'")
    server = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(server)  # pyright: ignore[reportUnknownMemberType] - its types name pyOpenSSL's
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
    return TLS(server, client, authority.cert_pem.bytes())
