"""No error, log or event of a call contains a phone number, a code, a text or a credential."""

from __future__ import annotations

import asyncio
import io
import logging

import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    CodeTemplate,
    LoggingHook,
    MFAClient,
    OAuth2ClientCredentials,
    RequestError,
    Resend,
    RetryPolicy,
)
from tests.support.fault_server import Act, FaultServer, answer, refused_port, reply
from tests.support.secrets import SENTINELS, assert_clean, everything

ECHO = (
    "number +19998887766 or 19998887766 from (888) 777-6655 code 90817263 user s3ntinel-user password "
    "s3ntinel-password Basic czNudGluZWwtdXNlcjpzM250aW5lbC1wYXNzd29yZA== https://s3ntinel.example/x"
)

FAULTS: dict[str, Act] = {
    "400": answer(400, {"error": ECHO, "requestId": "19998887766"}),
    "401": answer(401, {"message": ECHO}),
    "403": answer(403, {"Message": ECHO}),
    "404": answer(404, {"message": ECHO}),
    "429": answer(429, {"error": ECHO}, headers={"Retry-After": "0"}),
    "500": answer(500, {"error": ECHO, "requestId": "r"}),
    "502": answer(502, ECHO.encode()),
    "302": answer(302, b"", headers={"Location": "https://s3ntinel:s3ntinel@example.com/"}),
    "200 HTML": answer(200, ECHO.encode()),
    "200 echo": answer(200, {"result": ECHO}),
    "not HTTP": Act(ECHO.encode() + b"\r\n\r\n", then="fin"),
    "truncated": Act(reply(200, ECHO.encode(), length=9999), then="fin"),
    "bad header": answer(200, headers={"X-Echo": ECHO + "x" * 9000}),
    "cut": Act(then="fin"),
    "reset": Act(then="rst"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", ["send", "call", "verify"])
async def test_no_failure_of_a_call_contains_a_secret(server: FaultServer, fault: str, operation: str) -> None:
    """Error, chain, notes, pickle, traceback, log and events are clean, even if the service echoes the secret."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s %(mfa_event)s"))
    logger = logging.getLogger("tests.redaction")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.handlers = [handler]
    server.default = FAULTS[fault]
    template = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"])
    async with MFAClient(
        "9900000",
        BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        base_url=server.base_url,
        retry=RetryPolicy(wait_initial=0.0, resend=Resend.AT_LEAST_ONCE),
        hooks=[LoggingHook(logger)],
    ) as client:
        with pytest.raises(RequestError) as caught:
            if operation == "send":
                await client.generate_messaging_code(template.to(SENTINELS["to"]))
            elif operation == "call":
                await client.generate_voice_code(template.to(SENTINELS["to"]))
            else:
                await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
        assert_clean(repr(client), "the client")
    assert_clean(everything(caught.value), fault)
    assert stream.getvalue()
    assert_clean(stream.getvalue(), "the log")


@pytest.mark.parametrize(
    "echo",
    [
        "s3ntinel offers: your {SCOPE} code is {CODE}",
        "S3NTINEL offers: your s3ntinel-scope code is 778899",
        "scope s3ntinel-scope is not allowed",
        "cannot reach hooks.example.com/s3ntinel?key=1",
        "no route to + 1 - 999 - 888 - 7766",
        "no\u202eroute\u2028to\u200b s3ntinel-scope",
    ],
)
async def test_an_echo_of_the_calls_own_values_is_hidden(server: FaultServer, echo: str) -> None:
    """Its text, also as the service sends it, its scope, its callback URL, and its numbers with any separators."""
    server.default = answer(400, {"error": f"no: {echo}"})
    template = CodeTemplate(
        SENTINELS["from_"],
        "app",
        "s3ntinel-scope",
        "s3ntinel offers: your {SCOPE} code is {CODE}",
        6,
        "https://hooks.example.com/s3ntinel?key=1",
    )
    number = "+1" + SENTINELS["to"][2:]
    async with MFAClient("9900000", BasicAuth("user", "pass"), base_url=server.base_url) as client:
        with pytest.raises(RequestError, match="no:") as caught:
            await client.generate_messaging_code(template.to(number))
    shown = str(caught.value)
    assert_clean(everything(caught.value).casefold(), echo)
    assert "hooks.example.com" not in shown
    assert not {"888", "7766"} & set(shown.replace("-", " ").split())
    assert "778899" not in shown
    assert shown.isprintable()


async def test_the_error_of_a_refused_connection_contains_no_secret() -> None:
    """It is not chained to aiohttp's error, which may contain the Authorization header."""
    client = MFAClient(
        "9900000",
        BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        base_url=f"http://127.0.0.1:{refused_port()}/x",
        retry=RetryPolicy(max_attempts=1),
    )
    async with client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "refused")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_no_failure_of_a_token_request_contains_a_secret(server: FaultServer, status: int) -> None:
    """The token endpoint may echo the client secret."""
    server.default = answer(status, {"error": "client s3ntinel-client s3ntinel-secret", "message": "s3ntinel-secret"})
    auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
    client = MFAClient("9900000", auth, base_url=server.base_url, retry=RetryPolicy(wait_initial=0.0))
    async with client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "the token endpoint")


async def test_an_echoed_bearer_token_is_scrubbed(server: FaultServer) -> None:
    """A token is a secret like a password."""
    server.play(
        answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}),
        answer(403, {"Message": "no access for s3ntinel-token"}),
        answer(200, {"access_token": "s3ntinel-other", "expires_in": 60}),
        answer(403, {"Message": "no access for s3ntinel-other"}),
    )
    auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
    async with MFAClient("9900000", auth, base_url=server.base_url) as client:
        with pytest.raises(RequestError) as caught:
            await client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"])
    assert_clean(everything(caught.value), "a refused token")


async def test_asyncio_debug_output_contains_no_secret(server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the name and repr of a task nor the loop's debug log does."""
    asyncio.get_running_loop().set_debug(True)
    with caplog.at_level(logging.DEBUG):
        auth = OAuth2ClientCredentials(SENTINELS["client_id"], SENTINELS["client_secret"], f"{server.origin}/token")
        server.play(answer(200, {"access_token": "s3ntinel-token", "expires_in": 60}), answer(200, {"valid": True}))
        async with MFAClient("9900000", auth, base_url=server.base_url) as client:
            call = asyncio.create_task(client.verify_code(to=SENTINELS["to"], code=SENTINELS["code"]))
            while not call.done():
                assert_clean("".join(repr(task) for task in asyncio.all_tasks()), "a task")
                await asyncio.sleep(0)
            await call
    assert_clean(caplog.text, "the debug log")
