"""Who may use the inbox page and the control API: allowed host names, the token, and no other web site."""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from aiohttp import web

from ._loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection


class ControlError(Exception):
    """An error response of the control API: its status and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message


class Access:
    """Checks requests to the page and to the control API.

    The Host header must name this machine or one of `hosts`. If a browser sends the origin of the request, it must be
    this server. Thus no web site can read codes or add faults, not even by DNS rebinding. With a token, a request also
    needs it: in the header ``Authorization: Bearer TOKEN``, or, for a browser, in the cookie that ``/?token=TOKEN``
    sets. A token also admits every IP address as the host, because DNS rebinding needs a name.

    Args:
        hosts: additional host names, without port, that the Host header may contain.
        token: the token, or None if none is needed.
    """

    def __init__(self, hosts: Collection[str], token: str | None) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token
        # Cookies of a host are shared by its ports, so two simulators need two names.
        self._cookie = "" if token is None else f"mfa-simulator-{hashlib.sha256(token.encode()).hexdigest()[:12]}"

    def check(self, request: web.BaseRequest, *, is_linkable: bool) -> None:
        """Refuse a request of another web site, with an unknown host name, or without the token.

        Args:
            request: the request.
            is_linkable: whether a link of another site may open the path.

        Raises:
            ControlError: the request is refused.
        """
        if not self._is_known_host(request.headers.get("Host", "")):
            raise ControlError(
                403, "this host name is not allowed; use a loopback name, or add this one to control_hosts"
            )
        self._check_site(request, is_linkable=is_linkable)
        if self._token is not None and not self._has_token(request):
            raise ControlError(
                401,
                "the token that the simulator printed is missing or wrong; open the page with ?token=TOKEN,"
                " or send the header Authorization: Bearer TOKEN",
            )

    def log_in(self, request: web.BaseRequest) -> web.Response | None:
        """Return a response that stores the token of the page's address in a cookie; None if there is none to store."""
        token = request.query.get("token")
        if self._token is None or token is None or not _equal(token, self._token):
            return None
        # Relative, because a reverse proxy may serve the page under a prefix.
        response = web.Response(status=303, headers={"Location": "./", "Cache-Control": "no-store"})
        # Without a path the cookie is for the page's own path and below, prefix included.
        secure = "; Secure" if request.secure else ""
        response.headers["Set-Cookie"] = f"{self._cookie}={quote(token, safe='')}; HttpOnly; SameSite=Lax{secure}"
        return response

    def _check_site(self, request: web.BaseRequest, *, is_linkable: bool) -> None:
        headers = request.headers
        site = headers.get("Sec-Fetch-Site", "none")
        if site == "same-origin":
            # The browser compared the origins itself. A reverse proxy may have replaced the Host header.
            return
        origin = headers.get("Origin")
        if origin is not None and _netloc(origin) != headers.get("Host", ""):
            raise ControlError(
                403,
                "requests from other web sites are not allowed; a reverse proxy must pass the header Host,"
                " for nginx: proxy_set_header Host $http_host",
            )
        if site == "none":
            return
        # A link opens the page in a window that the other site cannot read.
        navigation = headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")
        if not is_linkable or navigation != ("navigate", "document"):
            raise ControlError(403, "requests from other web sites are not allowed")

    def _is_known_host(self, host_and_port: str) -> bool:
        try:
            host = urlsplit(f"//{host_and_port}").hostname or ""
        except ValueError:
            return False
        return host in self._hosts or is_loopback(host) or (self._token is not None and _is_address(host))

    def _has_token(self, request: web.BaseRequest) -> bool:
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        presented = value.strip() if scheme.lower() == "bearer" else unquote(request.cookies.get(self._cookie, ""))
        return _equal(presented, self._token or "")


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # a bracket without its counterpart
        return None
