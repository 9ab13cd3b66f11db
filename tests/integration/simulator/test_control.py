"""The JSON control API: its endpoints and its protection against other web sites."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest
import yarl

from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.integration.simulator.conftest import SEND, TO, ApiClient, until


async def test_messages_can_be_listed_filtered_and_deleted(api, sim):
    await api.send()
    await api.post("voice", SEND | {"to": "+19195550000"})
    status, body = await api.control("GET", "/messages")
    assert status == 200
    first, second = body["messages"]
    assert first["code"] == sim.inbox[0].code
    assert first["messageId"] == sim.inbox[0].message_id
    assert second["callId"] == sim.inbox[1].call_id
    assert (first["from"], first["receipt"], first["segments"]) == (SEND["from"], "none", 1)
    status, body = await api.control("GET", "/messages", params={"to": TO})
    assert [message["to"] for message in body["messages"]] == [TO]
    assert (await api.control("DELETE", "/messages"))[0] == 204
    assert not sim.inbox
    assert await api.verify(first["code"]) == (200, {"valid": True})


async def test_latest_waits_for_and_returns_the_newest_message_to_a_number(api, sim, clock):
    assert (await api.control("GET", "/messages/latest"))[0] == 400
    status, body = await api.control("GET", "/messages/latest?to=+19195551234")
    assert (status, "%2B" in body["error"]) == (404, True)
    waiting = asyncio.create_task(api.control("GET", "/messages/latest", params={"to": TO, "wait": "10"}))
    await until(lambda: clock.pending)
    await api.send()
    assert (await waiting)[1]["code"] == sim.last_code(TO)
    await api.send()
    assert (await api.control("GET", "/messages/latest", params={"to": TO}))[1]["code"] == sim.inbox[-1].code
    for wait in ("x", "-1", "61", "nan"):
        assert (await api.control("GET", "/messages/latest", params={"to": "+1", "wait": wait}))[0] == 400


async def test_latest_returns_404_if_no_message_arrives_in_time(api, clock):
    waiting = asyncio.create_task(api.control("GET", "/messages/latest", params={"to": TO, "wait": "10"}))
    await until(lambda: clock.pending)
    clock.tick(10)
    assert (await waiting)[0] == 404


async def test_latest_waits_for_a_message_newer_than_an_id(api, sim, clock):
    await api.send()
    first = sim.inbox[0].message_id
    query = {"to": TO, "after": first}
    status, body = await api.control("GET", "/messages/latest", params=query)
    assert (status, body["error"]) == (404, "no newer message to that number")
    waiting = asyncio.create_task(api.control("GET", "/messages/latest", params=query | {"wait": "10"}))
    await until(lambda: clock.pending)
    await api.send(to="+19195550000")
    await api.send()
    assert (await waiting)[1]["code"] == sim.last_code(TO)
    # Already there: no wait. An id that was deleted is older than all.
    assert (await api.control("GET", "/messages/latest", params=query | {"wait": "10"}))[0] == 200
    assert (await api.control("GET", "/messages/latest", params={"to": TO, "after": "deleted"}))[0] == 200


async def test_a_message_shows_its_verification_and_what_its_sender_got(api, sim):
    """Verified, and what its sender got."""
    await api.send()
    assert (sim.inbox[0].verified, sim.inbox[0].answer_status) == (None, 200)
    await api.verify("00000000")
    assert sim.inbox[0].verified is None
    await api.verify(sim.last_code(TO))
    sim.faults.script(
        Fault(drop="after_read"),
        Fault(drop="half_answer"),
        Fault(truncate=True),
        Fault(status=503, accepted=True),
    )
    for _ in range(4):
        with contextlib.suppress(aiohttp.ClientError):
            await api.send()
    _, body = await api.control("GET", "/messages")
    assert [each["verified"] for each in body["messages"]] == [1_750_000_000.0, *[None] * 4]
    assert [each["answerStatus"] for each in body["messages"]] == [200, None, None, None, 503]


async def test_a_sender_that_leaves_during_a_delay_got_no_answer(api, sim):
    sim.faults.script(Fault(delay=float("inf")))
    sending = asyncio.create_task(api.send())
    await until(lambda: sim.inbox)
    assert sim.inbox[0].answer_status is None
    sending.cancel()
    await until(lambda: sim._front._delayed == set())
    assert sim.inbox[0].answer_status is None


async def test_a_delayed_answer_counts_when_it_is_sent(api, sim, clock):
    sim.faults.script(Fault(delay=5))
    sending = asyncio.create_task(api.send())
    await until(lambda: clock.pending)
    assert sim.inbox[0].answer_status is None
    clock.tick(5)
    await sending
    assert sim.inbox[0].answer_status == 200


async def test_faults_can_be_removed_one_by_one(api, sim):
    await api.control("POST", "/faults", json={"script": [{"status": 500}, {"status": 501}, {"status": 502}]})
    _, body = await api.control("POST", "/faults", json={"fault": {"status": 503}, "share": 0.5})
    first, second, _third, last = [rule["id"] for rule in body["faults"]]
    assert (await api.control("DELETE", "/faults", params=[("id", second), ("id", last)]))[0] == 204
    assert [rule.fault.status for rule in sim.faults.rules] == [500, 502]
    assert (await api.control("DELETE", "/faults", params={"id": second}))[0] == 404
    await api.send()
    assert (await api.control("DELETE", "/faults", params={"id": first}))[0] == 404
    assert [rule.fault.status for rule in sim.faults.rules] == [502]


async def test_request_records_have_the_reason_but_no_code(api, sim):
    await api.send(digits=3)
    sim.faults.script(Fault(status=503))
    await api.send()
    _, body = await api.control("GET", "/requests")
    first, second = body["requests"]
    assert (first["operation"], first["status"]) == ("messaging", 400)
    assert first["reason"].startswith("digits must")
    assert second["fault"] == {"accepted": False, "status": 503}
    await api.send()
    await api.verify(sim.last_code(TO))
    _, body = await api.control("GET", "/requests")
    assert sim.last_code(TO) not in json.dumps([{**each, "time": 0} for each in body["requests"]])


async def test_limits_are_read_and_written(api, sim):
    assert await api.control("GET", "/limits") == (200, {"messaging": None, "voice": None})
    status, body = await api.control("PUT", "/limits", json={"messaging": {"rate": 60, "per": 60}})
    assert (status, body["messaging"]["rate"], body["messaging"]["model"], body["voice"]) == (200, 60, "queue", None)
    assert sim.limits["messaging"].per_second == 1
    assert (await api.control("PUT", "/limits", json={"messaging": None}))[1] == {"messaging": None, "voice": None}
    for wrong in ({"sms": None}, {"voice": {"rate": 0}}, {"voice": {"speed": 1}}, {"voice": 5}, [], 5):
        assert (await api.control("PUT", "/limits", json=wrong))[0] == 400
    assert sim.limits == {"messaging": None, "voice": None}


async def test_faults_are_read_written_and_cleared(api, sim):
    script = {"script": [{"status": 503}, {"drop": "after_read"}], "operation": "voice"}
    assert (await api.control("POST", "/faults", json=script))[0] == 200
    random_fault = {"fault": {"delay": "forever", "headers": {"A": "b"}, "body": {"x": 1}}, "share": 0.25, "to": TO}
    _, body = await api.control("POST", "/faults", json=random_fault)
    assert [rule["share"] for rule in body["faults"]] == [None, None, 0.25]
    assert body["faults"][2]["fault"] == {
        "accepted": True,
        "delay": "forever",
        "headers": {"A": "b"},
        "body": '{"x":1}',
    }
    assert (await api.post("voice", SEND | {"to": "+19195550000"}))[0] == 503
    assert (await api.control("DELETE", "/faults"))[0] == 204
    assert await api.control("GET", "/faults") == (200, {"faults": []})
    for wrong in (
        {},
        {"script": 5},
        {"script": [{"status": 5}]},
        {"script": [{"what": 5}]},
        {"script": [{"status": "500"}]},
        {"script": [{"status": 500}], "operation": []},
        {"fault": {"status": 500}, "share": "x"},
        {"fault": 5, "share": 1},
        {"fault": {"headers": 5}, "share": 1},
    ):
        assert (await api.control("POST", "/faults", json=wrong))[0] == 400, wrong
    assert not sim.faults


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
async def test_other_web_sites_cannot_read_the_codes(api, headers, status):
    """Host reveals DNS rebinding; Origin and Sec-Fetch-Site reveal another site."""
    assert (await api.control("GET", "/messages", headers=headers))[0] == status


async def test_a_form_of_another_site_cannot_write(api, sim):
    """A cross-site form can send only text/plain and the form types; JSON needs a preflight, which is never granted."""
    body = json.dumps({"script": [{"status": 500}]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert (await api.control("POST", "/faults", data=body, headers={"Content-Type": kind}))[0] == 415
    assert not sim.faults
    async with api.session.options(sim.control_url + "/faults") as response:
        assert response.status == 405
        assert not any(name.lower().startswith("access-control") for name in response.headers)


async def test_the_inbox_page_can_write(api, sim):
    origin = {"Origin": f"http://127.0.0.1:{sim.port}"}
    assert (await api.control("DELETE", "/faults", headers=origin))[0] == 204


async def test_invalid_bodies_large_bodies_and_wrong_methods_are_rejected(api, sim):
    kind = {"Content-Type": "application/json"}
    for raw, status in ((b"{", 400), (b"[" * 100_000, 400), (b'"' + b"x" * 1_000_000, 413)):
        assert (await api.control("POST", "/faults", data=raw, headers=kind))[0] == status
    assert (await api.control("POST", "/messages", json={}))[0] == 405
    async with api.session.head(sim.control_url + "/messages") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_control_hosts_allows_another_host_name(session):
    """A simulator in a container is addressed by the container's name."""
    async with Simulator(control_hosts={"Simulator.test"}) as sim:
        api = ApiClient(session, sim)
        assert (await api.control("GET", "/messages", headers={"Host": "simulator.test:80"}))[0] == 200


BRACKETS = ("http://[bad", "[", "]", "//[", "http://a]")
NASTY = (*BRACKETS, "\xff", "%", "%zz", ":", ":x", "a:99999999", "=?", "x" * 4_000, "")


@pytest.mark.parametrize("header", ["Origin", "Host", "Authorization", "Content-Type", "Sec-Fetch-Site", "Accept"])
async def test_no_header_is_a_server_error(sim, header):
    """Whatever a browser, a proxy or a scanner sends."""
    paths = ["/", "/_simulator/messages", "/_simulator/faults", f"/api/v1/accounts/{sim.account_id}/code/messaging"]
    async with aiohttp.ClientSession() as session:
        for path in [*paths, "/_simulator/messages/latest?to=%&wait=nan", "/_simulator/messages?limit=%00&number=%ff"]:
            for value in NASTY:
                url = yarl.URL(f"http://127.0.0.1:{sim.port}{path}", encoded=True)
                for method in ("GET", "POST"):
                    async with session.request(method, url, headers={header: value}, data=b"{}") as response:
                        assert response.status < 500, (method, path, value)
