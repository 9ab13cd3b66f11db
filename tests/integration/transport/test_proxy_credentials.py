"""Credentials in a proxy's URL are sent as UTF-8, or refused when the client is made; a 407 is named."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest
import trustme

from bandwidth_mfa_async import BasicAuth, ConfigurationError, Delivery, MFAClient, NotSentError
from tests.conftest import TO
from tests.support.certificates import serving, trusting
from tests.support.fault_server import FaultServer, kept
from tests.support.tunnel import Tunnel

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient


@pytest.mark.uvloop
@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("user:pass@", "user:pass"),
        ("jürgen:pä€ss@", "jürgen:pä€ss"),
        ("j%C3%BCrgen:p%40ss%2F%E2%82%AC@", "jürgen:p@ss/€"),
        ("user@", "user:"),
        ("", None),
    ],
)
async def test_proxy_credentials_are_sent_as_utf_8(
    make_client: MakeClient, template: CodeTemplate, userinfo: str, credentials: str | None
) -> None:
    """By warm-up and by calls, which share their connection."""
    authority = trustme.CA()
    tunnel = Tunnel(200)
    raw = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    proxy = f"http://{userinfo}127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    async with FaultServer(ssl=serving(authority)) as server:
        mfa = make_client(base_url=server.base_url, ssl=trusting(authority), proxy=proxy)
        await mfa.warm_up(2)
        for _ in range(3):
            await mfa.generate_messaging_code(template.to(TO))
        assert (len(tunnel.heads), kept(mfa)) == (2, 2)
        await mfa.aclose()
    for head in tunnel.heads:
        lines = [line for line in head.decode("ascii").split("\r\n") if line.lower().startswith("proxy-authorization")]
        expected = None if credentials is None else base64.b64encode(credentials.encode()).decode()
        assert lines == ([] if expected is None else [f"Proxy-Authorization: Basic {expected}"])
    raw.close()
    await raw.wait_closed()


@pytest.mark.parametrize(
    "proxy", ["http://u%3Aser:pass@proxy:1", "http://user:p%E4ss@proxy:1", "http://us%FFer@proxy:1"]
)
def test_proxy_credentials_that_cannot_be_sent_are_refused(proxy: str) -> None:
    """When the client is made, without the value."""
    with pytest.raises(ConfigurationError, match=r"^proxy: ") as caught:
        MFAClient("9900000", BasicAuth("user", "pass"), proxy=proxy)
    assert "ss" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)
async def test_a_407_is_named(make_client: MakeClient, template: CodeTemplate) -> None:
    """Nothing was sent, and the remedy is not the one for a proxy that is unreachable."""
    raw = await asyncio.start_server(Tunnel(407).serve, "127.0.0.1", 0)
    proxy = f"http://user:wrong@127.0.0.1:{raw.sockets[0].getsockname()[1]}"
    mfa = make_client(base_url="https://mfa.localhost/api/v1", proxy=proxy)
    with pytest.raises(
        NotSentError, match=r"did not accept the credentials \(407.* user name and password in proxy="
    ) as caught:
        await mfa.generate_messaging_code(template.to(TO))
    assert caught.value.delivery is Delivery.NOT_SENT
    assert "wrong" not in str(caught.value)
    await mfa.aclose()
    raw.close()
    await raw.wait_closed()
