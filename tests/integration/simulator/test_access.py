"""Who may use the page and the control API when other machines can reach the simulator."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from yarl import URL

from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.simulator._ready import ready_url, wait_until_ready
from tests.integration.simulator.conftest import SEND, TO, ApiClient
from tests.support.suspensions import every_suspension

TOKEN = "a-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def guarded():
    async with Simulator(control_hosts={"simulator.test"}, control_token=TOKEN) as running:
        yield running


async def status_of(session: aiohttp.ClientSession, url: str, method: str = "GET", **headers: str) -> int:
    async with session.request(method, url, headers=headers, allow_redirects=False) as response:
        return response.status


async def test_the_page_and_the_api_need_the_token_and_the_service_does_not(session, guarded):
    origin = guarded.page_url
    for path in ("", "_simulator/messages", "_simulator/events", "_simulator/page/inbox.js", "_simulator/openapi.json"):
        assert await status_of(session, origin + path) == 401, path
        assert await status_of(session, origin + path, Authorization="Bearer wrong") == 401
        assert await status_of(session, origin + path, Authorization="Basic " + TOKEN) == 401
    assert await status_of(session, origin + "_simulator/faults", "DELETE") == 401
    assert await status_of(session, origin + "_simulator/messages", **BEARER) == 200
    api = ApiClient(session, guarded)
    assert (await api.send())[0] == 200
    assert TOKEN not in repr(guarded)


async def test_the_address_with_the_token_logs_a_browser_in(guarded):
    """The cookie is for the page's own path, so that it works behind a proxy under a prefix too."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        assert await status_of(browser, guarded.page_url + "?token=wrong") == 401
        async with browser.get(guarded.page_url + f"?token={TOKEN}", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (303, "./")
            cookie = response.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}
        assert "path" not in cookie.lower()
        assert await status_of(browser, guarded.page_url) == 200
        assert await status_of(browser, guarded.control_url + "/messages") == 200


async def test_two_simulators_of_one_host_have_different_cookies():
    """Ports do not separate cookies."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
        Simulator(control_token=True) as one,
        Simulator(control_token=True) as other,
    ):
        assert one.control_token != other.control_token
        for each in (one, other):
            await status_of(browser, f"{each.page_url}?token={each.control_token}")
        for each in (one, other):
            assert await status_of(browser, each.page_url) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "simulator.test:4010"}, 200),
        ({"Host": "192.0.2.7:4010"}, 200),
        ({"Host": "[2001:db8::1]"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        # nginx without `proxy_set_header Host`: the browser itself says that the page is the simulator's.
        ({"Host": "127.0.0.1:4010", "Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": "127.0.0.1:4010", "Origin": "http://localhost:8080"}, 403),
        ({"Host": "evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
async def test_a_token_admits_addresses_and_names_but_no_other_site(session, guarded, headers, status):
    assert await status_of(session, guarded.control_url + "/messages", **headers, **BEARER) == status


async def test_without_a_token_other_addresses_stay_refused(session, sim):
    assert await status_of(session, sim.control_url + "/messages", Host="192.0.2.7") == 403


async def test_on_all_addresses_the_urls_name_loopback(session):
    """A client may not send credentials over plain http to any other address, and 0.0.0.0 is none."""
    async with Simulator(host="0.0.0.0") as sim:
        assert URL(sim.base_url).host == "127.0.0.1"
        assert (await ApiClient(session, sim).send())[0] == 200


async def test_the_certificate_names_the_control_hosts(session):
    async with Simulator(tls=True, control_hosts={"simulator.test"}) as sim:
        connector = aiohttp.TCPConnector(resolver=_Loopback(), ssl=sim.ssl_context)
        async with aiohttp.ClientSession(connector=connector) as client:
            url = f"https://simulator.test:{sim.port}/_simulator/ready"
            assert await status_of(client, url) == 200


class _Loopback(aiohttp.abc.AbstractResolver):
    """Resolves every name to loopback."""

    async def resolve(self, host, port=0, family=0):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self):
        pass


async def test_ready_needs_neither_host_nor_token(session, guarded):
    assert await status_of(session, guarded.control_url + "/ready", Host="any.name") == 200
    async with session.get(guarded.control_url + "/ready") as response:
        assert await response.json() == {"ready": True}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1", "http://h:1/_simulator/ready"),
        ("http://h:1/api/v1", "http://h:1/_simulator/ready"),
        ("https://h/mfa/api/v1/oauth2/token", "https://h/mfa/_simulator/ready"),
        ("http://h:1/mfa/?token=x#inbox", "http://h:1/mfa/_simulator/ready"),
        ("http://h:1/_simulator/messages", "http://h:1/_simulator/ready"),
    ],
)
def test_any_printed_address_leads_to_the_ready_path(url, expected):
    assert ready_url(url) == expected


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://[x", "http://h:99999", "4010"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="must be a URL like"):
        ready_url(url)


async def test_waiting_ends_when_the_simulator_answers():
    async with Simulator(tls=True) as sim:
        url, port = sim.base_url, sim.port
    waiting = asyncio.create_task(wait_until_ready(url, 20))
    await asyncio.sleep(0)
    assert not waiting.done()
    async with Simulator(port, tls=True):
        await waiting
    with pytest.raises(TimeoutError):
        await wait_until_ready(url, 0.01)


async def test_a_wait_for_a_simulator_can_be_cancelled():
    """No connection stays."""
    async with Simulator() as sim:
        url = sim.base_url
        async for suspensions, task in every_suspension(lambda: wait_until_ready(url, 20)):
            assert task.cancelled() == suspensions.struck


async def test_a_call_has_no_receipt_to_resend(session, guarded):
    api = ApiClient(session, guarded)
    await api.post("voice", SEND)
    identifier = guarded.inbox[0].message_id
    status, body = await api.control("POST", "/receipts", json={"messageId": identifier}, headers=BEARER)
    assert (status, TO in body["error"]) == (409, False)
