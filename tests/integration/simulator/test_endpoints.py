"""The three MFA endpoints and the token endpoint, over HTTP, compared with the documentation."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import uuid

import aiohttp
import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.simulator import InvalidOptionError, Simulator
from tests.integration.simulator.conftest import SEND, TO, ApiClient
from tests.support import processes
from tests.support.fault_server import basic_auth

SEED_BODY = """
    {
        "to"            : "+12345678902",
        "from"          : "+12345678901",
        "applicationId" : "93de2206-9669-4e07-948d-329f4b722ee2",
        "scope"         : "scope"
    }
  """


async def test_messaging_returns_a_message_id_of_29_characters_with_an_epoch_prefix(api, sim, clock):
    """messageId: 29 characters, the first 13 of them epoch milliseconds."""
    status, body = await api.send()
    assert status == 200
    assert body.keys() == {"messageId"}
    assert re.fullmatch(r"\d{13}[0-9a-z]{16}", body["messageId"])
    assert int(body["messageId"][:13]) == int(clock.time() * 1000)
    [message] = sim.inbox
    assert (message.to, message.from_, message.scope, message.channel) == (TO, SEND["from"], "login", "messaging")
    assert message.message_id == body["messageId"]
    assert message.application_id == SEND["applicationId"]
    assert message.text == f"Your Simulator login code is {message.code}"
    assert re.fullmatch(r"\d{6}", message.code)
    assert (message.segments, message.time, message.receipt) == (1, clock.time(), "none")


async def test_voice_returns_a_call_id_of_47_characters(api, sim):
    """callId: 47 characters, like c-15ac29a2-1331029c-2cb0-4a07-b215-b22865662d85."""
    status, body = await api.post("voice", SEND)
    assert status == 200
    assert re.fullmatch(r"c-[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", body["callId"])
    assert sim.inbox[0].call_id == sim.inbox[0].message_id == body["callId"]
    assert sim.inbox[0].channel == "voice"


async def test_a_text_message_has_no_call_id(api, sim):
    await api.send()
    with pytest.raises(AttributeError, match="message_id"):
        _ = sim.inbox[0].call_id


@pytest.mark.parametrize("digits", [4, 8, 6.0])
async def test_a_code_has_the_requested_number_of_digits(api, sim, digits):
    await api.send(digits=digits)
    assert re.fullmatch(rf"\d{{{int(digits)}}}", sim.last_code(TO))


async def test_every_response_has_the_json_content_type(api, session, sim):
    """Bandwidth's pages show one content type on all responses, errors included."""
    url = f"{sim.base_url}/accounts/{sim.account_id}/code/messaging"
    for headers in ({}, api.basic):
        async with session.post(url, json=SEND, headers=headers) as response:
            assert response.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_the_four_key_body_of_2020_gets_the_default_text(api, sim):
    """The page of 2020 sends only to, from, applicationId and scope."""
    status, _ = await api.post("messaging", json.loads(SEED_BODY))
    assert status == 200
    assert sim.inbox[0].text == f"Your Simulator scope code is {sim.inbox[0].code}"
    assert len(sim.inbox[0].code) == 6


async def test_scope_defaults_to_2fa_in_both_requests(api, sim):
    body = {key: value for key, value in SEND.items() if key != "scope"}
    await api.post("messaging", body)
    assert sim.inbox[0].scope == "2FA"
    check = {"to": TO, "code": sim.last_code(TO), "expirationTimeInMinutes": 3}
    assert await api.post("verify", check) == (200, {"valid": True})
    assert await api.post("verify", check | {"scope": "2FA"}) == (200, {"valid": True})


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("legacy_response_keys", "key"), [(False, "messageId"), (True, "MessageId")])
async def test_the_documented_curl_command_of_2020_works(legacy_response_keys, key):
    """curl --data-raw does not send a JSON content type; no source says that the service needs one."""
    async with Simulator(legacy_response_keys=legacy_response_keys) as sim:
        url = f"{sim.base_url}/accounts/{sim.account_id}/code/messaging"
        command = ("curl", "-sS", "-X", "POST", "--url", url, "-u", f"{sim.username}:{sim.password}")
        pipes = {"stdout": processes.PIPE, "stderr": processes.PIPE}
        async with processes.running_async(*command, "--data-raw", SEED_BODY, **pipes) as curl:
            out, err = await curl.communicate()
        assert not err
        assert json.loads(out) == {key: sim.inbox[0].message_id}


async def test_missing_credentials_get_401_and_wrong_ones_403(api, sim):
    """The statuses are those of Bandwidth's live tests, the bodies those of the errors page."""
    forbidden = 403, {"Message": "User is not authorized to access this resource with an explicit deny"}
    assert await api.post("messaging", SEND, headers={}) == (401, {"message": "Unauthorized"})
    for name, password in ((sim.username, "wrong"), ("wrong", sim.password), (sim.username.upper(), sim.password)):
        headers = {"Authorization": basic_auth(name, password)}
        assert await api.post("messaging", SEND, headers=headers) == forbidden
    for value in ("Basic", "Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(), "Digest x", "Bearer x"):
        assert await api.post("verify", SEND, headers={"Authorization": value}) == forbidden
    assert await api.post("messaging", SEND, account="9900001") == forbidden
    assert not sim.inbox
    assert {record.reason for record in sim.requests} >= {"no Authorization header", "wrong account"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"to": None}, "to number is required"),
        ({"to": ""}, "to number is required"),
        ({"to": "+1invalid"}, "to number is invalid"),
        ({"to": "19195551234"}, "to number is invalid"),
        ({"to": "+19195551234\n"}, "to number is invalid"),
        ({"to": "+1\u0661\u0662\u0663"}, "to number is invalid"),
        ({"to": 19195551234}, "to number is invalid"),
        ({"from": None}, "from number is required"),
        ({"from": "invalid"}, "from number is invalid"),
        ({"applicationId": None}, "applicationId is required"),
        ({"applicationId": "x" * 51}, "applicationId must be text of 1 to 50 characters"),
        ({"applicationId": []}, "applicationId must be text of 1 to 50 characters"),
        ({"scope": "x" * 26}, "scope must be text of at most 25 characters"),
        ({"scope": 5}, "scope must be text of at most 25 characters"),
        ({"message": "no placeholder"}, "message must contain {CODE}"),
        ({"message": "{CODE}" + "x" * 2043}, "message must be text of at most 2048 characters"),
        ({"message": {}}, "message must be text of at most 2048 characters"),
        ({"digits": 3}, "digits must be a whole number from 4 to 8"),
        ({"digits": 9}, "digits must be a whole number from 4 to 8"),
        ({"digits": 4.5}, "digits must be a whole number from 4 to 8"),
        ({"digits": True}, "digits must be a whole number from 4 to 8"),
        ({"digits": "6"}, "digits must be a whole number from 4 to 8"),
        ({"callbackUrl": 1}, "callbackUrl must be text"),
    ],
)
async def test_an_invalid_code_request_gets_400_with_error_and_request_id(api, sim, changes, error):
    status, body = await api.send(**changes)
    assert (status, body.keys(), body["error"]) == (400, {"error", "requestId"}, error)
    assert str(uuid.UUID(body["requestId"])) == body["requestId"]
    assert not sim.inbox
    assert sim.requests[-1].reason == error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"to": "+1invalid"}, "to number is invalid"),
        ({"code": None}, "code is required"),
        ({"code": "123"}, "code must be text of 4 to 8 characters"),
        ({"code": 123456}, "code must be text of 4 to 8 characters"),
        ({"expirationTimeInMinutes": 0}, "expirationTimeInMinutes must be greater than 0 and at most 15"),
        ({"expirationTimeInMinutes": 15.5}, "expirationTimeInMinutes must be greater than 0 and at most 15"),
        ({"expirationTimeInMinutes": True}, "expirationTimeInMinutes must be greater than 0 and at most 15"),
        ({"expirationTimeInMinutes": float("nan")}, "expirationTimeInMinutes must be greater than 0 and at most 15"),
        ({"scope": ["login"]}, "scope must be text"),
    ],
)
async def test_an_invalid_verification_gets_400(api, changes, error):
    status, body = await api.verify("123456", **changes)
    assert (status, body["error"]) == (400, error)


async def test_require_message_rejects_requests_without_message_or_digits(session):
    async with Simulator(require_message=True) as sim:
        api = ApiClient(session, sim)
        assert (await api.send(message=None))[1]["error"] == "message is required"
        assert (await api.send(digits=None))[1]["error"] == "digits is required"
        status, body = await api.verify("123456", expirationTimeInMinutes=None)
        assert (status, body["error"]) == (400, "expirationTimeInMinutes is required")


async def test_the_send_and_the_verification_of_2020_are_accepted(api, sim, clock):
    """Python SDK 6.2 to 6.5 and their siblings send these keys; the window of that time is not known."""
    four_keys = {"to": TO, "from": SEND["from"], "applicationId": "a", "scope": "scope"}
    assert (await api.post("messaging", four_keys))[0] == 200
    check = {"to": TO, "applicationId": "a", "scope": "scope", "code": sim.last_code(TO)}
    clock.tick(15 * 60)
    assert await api.post("verify", check) == (200, {"valid": True})
    clock.tick(1)
    assert await api.post("verify", check) == (200, {"valid": False})


async def test_an_unknown_application_gets_400(session):
    async with Simulator(applications={SEND["applicationId"]}) as sim:
        api = ApiClient(session, sim)
        assert (await api.send())[0] == 200
        assert (await api.send(applicationId="bogus"))[0] == 400


async def test_unknown_keys_are_ignored(api, sim):
    """Bandwidth's pages still send applicationId to verify, and its sample sends additional keys."""
    assert (await api.send(expirationTimeInMinutes=5, tag="x"))[0] == 200
    assert await api.verify(sim.last_code(TO), applicationId="x", digits=6) == (200, {"valid": True})


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"1" * 5000,
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"to":' * 20_000,
        b"to=%2B1919",
    ],
)
async def test_a_body_that_is_not_a_json_object_gets_400(api, raw):
    status, body = await api.post("messaging", data=raw)
    assert (status, body["error"]) == (400, "400 Request is malformed or invalid")
    assert (await api.send())[0] == 200


async def test_a_body_of_a_megabyte_gets_413_and_the_server_continues(api, sim):
    assert (await api.post("messaging", data=b"x" * 1_000_000))[0] == 413
    assert (await api.post("messaging", data=json.dumps(SEND | {"x": "y" * 1_000_000}).encode()))[0] == 413
    assert (await api.send())[0] == 200


async def test_lone_surrogates_and_hostile_text_are_accepted(api, sim):
    text = "\ud800 {CODE} </script><img src=x onerror=alert(1)> {{7*7}} \u202e\x00"
    status, _ = await api.post("messaging", data=json.dumps(SEND | {"message": text}).encode())
    assert status == 200
    assert (await api.control("GET", "/messages"))[1]["messages"][0]["text"] == text.replace(
        "{CODE}", sim.inbox[0].code
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/accounts/9900000/code/messaging"),
        ("PUT", "/api/v1/accounts/9900000/code/verify"),
        ("OPTIONS", "/api/v1/accounts/9900000/code/voice"),
        ("GET", "/api/v1/oauth2/token"),
        ("POST", "/api/v1/accounts/9900000/code/messagingCallback"),
        ("POST", "/api/v1/accounts/9900000/code/"),
        ("POST", "/api/v2/accounts/9900000/code/messaging"),
        ("GET", "/../../etc/passwd"),
        ("GET", "/favicon.ico"),
    ],
)
async def test_unknown_paths_and_methods_get_the_gateways_403(api, session, sim, method, path):
    """The response is Amazon's gateway's and the spec's example of a 403, even with valid credentials."""
    async with session.request(method, sim.base_url.removesuffix("/api/v1") + path, headers=api.basic) as response:
        assert (response.status, await response.json()) == (403, {"message": "Missing Authentication Token"})


async def test_the_server_continues_after_bytes_that_are_not_http(api, sim):
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00 what?\r\n\r\n")
    assert b"400" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert (await api.send())[0] == 200


async def test_a_client_that_expects_100_continue_gets_it(api, sim):
    async with asyncio.timeout(2):
        assert (await api.post("messaging", SEND, expect100=True))[0] == 200


async def test_a_path_with_a_query_or_escapes_finds_its_endpoint(api):
    assert (await api.post("messaging?x=1", SEND))[0] == 200
    assert (await api.post("%6Dessaging", SEND))[0] == 200


# OAuth2


async def _token(api, *, secret=None, data="grant_type=client_credentials"):
    headers = {"Authorization": basic_auth(api.sim.client_id, secret or api.sim.client_secret)}
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    async with api.session.post(api.sim.token_url, data=data, headers=headers) as response:
        return response.status, await response.json()


async def test_a_token_is_issued_accepted_and_expires(api, clock):
    status, body = await _token(api)
    assert status == 200
    assert body.keys() == {"access_token", "expires_in", "token_type"}
    assert body["expires_in"] == 3600
    bearer = {"Authorization": f"Bearer {body['access_token']}"}
    claims = json.loads(base64.urlsafe_b64decode(body["access_token"].split(".")[1] + "=="))
    assert claims["accounts"] == ["9900000"]
    assert (await api.post("messaging", SEND, headers=bearer))[0] == 200
    assert (await api.post("messaging", SEND, headers=bearer, account="1"))[0] == 403
    clock.tick(3599)
    assert (await api.post("messaging", SEND, headers=bearer))[0] == 200
    clock.tick(1)
    assert (await api.post("messaging", SEND, headers=bearer))[0] == 403


async def test_a_wrong_client_secret_gets_401_and_another_grant_type_400(api):
    assert await _token(api, secret="wrong") == (401, {"error": "invalid_client"})
    assert await _token(api, data="grant_type=password") == (400, {"error": "unsupported_grant_type"})
    assert await _token(api, data=b"\xff") == (400, {"error": "unsupported_grant_type"})


async def test_revoked_tokens_and_disabled_kinds_of_credentials_are_rejected(session):
    """accept_bearer=False is the behaviour that Bandwidth's staff saw in June 2026."""
    async with Simulator(bad_token_status=401) as sim:
        api = ApiClient(session, sim)
        bearer = {"Authorization": "Bearer " + (await _token(api))[1]["access_token"]}
        assert (await api.post("messaging", SEND, headers=bearer))[0] == 200
        sim.revoke_tokens()
        assert (await api.post("messaging", SEND, headers=bearer))[0] == 401
    async with Simulator(accept_bearer=False, bad_token_status=401) as sim:
        api = ApiClient(session, sim)
        bearer = {"Authorization": "Bearer " + (await _token(api))[1]["access_token"]}
        assert (await api.post("messaging", SEND, headers=bearer))[0] == 403
        assert (await api.send())[0] == 200
    async with Simulator(accept_basic=False) as sim:
        api = ApiClient(session, sim)
        assert (await api.send())[0] == 403


@pytest.mark.parametrize(
    "options",
    [
        {"account_id": ""},
        {"account_id": "a/b"},
        {"username": "a:b"},
        {"password": ""},
        {"token_lifetime": 0},
        {"bad_token_status": 500},
        {"lockout_after": 0},
        {"lockout_seconds": 0},
        {"messaging_limits": 5},
        {"port": 70000},
        {"inbox_limit": 0},
        {"certificate": "expired"},
    ],
)
def test_an_invalid_option_raises_an_error_that_names_it(options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        Simulator(**options)


def test_a_seed_makes_codes_repeatable():
    async def codes() -> list[str]:
        async with Simulator(seed=3, clock=ManualClock()) as sim, aiohttp.ClientSession() as session:
            api = ApiClient(session, sim)
            for _ in range(3):
                await api.send()
            return [message.code for message in sim.inbox]

    assert asyncio.run(codes()) == asyncio.run(codes())
