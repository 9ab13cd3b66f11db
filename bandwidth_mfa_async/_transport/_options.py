"""Checks the constructor arguments that concern the transport."""

from __future__ import annotations

import aiohttp
from yarl import URL

from ..errors import ConfigurationError


def checked_transport_options(session: object, ssl: object, proxy: object, base_url: str) -> None:
    """Check the session, SSL context and proxy passed to the client.

    Raises:
        ConfigurationError: an argument is wrong; names it and what it accepts.
    """
    from ssl import SSLContext

    if session is not None and not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session: must be an aiohttp.ClientSession")
    if ssl is not None and not isinstance(ssl, SSLContext):
        raise ConfigurationError(
            "ssl: must be an ssl.SSLContext; verification cannot be switched off, but a context may trust your own CA: "
            "ssl.create_default_context(cafile=...)"
        )
    if proxy is not None:
        if not isinstance(proxy, str):
            raise ConfigurationError("proxy: must be a URL like 'http://proxy.example.com:3128'")
        if base_url.lower().startswith("http://"):
            # A proxy for plain http can read the credentials, and its own 502 looks like the service's.
            raise ConfigurationError("proxy: works with an https base_url only")
        try:
            url = URL(proxy)
            sound = url.scheme in {"http", "https"} and bool(url.host)
        except ValueError:  # also from `host`, which is decoded on access
            sound = False
        if not sound:
            raise ConfigurationError("proxy: must be a URL like 'http://proxy.example.com:3128'")
