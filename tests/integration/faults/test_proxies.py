"""Rows 37 to 39, 54 and 55 of the fault table: proxies, and settings that are refused before there is a client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from bandwidth_mfa_async import (
    BasicAuth,
    CodeTemplate,
    ConfigurationError,
    ConnectTimeoutError,
    Delivery,
    InvalidRequestError,
    MFAClient,
    NotSentError,
    RetryPolicy,
)
from tests.conftest import APPLICATION, FROM, TO
from tests.integration.faults.watch import ACCEPTED, MATRIX, REPEATED, Watch, prepare, send
from tests.support.certificates import serving, trusting
from tests.support.fault_server import Act, FaultServer, answer, refused_port
from tests.support.tunnel import Tunnel

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from tests.support.clients import MakeClient

pytestmark = MATRIX

PATIENT = RetryPolicy(connect_timeout=5.0, wait_initial=0.001, wait_max=0.002)


@pytest.mark.parametrize(
    ("act", "error", "elapsed"),
    [
        (answer(407, b"", headers={"Proxy-Authenticate": "Basic"}), NotSentError, REPEATED),
        (answer(502, b"<html>"), NotSentError, REPEATED),
        (Act(then="fin"), NotSentError, REPEATED),
        (Act(then="rst"), NotSentError, REPEATED),
        (Act(b"SSH-2.0\r\n\r\n", then="fin"), NotSentError, REPEATED),
        (Act(on_accept="rst"), NotSentError, REPEATED),
        (Act(then="hang"), ConnectTimeoutError, (15.0, 15.0 + REPEATED[1])),
    ],
    ids=["407", "502", "closed", "reset", "no HTTP", "reset on accept", "hangs"],
)
async def test_a_proxy_that_cannot_connect_is_not_sent(
    make_client: MakeClient, watch: Watch, act: Act, error: type, elapsed: Any, warm: bool
) -> None:
    """Whatever its response to CONNECT, the request was not written; it sees the service's name and no credentials."""
    authority = trustme.CA()
    async with FaultServer(ssl=serving(authority)) as server:
        tunnel = Tunnel(200)
        raw = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
        port = raw.sockets[0].getsockname()[1]
        client = make_client(
            base_url=server.base_url, ssl=trusting(authority), proxy=f"http://127.0.0.1:{port}", retry=PATIENT
        )
        await prepare(server, client, warm=warm, keep=False)
        assert len(tunnel.heads) == warm
        raw.close()
        await raw.wait_closed()
        async with FaultServer(port=port) as proxy:
            proxy.play(*[act] * 3)
            failure = await watch.of(send(client), client, server)
            await watch.shows(outcome=(error, Delivery.NOT_SENT), ledger=(0, 0), pool=0, elapsed=elapsed)
            assert (failure.attempts, proxy.accepted_connections, proxy.script) == (3, 3, [])
            for seen in proxy.seen:
                assert seen.head.startswith(f"CONNECT 127.0.0.1:{server.port} ")
                assert "authorization" not in seen.head.lower()
                assert seen.body == b""
        await client.aclose()


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_proxies_of_the_environment_are_not_used(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    warm: bool,
) -> None:
    """A variable that was set for something else receives no credentials, and a .netrc provides none."""
    client = make_client()
    (tmp_path / ".netrc").write_text("default login user password secret\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    await prepare(server, client, warm=warm, keep=False)
    async with FaultServer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        await watch.of(send(client), client, server)
        await watch.shows(outcome=ACCEPTED, ledger=(1, 1), pool=1, elapsed=0)
        assert {seen.headers["authorization"] for seen in server.seen} == {BasicAuth("user", "pass").header}
        with_tls = make_client(base_url=f"https://127.0.0.1:{refused_port()}")
        await watch.of(send(with_tls), with_tls, proxy)
        await watch.shows(outcome=(NotSentError, Delivery.NOT_SENT), ledger=(0, 0), pool=0, elapsed=REPEATED)
        assert proxy.accepted_connections == 0


# Warm, where there is no client yet: the borrowed session has a connection to the service.
REFUSED: dict[str, tuple[type[Exception], Callable[[], Any]]] = {
    "38 a proxy for plain http": (ConfigurationError, lambda: {"proxy": "http://127.0.0.1:3128"}),
    "54 a line break in a user name": (ConfigurationError, lambda: {"auth": BasicAuth("u\r\nX-Evil: 1", "p")}),
    "54 a line break in a password": (ConfigurationError, lambda: {"auth": BasicAuth("u", "p\nX-Evil: 1")}),
    "54 a line break in a number": (InvalidRequestError, lambda: CodeTemplate(FROM, APPLICATION).to(f"{TO}\r\nX: 1")),
    "55 a path in an account's id": (ConfigurationError, lambda: {"account_id": "../admin"}),
    "55 a line break in an account's id": (ConfigurationError, lambda: {"account_id": "1 HTTP/1.1\r\nX-Evil: 1"}),
}


@pytest.mark.parametrize("setting", REFUSED)
async def test_an_invalid_setting_is_refused(
    server: FaultServer, make_client: MakeClient, watch: Watch, setting: str, warm: bool
) -> None:
    """Before anything is opened or written."""
    error, options = REFUSED[setting]
    async with aiohttp.ClientSession() as session:
        lender = make_client(session=session)
        await prepare(server, lender, warm=warm)

        async def construct() -> MFAClient:
            return make_client(session=session, **options())

        await watch.of(construct(), lender, server)
        await watch.shows(outcome=(error, None), ledger=(0, 0), pool=int(warm), elapsed=0)
        assert server.accepted_connections == warm
        await lender.aclose()
