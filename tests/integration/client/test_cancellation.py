"""A call cancelled at any suspension leaves nothing behind, and its outcome matches the server's records."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    CodeTemplate,
    Delivery,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    RequestError,
    RetryPolicy,
)
from bandwidth_mfa_async.telemetry import CallEvent, Event
from tests.conftest import TO
from tests.support.fault_server import FaultServer, answer, until

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

pytestmark = pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)


class LastCall:
    def __init__(self) -> None:
        self.event: CallEvent | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, CallEvent):
            self.event = event


def texts(server: FaultServer) -> int:
    """Return how many code requests arrived completely; here each of them is a text, whatever the response."""
    return sum("/code/messaging " in seen.head for seen in server.seen)


async def steps_of(make: Any) -> int:
    """Count the loop iterations until a call is done."""
    task = asyncio.create_task(make())
    count = 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    await task
    return count


async def cancel_at(step: int, make: Any) -> bool:
    """Cancel a call after a number of loop iterations; return whether that ended it."""
    task = asyncio.create_task(make())
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


def no_token_is_fetched() -> bool:
    return all(task.get_name() != "bandwidth_mfa_async token" for task in asyncio.all_tasks())


@pytest.mark.uvloop
@pytest.mark.parametrize("situation", ["cold", "warm", "retried", "with a token", "behind others"])
async def test_a_call_cancelled_at_every_step_releases_everything(  # noqa: PLR0912 - the situations differ
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, situation: str
) -> None:
    """Slots and permits are back, no connection is half read, and a call reported as not sent was not sent."""
    last = LastCall()
    # No waits between attempts and no limiter that waits after the 429: every step is one of the client.
    options: dict[str, Any] = {
        "hooks": [last],
        "retry": RetryPolicy(wait_initial=0.0, wait_max=0.0),
        "limits": Limits(adaptive=False),
    }
    if situation == "with a token":
        options["auth"] = OAuth2ClientCredentials("c", "s", f"{server.origin}/token")
    if situation == "behind others":
        options["limits"] = Limits(max_in_flight=1)

    def prepare() -> None:
        server.script.clear()
        if situation == "with a token":
            server.play(answer(200, {"access_token": "t", "expires_in": 3600}))
        if situation == "retried":
            server.play(answer(500, {"error": "x"}), answer(429, {}))

    async def one(client: MFAClient) -> None:
        others: list[asyncio.Task[Any]] = []
        if situation == "behind others":
            others = [asyncio.create_task(client.generate_messaging_code(template.to(TO))) for _ in range(2)]
        try:
            await client.generate_messaging_code(template.to(TO))
        finally:
            await asyncio.gather(*others)

    prepare()
    async with make_client(**options) as client:
        if situation == "warm":
            await client.generate_messaging_code(template.to(TO))
        steps = await steps_of(lambda: one(client))
    assert steps > 3
    cancelled = 0
    # On a busy machine the loop may iterate 50,000 times while the kernel holds a response; those are all the same.
    for step in range(min(steps, 300) + 3):
        async with make_client(**options) as client:
            prepare()
            if situation == "warm":
                await client.generate_messaging_code(template.to(TO))
            sent_before = texts(server)
            if not await cancel_at(step, lambda: one(client)):
                continue
            cancelled += 1
            executor = client._executor
            assert executor.slots.taken == 0
            assert executor.slots.waiting == 0
            assert executor.limiters["messaging"].waiting == 0
            assert executor.state._active == 0
            if situation != "behind others" and step and last.event is not None:
                if last.event.delivery is Delivery.NOT_SENT:
                    for _ in range(20):  # requests in flight would arrive now
                        await asyncio.sleep(0)
                    assert texts(server) == sent_before, f"cancelled at step {step} and called not sent"
                assert texts(server) - sent_before <= 3
            last.event = None
            if situation == "with a token":  # it is still fetched, and takes the response that waits for it
                await until(
                    lambda: "bandwidth_mfa_async token" not in {task.get_name() for task in asyncio.all_tasks()}
                )
            server.script.clear()
            if situation == "with a token":
                server.play(answer(200, {"access_token": "t", "expires_in": 3600}))
                if client._executor.state.authorizer.select("verify_code").current():
                    server.script.clear()
            try:
                response = await client.generate_messaging_code(template.to(TO))
            except RequestError as error:
                pytest.fail(f"the call after one cancelled at step {step} failed: {error!r}")
            assert response.message_id == "1589228074636lm4k2je7j7jklbn2", "the response of another call"
    assert cancelled >= 2


async def test_cancelling_half_of_a_queue_lets_the_rest_through(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate
) -> None:
    client = make_client(limits=Limits(max_in_flight=2))
    tasks = [asyncio.create_task(client.generate_messaging_code(template.to(TO))) for _ in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 30
    assert sum(hasattr(result, "message_id") for result in results) == 30
    assert client._executor.slots.taken == 0
