"""The log at level DEBUG says why a call, a bulk run or a worker waits, and costs nothing where nothing waits."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    BulkSender,
    Delivery,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    Rate,
    RequestError,
    RetryPolicy,
)
from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async._logger import WAITS
from bandwidth_mfa_async.limits import ChannelLimiter
from tests.conftest import TO
from tests.support.fault_server import Act, FaultServer, answer, until
from tests.support.secrets import SENTINELS, assert_clean

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

NAME = "generate_messaging_code"


@pytest.fixture
def reasons(caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function that returns the logged reasons so far."""
    caplog.set_level(logging.DEBUG, logger=WAITS.name)
    # `message` was formatted when the record was logged; the objects in it have changed since.
    return lambda: [record.message for record in caplog.records if record.name == WAITS.name]


@pytest.mark.virtual_time
async def test_a_call_that_waits_for_a_permit_says_so(
    make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """With the limit, its rate and its queue; the first call gets its permit at once."""
    client = make_client(limits=Limits(rate=Rate.parse("1/s"), adaptive=False))
    await client.generate_messaging_code(template.to(TO))
    assert reasons() == []
    await client.generate_messaging_code(template.to(TO))
    (reason,) = [reason for reason in reasons() if "permit" in reason]
    assert reason.startswith(f"{NAME} waits for a permit in the interactive lane: ChannelLimiter('messaging', ")
    assert "rate=1/s" in reason or "rate=0.996/s" in reason


async def test_a_call_that_waits_for_a_slot_says_so(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """With the number of slots."""
    client = make_client(limits=Limits(max_in_flight=1, adaptive=False))
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(2)))
    assert len(server.seen) == 2
    (reason,) = reasons()
    assert reason.startswith(f"{NAME} waits for a slot: PrioritySemaphore(1 of 1 taken")


@pytest.mark.virtual_time
async def test_a_backoff_and_a_pause_say_why(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """A 429 with a Retry-After pauses the channel, and the call waits at least as long."""
    server.play(answer(429, {}, headers={"Retry-After": "3"}), answer())
    client = make_client(retry=RetryPolicy(wait_initial=0.01, timeout=60))
    await client.generate_messaging_code(template.to(TO))
    pause, backoff = reasons()[:2]
    assert pause == "the messaging channel is paused for 3.000 s after a 429"
    assert backoff.startswith(f"{NAME} waits 3.")
    assert backoff.endswith(" s before its next attempt; attempt 1: RateLimitError")


async def test_a_call_that_waits_for_a_token_says_so(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """Only the first call of a client waits for one."""
    server.play(answer(200, {"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"}), answer(), answer())
    client = make_client(auth=OAuth2ClientCredentials("id", "secret", token_url=f"{server.origin}/token"))
    await client.generate_messaging_code(template.to(TO))
    await client.generate_messaging_code(template.to(TO))
    assert reasons() == [f"{NAME} waits for a token"]


async def test_a_call_that_waits_for_the_provider_says_so(
    make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """A provider of credentials is asked once."""
    client = make_client(auth=lambda: BasicAuth("name", "password"))
    await client.generate_messaging_code(template.to(TO))
    await client.generate_messaging_code(template.to(TO))
    assert reasons() == [f"{NAME} waits for the credentials of the provider"]


@pytest.mark.virtual_time
async def test_a_write_that_waits_for_the_ceiling_says_so(
    make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """A text of three segments keeps the ceiling of two a second closed for a while."""
    client = make_client(limits=Limits(rate=Rate.parse("2/s"), adaptive=False))
    window = client._executor.limiters["messaging"]._writes  # type: ignore[attr-defined]
    assert window.try_reserve(2)
    window.written(2)
    turn = asyncio.ensure_future(window.reserve(1, "interactive"))
    await turn
    assert reasons() == ["a text of 1 segments waits until the configured rate allows its write"]


async def test_a_run_whose_outcomes_are_not_read_says_so(
    make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """With the numbers of items and outcomes; the input is read again when an outcome was read."""
    async with BulkSender(make_client(limits=Limits(adaptive=False)), max_in_flight=2) as bulk:
        stream = bulk.send([f"+1919555{n:04}" for n in range(6)], template=template)
        await anext(stream)
        await until(lambda: bulk.summary.done == 5)
        assert [outcome.delivery async for outcome in stream] == [Delivery.ACCEPTED] * 5
    said = re.compile(r"the run reads no further input: (\d) items have no outcome yet, (\d) outcomes are not read yet")
    pairs = [tuple(map(int, found.groups())) for reason in reasons() if (found := said.fullmatch(reason))]
    assert pairs[0] == (4, 0)  # twice the concurrency
    assert all(sum(pair) == 4 for pair in pairs)


async def test_a_close_that_waits_says_so(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, reasons: Any
) -> None:
    """Of the client and of a bulk run."""
    client = make_client(limits=Limits(adaptive=False))
    server.default = Act(then="hang")
    async with BulkSender(client, drain_timeout=0.05) as bulk:
        reader = asyncio.ensure_future(anext(bulk.send([TO], template=template)))
        while not server.seen:
            await asyncio.sleep(0)
    assert reasons() == ["the run waits up to 0.05 s for 1 requests"]
    await asyncio.wait([reader])
    call = asyncio.ensure_future(client.generate_messaging_code(template.to(TO)))
    while len(server.seen) < 2:
        await asyncio.sleep(0)
    await client.aclose(drain_timeout=0.05)
    await asyncio.wait([call])
    assert isinstance(call.exception(), RequestError)
    assert reasons()[1:] == ["the client closes; it waits up to 0.05 s for 1 calls"]


async def test_the_limiter_says_how_long_it_is_paused(reasons: Any) -> None:
    """Without hooks too, and not again for a pause that is hardly longer."""
    clock = ManualClock()
    limiter = ChannelLimiter("messaging", rate=None, adaptive=False, clock=clock)
    permit = limiter.try_acquire()
    assert permit is not None
    for retry_after in (3.0, 3.1, 9.0):
        limiter.rejected(permit, retry_after)
    assert reasons() == [
        f"the messaging channel is paused for {seconds} s after a 429" for seconds in ("3.000", "9.000")
    ]


async def test_a_call_that_waits_for_nothing_does_not_ask_the_logger(
    make_client: MakeClient, template: CodeTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a call has no logging in it, whether DEBUG is on or off."""

    def fail(*_arguments: object) -> None:
        pytest.fail("the logger was asked")

    client = make_client()
    await client.generate_messaging_code(template.to(TO))
    for name in ("debug", "isEnabledFor"):
        monkeypatch.setattr(WAITS, name, fail)
    await client.generate_messaging_code(template.to(TO))
    assert type(client) is MFAClient


@pytest.mark.virtual_time
async def test_no_reason_contains_a_secret(
    server: FaultServer, make_client: MakeClient, reasons: Any, template: CodeTemplate
) -> None:
    """Neither a number, a text, a token nor a credential, even if the service echoes it."""
    secret = attrs.evolve(template, from_=SENTINELS["from_"], message=SENTINELS["message"])
    echo = " ".join(SENTINELS.values())
    token = {"access_token": SENTINELS["password"], "expires_in": 3600, "token_type": "Bearer"}
    server.play(
        answer(200, token),
        answer(429, {"error": echo, "requestId": "r"}, headers={"Retry-After": "2"}),
        answer(401, {"error": echo, "requestId": "r"}),
        answer(200, token),
        answer(503, {"error": echo, "requestId": "r"}),
    )
    client = make_client(
        auth=OAuth2ClientCredentials(SENTINELS["username"], SENTINELS["password"], token_url=f"{server.origin}/token"),
        limits=Limits(rate=Rate.parse("1/s"), max_in_flight=1),
        retry=RetryPolicy(wait_initial=0.1, timeout=600),
    )
    numbers = [SENTINELS["to"], "+19195550002", "+19195550003"]
    async with BulkSender(client) as bulk:
        assert len([outcome async for outcome in bulk.send(numbers, template=secret)]) == 3
    assert len(reasons()) >= 4
    assert_clean("\n".join(reasons()), "the reasons")
