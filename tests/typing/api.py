"""The public API in use, for type checkers; never run."""
# pyright: strict

from __future__ import annotations

import asyncio
from typing import assert_type

from taskiq import AsyncBroker

from bandwidth_mfa_async import (
    APIStatusError,
    BasicAuth,
    CodeRequest,
    CodeTemplate,
    Delivery,
    InvalidRequestError,
    Limits,
    LoggingHook,
    MessagingCodeResponse,
    MFAClient,
    OAuth2ClientCredentials,
    Rate,
    RateLimitError,
    RequestError,
    Resend,
    ResponseMeta,
    RetryPolicy,
    VerifyCodeRequest,
    VerifyCodeResponse,
    VoiceCodeResponse,
)
from bandwidth_mfa_async.simulator import Fault, Message, Simulator
from bandwidth_mfa_async.telemetry import AttemptEvent, CallEvent, CallStartedEvent, Event, OpenTelemetryHook
from bandwidth_mfa_async.worker import CodeOutcome, Job, JobProgress, MFAWorker, RedisLedger


class Hook:
    def on_event(self, event: Event) -> None:
        match event:
            case CallStartedEvent():
                assert_type(event.url, str)
            case AttemptEvent():
                assert_type(event.status, int | None)
            case CallEvent():
                assert_type(event.delivery, Delivery)
            case _:
                pass


async def use() -> None:
    template = CodeTemplate("+19195554321", "app", scope="login", digits=8)
    request = template.to("+19195551234")
    assert_type(request, CodeRequest)
    async with MFAClient(
        account_id="9900000",
        auth=BasicAuth("user", "pass"),
        retry=RetryPolicy(max_attempts=5, resend=Resend.NEVER_TWICE),
        limits=Limits(rate=Rate(60, per=60), voice_rate=Rate.parse("5/s"), max_in_flight=10),
        hooks=[Hook(), LoggingHook(), OpenTelemetryHook()],
    ) as mfa:
        assert_type(mfa, MFAClient)
        await mfa.warm_up(2)
        sent = await mfa.generate_messaging_code(request, timeout=5.0, lane="bulk")
        assert_type(sent, MessagingCodeResponse)
        assert_type(sent.message_id, str)
        assert_type(sent.meta, ResponseMeta)
        called = await mfa.generate_voice_code(request)
        assert_type(called, VoiceCodeResponse)
        check = await mfa.verify_code(to="+19195551234", code="123456", scope="login", expiration_time_in_minutes=1.5)
        assert_type(check, VerifyCodeResponse)
        assert_type(check.valid, bool)
        again = await mfa.verify_code(VerifyCodeRequest("+19195551234", "123456"))
        assert_type(again.valid, bool)
        view = mfa.with_options(timeout=3.0, limits=Limits(), hooks=[])
        assert_type(view, MFAClient)
        try:
            await view.generate_messaging_code(request)
        except RateLimitError as error:
            assert_type(error.retry_after, float | None)
            assert_type(error.local, bool)
        except APIStatusError as error:
            assert_type(error.status, int)
            assert_type(error.error_text, str | None)
        except RequestError as error:
            assert_type(error.delivery, Delivery)
            assert_type(error.attempts, int)
        except InvalidRequestError as error:
            assert_type(error.field, str)
    MFAClient.from_env(auth=OAuth2ClientCredentials("id", "secret", token_url="https://example.com/token"))


async def simulate() -> None:
    async with Simulator(seed=1) as sim, MFAClient(**sim.client_kwargs()) as mfa:
        sim.faults.script(Fault(status=503), Fault(drop="after_read"), operation="messaging")
        sim.faults.chance(Fault(status=429, headers={"Retry-After": "1"}), 0.1)
        await mfa.verify_code(to="+19195551234", code="123456")
        assert_type(sim.inbox, list[Message])
        message = await sim.wait_for_message("+19195551234", timeout=1.0)
        assert_type(message.code, str)


async def work(broker: AsyncBroker, ledger: RedisLedger) -> None:
    template = CodeTemplate("+19195554321", "app", scope="login")
    async with MFAWorker(broker, ledger=ledger, client=MFAClient.from_env) as codes:
        assert_type(await codes.send_code.kiq(template.to("+19195551234"), key="login:42"), str)
        assert_type(await codes.send_code.outcome("login:42"), CodeOutcome | None)
        job = await codes.submit(["+19195551234"], name="launch", chunk=500, template=template)
        assert_type(job, Job)
        async for progress in job.watch():
            assert_type(progress, JobProgress)
            assert_type(progress.ending, str | None)
        async for outcome in job.outcomes():
            assert_type(outcome.delivery, Delivery)
            assert_type(outcome.provider_id, str | None)
        await codes.job("launch").cancel()
        assert_type(await job.resume(), JobProgress)


asyncio.run(use())
