"""The files and the event stream of the inbox page; tests/system/browser tests it in a browser."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from bandwidth_mfa_async.simulator._event_broadcaster import Subscription
from tests.integration.simulator.conftest import SEND, TO, until


class Stream:
    """Reads the event stream of a page event by event."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    async def raw(self) -> bytes:
        return await self._content.readuntil(b"\n\n")

    async def next(self) -> tuple[str, dict]:
        name, data = (await self.raw()).decode("ascii").strip().split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@pytest.fixture
async def stream(api, sim):
    async with api.session.get(sim.control_url + "/events") as response:
        assert response.content_type == "text/event-stream"
        opened = Stream(response)
        assert (await opened.raw()).startswith(b"retry:")
        yield opened


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/_simulator/page/style.css", "text/css"),
        ("/_simulator/page/inbox.js", "text/javascript"),
        ("/_simulator/page/entries.js", "text/javascript"),
        ("/_simulator/page/controls.js", "text/javascript"),
        ("/_simulator/page/dom.js", "text/javascript"),
    ],
)
async def test_the_page_files_have_their_content_type_and_a_strict_policy(api, sim, path, kind):
    async with api.session.get(sim.page_url[:-1] + path) as response:
        assert (response.status, response.content_type) == (200, kind)
        body = await response.text()
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert not any("unsafe" in rule or "http:" in rule for rule in policy)
    assert not any(word in body for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("))
    assert "https:" not in body.replace('"https:"', "")
    async with api.session.head(sim.page_url[:-1] + path) as response:
        assert (response.status, await response.read()) == (200, b"")
    assert not sim.requests


async def test_other_paths_get_403_and_other_methods_405(api, sim):
    for path in ("/_simulator/page/", "/_simulator/page/../_page.py", "/index.html", "/_simulator/page/_page.py"):
        async with api.session.get(sim.page_url[:-1] + path) as response:
            assert response.status == 403
    async with api.session.post(sim.page_url) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET")


NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", NAVIGATION, 200),
        ("/", NAVIGATION | {"Sec-Fetch-Dest": "iframe"}, 403),
        ("/", NAVIGATION | {"Sec-Fetch-Mode": "no-cors"}, 403),
        ("/", NAVIGATION | {"Host": "evil.example"}, 403),
        ("/_simulator/messages", NAVIGATION, 403),
        ("/_simulator/events", NAVIGATION, 403),
        ("/_simulator/events", {"Origin": "http://evil.example"}, 403),
    ],
)
async def test_other_sites_can_only_link_to_the_page(api, sim, path, headers, status):
    async with api.session.get(sim.page_url[:-1] + path, headers=headers) as response:
        assert response.status == status


async def test_a_page_receives_an_event_for_every_change(api, sim, stream):
    await api.send()
    name, data = await stream.next()
    assert (name, data["total"], data["message"]["code"]) == ("message", 1, sim.inbox[0].code)
    await api.send(callbackUrl="http://example.com/")
    assert (await stream.next())[1]["message"]["callbackUrl"] == "http://example.com/"
    state = {"id": sim.inbox[1].message_id, "receipt": "blocked", "receiptType": None}
    assert await stream.next() == ("state", state | {"verified": None, "answerStatus": 200})
    await api.verify("0000")
    name, data = await stream.next()
    assert (name, data["operation"], data["status"]) == ("request", "verify", 200)
    sim.set_limits(messaging=AccountLimits())
    assert await stream.next() == ("limits", {})
    sim.faults.script(Fault(status=500))
    assert await stream.next() == ("faults", {})
    await api.send()
    assert await stream.next() == ("faults", {})
    assert (await stream.next())[1]["fault"] == {"accepted": False, "status": 500}
    sim.faults.chance(Fault(status=500), 0.5)
    assert await stream.next() == ("faults", {})
    sim.clear()
    assert await stream.next() == ("reload", {})


async def test_successful_requests_send_no_request_event(api, sim, stream):
    await api.send()
    assert await api.verify(sim.last_code(TO)) == (200, {"valid": True})
    await api.send()
    assert [(await stream.next())[0] for _ in range(3)] == ["message", "state", "message"]


async def test_an_idle_stream_sends_heartbeats(sim, stream, clock):
    for _ in range(3):
        await until(lambda: clock.pending)
        clock.tick(15)
        assert await stream.raw() == b":\n\n"


async def test_all_pages_receive_events_until_they_disconnect(api, sim):
    responses = [await api.session.get(sim.control_url + "/events") for _ in range(50)]
    streams = [Stream(response) for response in responses]
    for stream in streams:
        await stream.raw()
    assert len(sim._events) == 50
    await api.send()
    assert {(await stream.next())[0] for stream in streams} == {"message"}
    for response in responses:
        response.close()
    await until(lambda: len(sim._events) == 0)
    assert (await api.send())[0] == 200


async def test_stop_ends_the_streams_immediately(session):
    async with Simulator() as sim:
        response = await session.get(sim.control_url + "/events")
        stream = Stream(response)
        await stream.raw()
        start = asyncio.get_running_loop().time()
        await sim.stop()
        assert asyncio.get_running_loop().time() - start < 0.5
        assert await stream.raw() == b""
        assert len(sim._events) == 0
        response.close()


async def test_the_queue_of_a_slow_page_becomes_one_reload_event():
    subscription = Subscription()
    for index in range(2_000):
        subscription.push(b"event: message\ndata: %d\n\n" % index)
    assert await subscription.take(None) == b"event: reload\ndata: {}\n\n"
    subscription.push(b"x")
    subscription.push(b"x")
    assert await subscription.take(None) == b"x"
    subscription.close()
    assert await subscription.take(None) is None


async def test_a_page_that_does_not_read_is_disconnected(api, sim, clock):
    """Once the socket buffers are full, the page has 30 s of the clock."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port, limit=1)
    writer.write(b"GET /_simulator/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await until(lambda: len(sim._events))
    (subscription,) = sim._events._subscriptions
    big = b":" + b"x" * 1_000_000 + b"\n\n"
    for _ in range(20):
        subscription.push(big)
        subscription.push(b":\n\n")
        for _ in range(20):
            await asyncio.sleep(0)
    assert len(subscription._events) > 0
    clock.tick(30)
    await until(lambda: len(sim._events) == 0)
    writer.close()
    del reader
    assert (await api.send())[0] == 200


async def test_a_head_request_for_the_stream_ends(api, sim):
    async with api.session.head(sim.control_url + "/events") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
    assert len(sim._events) == 0


async def test_messages_can_be_filtered_by_part_of_a_number_and_limited(api):
    for number in ("+19195551234", "+19195550000", "+447700900123"):
        await api.send(to=number)
    for query, found in (
        ({"number": "(919) 555-00"}, ["+19195550000"]),
        ({"number": "+"}, ["+19195551234", "+19195550000", "+447700900123"]),
        ({"number": "554321", "limit": "2"}, ["+19195550000", "+447700900123"]),
        ({"number": "x"}, []),
        ({"limit": "1"}, ["+447700900123"]),
        ({"limit": "0"}, []),
    ):
        _, body = await api.control("GET", "/messages", params=query)
        assert [message["to"] for message in body["messages"]] == found
        assert body["all"] == 3
        assert body["total"] >= len(found)
    for wrong in ("", "-1", "x", "1.5", "9" * 12, "\u0661"):
        assert (await api.control("GET", "/messages", params={"limit": wrong}))[0] == 400


async def test_refused_requests_can_be_listed_and_deleted(api, sim):
    await api.send()
    await api.verify("0000")
    await api.send(digits=3)
    sim.faults.script(Fault(drop="after_read"), Fault(status=200, body="{}"))
    with pytest.raises(aiohttp.ClientError):
        await api.send()
    await api.send()
    _, body = await api.control("GET", "/requests?refused", params={})
    # The connection was dropped after the message was accepted, so that one is in the inbox.
    assert [each["status"] for each in body["requests"]] == [200, 400, 200]
    _, body = await api.control("GET", "/requests", params={"refused": "1", "limit": "1"})
    assert (len(body["requests"]), body["total"]) == (1, 3)
    assert (await api.control("DELETE", "/requests"))[0] == 204
    assert sim.requests == []


async def test_the_account_endpoint_returns_no_credential(api, sim):
    assert await api.control("GET", "/account") == (200, {"accountId": sim.account_id})


async def test_without_an_open_page_no_event_is_encoded(api, sim):
    """Without an open page, a request costs only a check for subscriptions."""
    assert len(sim._events) == 0
    sim._events._publish = None
    assert (await api.send())[0] == 200
    assert (await api.post("voice", SEND))[0] == 200
