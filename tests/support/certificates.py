"""Certificates for servers on loopback, good and bad."""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile

import trustme


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Return a client's context that trusts an authority besides the system's."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def serving(authority: trustme.CA, how: str = "good") -> ssl.SSLContext:
    """Return a server's context: "good", "wrong host", "expired", or "self-signed" by the authority itself."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if how == "self-signed":
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
            pem.flush()
            context.load_cert_chain(pem.name)
    else:
        name = "elsewhere.example" if how == "wrong host" else "127.0.0.1"
        expired = dt.datetime(2020, 1, 1, tzinfo=dt.UTC) if how == "expired" else None
        authority.issue_cert(name, not_after=expired).configure_cert(context)
    return context
