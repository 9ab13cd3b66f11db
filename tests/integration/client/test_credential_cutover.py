"""The day on which the service stops to accept one kind of credentials, with traffic in progress."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import BasicAuth, BulkSender, CredentialChain, Limits, MFAClient, OAuth2ClientCredentials, Rate
from bandwidth_mfa_async._clock import SystemClock
from bandwidth_mfa_async.simulator import Fault, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bandwidth_mfa_async import CodeTemplate

PROBE_AFTER = 5.0
PER_SECOND = 50
ITEMS = 2000
RATE = 150
LATENCY = 0.1
IN_FLIGHT = 20


class LoopTime(SystemClock):
    """Wall time that passes like the virtual loop's."""

    def time(self) -> float:
        return self.monotonic()


@pytest.mark.virtual_time
@pytest.mark.parametrize("before", ["basic", "bearer"])
async def test_traffic_survives_the_switch(
    template: CodeTemplate, caplog: pytest.LogCaptureFixture, before: str
) -> None:
    """50 sign-ins a second and a bulk run: none fails, none is sent twice, and few requests are rejected."""
    async with Simulator(accept_basic=before == "basic", accept_bearer=before == "bearer", clock=LoopTime()) as sim:
        auth = CredentialChain(
            OAuth2ClientCredentials(sim.client_id, sim.client_secret, sim.token_url),
            BasicAuth(sim.username, sim.password),
            probe_after=PROBE_AFTER,
        )
        sim.faults.chance(Fault(delay=LATENCY), 1.0)
        limits = Limits(rate=Rate(RATE))
        async with MFAClient(sim.account_id, auth, base_url=sim.base_url, limits=limits) as mfa:
            sign_ins: list[asyncio.Task[object]] = []

            async def sign_in(number: str) -> object:
                return await mfa.generate_messaging_code(template.to(number))

            async def run_bulk(numbers: Iterable[str]) -> list[str]:
                async with BulkSender(mfa, max_in_flight=IN_FLIGHT) as bulk:
                    return [str(outcome.delivery) async for outcome in bulk.send(numbers, template=template)]

            bulk_run = asyncio.create_task(run_bulk(f"+1929{index:07}" for index in range(ITEMS)))
            began = asyncio.get_running_loop().time()
            switched = False
            while not bulk_run.done():
                if not switched and len(sim.inbox) > ITEMS / 2:
                    switched = True
                    sim.set_credentials(basic=before != "basic", bearer=before != "bearer")
                sign_ins.append(asyncio.create_task(sign_in(f"+1919{len(sign_ins):07}")))
                await asyncio.sleep(1 / PER_SECOND)
            seconds = asyncio.get_running_loop().time() - began
            await asyncio.gather(*sign_ins)
            assert set(await bulk_run) == {"accepted"}
    texts = Counter(message.to for message in sim.inbox)
    assert (len(texts), set(texts.values())) == (ITEMS + len(sign_ins), {1})
    rejected = sorted(record.time for record in sim.requests if record.status == 403)
    # Those in flight at one of the two switches are rejected, twice if their token had worked and is renewed. The first
    # switch is at the start, if the preferred kind is the wrong one.
    in_flight = IN_FLIGHT + PER_SECOND * LATENCY + 1
    switches = [at for at in rejected if sum(abs(at - other) < 4 * LATENCY for other in rejected) > 1]
    assert len(switches) <= 2 * 2 * in_flight
    probes = [at for at in rejected if at not in switches]
    assert all(later - at > PROBE_AFTER / 2 for at, later in itertools.pairwise(probes))
    assert len(probes) <= seconds / PROBE_AFTER
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) <= 2
