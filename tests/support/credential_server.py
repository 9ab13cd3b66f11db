"""A real server on loopback that accepts the kinds of credentials that a test chooses, by operation."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Self

from aiohttp import web

from bandwidth_mfa_async import BasicAuth, CredentialChain, OAuth2ClientCredentials

BASIC = BasicAuth("user", "hunter2")
ANSWERS = {"messaging": {"messageId": "m1"}, "voice": {"callId": "c1"}, "verify": {"valid": True}}


class CredentialServer:
    """The service and its token endpoint.

    `accepts` has the kinds that each operation accepts; `requests` counts the requests by operation, kind and status;
    `hang` makes an endpoint ("token" or an operation) not answer; `fail` makes it answer with that status and body.
    """

    def __init__(self) -> None:
        self.accepts = {operation: {"basic", "oauth2"} for operation in ANSWERS}
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.hang: set[str] = set()
        self.fail: dict[str, tuple[int, object]] = {}
        self.password = "hunter2"
        self.origin = ""
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_post("/api/v1/accounts/{account}/code/{operation}", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.origin = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def oauth2(self) -> OAuth2ClientCredentials:
        return OAuth2ClientCredentials("client", "hunter3", f"{self.origin}/token")

    def chain(self, probe_after: float = 300.0) -> CredentialChain:
        """Return both kinds, OAuth2 first."""
        return CredentialChain(self.oauth2, BASIC, probe_after=probe_after)

    def only(self, *kinds: str) -> None:
        """Accept these kinds from now on, for every operation."""
        self.accepts = {operation: set(kinds) for operation in ANSWERS}

    def count(self, operation: str, kind: str | None = None, status: int | None = None) -> int:
        """Return the number of requests so far."""
        return sum(
            number
            for (name, used, code), number in self.requests.items()
            if name == operation and kind in {None, used} and status in {None, code}
        )

    async def _token(self, request: web.Request) -> web.Response:
        return await self._answer("token", "basic", {"access_token": f"t{self.count('token')}", "expires_in": 3600})

    async def _serve(self, request: web.Request) -> web.Response:
        operation, header = request.match_info["operation"], request.headers["Authorization"]
        kind = "oauth2" if header.startswith("Bearer ") else "basic"
        accepted = kind in self.accepts[operation]
        if kind == "basic" and header != BasicAuth("user", self.password).header:
            accepted = False
        if not accepted:
            self.requests[operation, kind, 403] += 1
            return web.json_response({"message": f"forbidden for {kind}"}, status=403)
        return await self._answer(operation, kind, ANSWERS[operation])

    async def _answer(self, operation: str, kind: str, document: object) -> web.Response:
        status = 200
        if operation in self.fail:
            status, document = self.fail[operation]
        self.requests[operation, kind, status] += 1
        if operation in self.hang:
            await self._closing.wait()
        return web.json_response(document, status=status)
