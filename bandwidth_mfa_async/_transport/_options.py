"""Checks the constructor arguments that concern the transport."""

from __future__ import annotations

from ssl import SSLContext
from urllib.parse import unquote_to_bytes

import aiohttp
from yarl import URL

from .._credentials import basic_header
from .._redaction import Secret
from ..errors import ConfigurationError
from ._body import Headers

_PROXY_FORM = (
    "proxy: must be a URL like 'http://proxy.example.com:3128' or 'http://user:password@proxy.example.com:3128'"
)


def checked_transport_options(session: object, ssl: object, proxy: object, base_url: str) -> None:
    """Check the session, SSL context and proxy passed to the client.

    Raises:
        ConfigurationError: an argument is wrong; names it and what it accepts.
    """
    if session is not None and not isinstance(session, aiohttp.ClientSession):
        raise ConfigurationError("session: must be an aiohttp.ClientSession")
    if ssl is not None and not isinstance(ssl, SSLContext):
        raise ConfigurationError(
            "ssl: must be an ssl.SSLContext; verification cannot be switched off, but a context may trust your own CA: "
            "ssl.create_default_context(cafile=...)"
        )
    if proxy is not None:
        if not isinstance(proxy, str):
            raise ConfigurationError(_PROXY_FORM)
        if base_url.lower().startswith("http://"):
            # A proxy for plain http can read the credentials, and its own 502 looks like the service's.
            raise ConfigurationError("proxy: works with an https base_url only")
        split_proxy(proxy)


def split_proxy(proxy: str) -> tuple[URL, Headers | None]:
    """Return a proxy's URL without credentials, and the header with them.

    aiohttp would encode them as Latin-1, in which most characters do not exist; RFC 7617 recommends UTF-8.

    Raises:
        ConfigurationError: it is not an http(s) URL, or its credentials cannot be sent.
    """
    try:
        url = URL(proxy)
        bare = url.with_user(None)
        if url.scheme not in {"http", "https"} or not url.host:
            raise ValueError
    except ValueError:  # also from `host`, which is decoded on access
        raise ConfigurationError(_PROXY_FORM) from None
    try:
        user, password = (Secret(unquote_to_bytes(part or "").decode()) for part in (url.raw_user, url.raw_password))
    except UnicodeDecodeError:
        raise ConfigurationError("proxy: encode user name and password in UTF-8, then with percent signs") from None
    if ":" in user:
        raise ConfigurationError("proxy: the user name must not hold ':', which separates it from the password")
    return bare, Headers({"Proxy-Authorization": basic_header(user, password)}) if user or password else None
