"""A bulk run over a faulty network: its outcomes match the requests that the server received."""

from __future__ import annotations

import asyncio
import collections
import random
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import BulkSender, Delivery, Limits, Resend, RetryPolicy
from tests.support.fault_server import Act, FaultServer, reply, taken, until
from tests.support.toxic_proxy import Toxic, ToxicProxy

if TYPE_CHECKING:
    import pathlib

    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

COUNT = 50
# The fault, the share of connections that have it, and the possible outcomes.
GOOD = {Delivery.ACCEPTED}
TOXICS: dict[str, tuple[Toxic, float, set[Delivery]]] = {
    "latency": (Toxic(latency=2.0), 1.0, GOOD),
    "jitter": (Toxic(latency=0.5, jitter=3.0), 1.0, GOOD),
    "bandwidth": (Toxic(bandwidth=200.0), 1.0, GOOD),
    "too little bandwidth": (Toxic(bandwidth=4.0), 0.3, GOOD | {Delivery.UNKNOWN}),
    "slicing": (Toxic(slices=40, latency=0.01), 1.0, GOOD),
    "slow close": (Toxic(slow_close=20.0), 1.0, GOOD),
    "black hole": (Toxic(black_hole=0), 0.3, GOOD | {Delivery.UNKNOWN}),
    "black hole after a while": (Toxic(black_hole=600), 0.7, GOOD | {Delivery.UNKNOWN}),
    "reset": (Toxic(reset=0), 0.5, GOOD | {Delivery.UNKNOWN}),
    "reset after a while": (Toxic(reset=600), 0.7, GOOD | {Delivery.UNKNOWN}),
    "truncation": (Toxic(truncate=60), 0.5, GOOD | {Delivery.UNKNOWN}),
    "truncation after a while": (Toxic(truncate=600), 0.7, GOOD | {Delivery.UNKNOWN}),
}


CASES = [(name, direction, Resend.NEVER_TWICE) for name in TOXICS for direction in ("requests", "answers")]
# Without unknown outcomes the policies behave alike.
CASES += [(name, direction, Resend.AT_LEAST_ONCE) for name, direction, _ in CASES if TOXICS[name][2] != GOOD]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("name", "direction", "resend"), CASES, ids=[f"{c[0]}-{c[1]}-{c[2].name}" for c in CASES])
async def test_outcomes_match_the_requests_on_a_faulty_network(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, name: str, direction: str, resend: Resend
) -> None:
    """Accepted: one text, or a possible duplicate. Not sent: none. Unknown: at most one under NEVER_TWICE."""
    toxic, share, possible = TOXICS[name]
    ends = {"up": toxic} if direction == "requests" else {"down": toxic}
    numbers = [f"+1919555{index:04}" for index in range(COUNT)]
    # Some responses close their connection, so that new ones are opened; all requests are texts.
    for index in range(COUNT):
        headers = {"Connection": "close"} if index % 7 == 0 else {}
        server.play(Act(reply(headers=headers), accepted=True))
    async with ToxicProxy(server.port, share=share, rng=random.Random(name), **ends) as proxy:
        client = make_client(
            base_url=f"http://127.0.0.1:{proxy.port}/api/v1",
            limits=Limits(max_in_flight=8),
            retry=RetryPolicy(resend=resend, attempt_timeout=30.0, wait_initial=0.1),
        )
        async with BulkSender(client, ordered=True) as bulk:
            outcomes = [outcome async for outcome in bulk.send(numbers, template=template)]
        assert taken(client) == 0
        await client.aclose()
        assert proxy.spoilt > 0
    await asyncio.sleep(100)  # wait for data that is still in transit
    await until(lambda: server.open_connections == 0)
    texts = collections.Counter(str(seen.document["to"]) for seen in server.seen)
    assert [outcome.index for outcome in outcomes] == list(range(COUNT))
    for outcome in outcomes:
        assert outcome.request is not None
        count = texts[outcome.request.to]
        assert outcome.delivery in possible | {Delivery.NOT_SENT}
        if outcome.delivery is Delivery.NOT_SENT:
            assert count == 0
        elif outcome.delivery is Delivery.ACCEPTED:
            assert outcome.response is not None
            duplicate, attempts = outcome.response.meta.possible_duplicate, outcome.response.meta.attempts
            assert 1 <= count <= (attempts if duplicate else 1)
        else:
            assert count <= (1 if resend is Resend.NEVER_TWICE else 3)
    if resend is Resend.NEVER_TWICE:
        assert max(texts.values()) == 1, "sent twice"
    kinds = {outcome.delivery for outcome in outcomes}
    assert Delivery.ACCEPTED in kinds
    if resend is Resend.NEVER_TWICE and possible != GOOD:
        assert Delivery.UNKNOWN in kinds


@pytest.mark.virtual_time
async def test_resumed_runs_send_nothing_twice_on_a_faulty_network(
    server: FaultServer, make_client: MakeClient, template: CodeTemplate, tmp_path: pathlib.Path
) -> None:
    """The connection is reset in both directions; the runs reach a state that does not change."""
    numbers = [f"+1919555{index:04}" for index in range(COUNT)]
    toxic = Toxic(reset=900)
    async with ToxicProxy(server.port, toxic, toxic, share=0.7, rng=random.Random(1)) as proxy:
        client = make_client(base_url=f"http://127.0.0.1:{proxy.port}/api/v1", limits=Limits(max_in_flight=8))
        seen = []
        for _ in range(4):
            async with BulkSender(client, journal=tmp_path / "run.db", ordered=True) as bulk:
                outcomes = [outcome async for outcome in bulk.send(numbers, template=template)]
            seen.append([outcome.previous or outcome.delivery for outcome in outcomes])
        await client.aclose()
    texts = collections.Counter(str(each.document["to"]) for each in server.seen)
    assert max(texts.values()) == 1
    assert set(seen[-1]) == {Delivery.ACCEPTED, Delivery.UNKNOWN}
    assert seen[-1] == seen[-2]
    for number, delivery in zip(numbers, seen[-1], strict=True):
        assert texts[number] == 1 or (delivery is Delivery.UNKNOWN and texts[number] == 0)
