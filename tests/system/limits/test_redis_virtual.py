"""The script's policy in virtual time: the real script in a real Redis, with the time as an argument."""

from __future__ import annotations

import asyncio
import itertools
import random
from statistics import mean

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.limits._hold_and_probe import HoldAndProbe
from bandwidth_mfa_async.limits.shared._grant import PermitGrant, Report
from tests.support.limits_simulation import AccountQueue, FixedWindow, SlidingLog, TokenBucket, closed_loop, run_virtual
from tests.support.virtual_redis import EPOCH, VirtualStore, virtual_limiter


async def acquire_and_write(limiter, weight, lane):
    permit = await limiter.acquire(weight, lane)
    if permit.turn is not None:
        permit.turn.written()
    return permit


class Processes:
    """The limiters of several processes, used in turn by the same callers."""

    def __init__(self, script, count, rate=None):
        self.limiters = [virtual_limiter(script, rate) for _ in range(count)]
        self.accepts = [0] * count
        self.turns = itertools.cycle(range(count))

    async def acquire(self, weight, lane):
        turn = next(self.turns)
        return turn, await acquire_and_write(self.limiters[turn], weight, lane)

    def accepted(self, taken):
        turn, permit = taken
        self.accepts[turn] += 1
        self.limiters[turn].accepted(permit)

    def rejected(self, taken, retry_after):
        turn, permit = taken
        self.limiters[turn].rejected(permit, retry_after)


def run(script, server, steps, *, until, count=8, rate=None, **options):
    processes = []

    async def main():
        processes.append(Processes(script, count, rate))
        return await closed_loop(server, steps, until=until, limiter=processes[0], **options)

    tally = run_virtual(main())
    return tally, processes[0]


STEPS = ((40, 30), (80, 200))
PHASES = ((14, 40), (54, 80), (100, 120))
RATES = (100, 30, 200)


@pytest.mark.parametrize(
    ("make_server", "least", "most"),
    [
        (lambda: TokenBucket(100), 0.98, 0.01),
        (lambda: TokenBucket(100, 0.1), 0.94, 0.01),
        (lambda: FixedWindow(100), 0.93, 0.013),
        (lambda: SlidingLog(100), 0.91, 0.01),
        (lambda: AccountQueue(100), 0.98, 0.01),
    ],
    ids=["token bucket", "small bucket", "fixed window", "sliding log", "account queue"],
)
def test_eight_processes_find_the_limit_together(script, make_server, least, most):
    """100, then 30, then 200 per second, unknown: goodput, few rejections, less than one Redis call per send."""
    tally, processes = run(script, make_server(), STEPS, until=120, workers=80, seed=3)
    phases = list(zip(PHASES, RATES, strict=True))
    assert mean(tally.goodput(*phase) / rate for phase, rate in phases) >= least
    assert mean(tally.rejected_share(*phase) for phase in PHASES) <= most
    assert tally.time_to(0.9 * 200, 80) <= 11.0
    assert sum(40 <= at < 45 for at in tally.rejected) <= 30
    assert tally.p99(PHASES) <= 0.3
    assert script.calls <= len(tally.accepted)
    assert min(processes.accepts) >= 0.9 * max(processes.accepts)


def test_processes_keep_a_known_limit_together(script):
    """Four processes at 60 per minute: no rejection, and nearly all of the limit used."""
    tally, _ = run(
        script, AccountQueue(1, 100), (), until=300, count=4, rate=Rate.parse("60/m"), workers=8, per_second=0.05
    )
    assert tally.rejected == []
    assert tally.goodput(30, 300) >= 0.97


def report(**values):
    return Report(**({"adaptive": True, "expires": 3600.0} | values)).arguments()


@pytest.mark.parametrize("seed", range(8))
def test_the_script_matches_the_local_policy(script, seed):
    """Over random acceptances and rejections the script and `HoldAndProbe` return the same rate and epoch."""
    rng = random.Random(seed)
    local = HoldAndProbe()
    now, epoch = 1_000.0, 0
    script(now, report())
    for _ in range(300):
        now += rng.choice([0.01, 0.05, 0.3])
        kind = rng.random()
        if kind < 0.85:
            weight = rng.randint(1, 3)
            local.on_accept(now, weight, epoch)
            grant = PermitGrant.parse(script(now, report(epoch=epoch, accepted=weight)))
        else:
            sent_in = max(0, epoch - rng.choice([0, 0, 0, 1]))
            asked = rng.choice([0.0, 0.0, 0.4])
            local.on_429(now, sent_in, asked)
            grant = PermitGrant.parse(
                script(now, report(epoch=epoch, rejected=1, rejected_epoch=sent_in, retry_after=asked))
            )
        epoch = local.epoch
        assert grant.epoch == epoch
        assert grant.rate == pytest.approx(local.rate(), rel=1e-3) if local.rate() else grant.rate is None


def test_random_rejections_are_recognised(script):
    """One random rejection in ten: the limit is dropped, as in the local limiter."""

    class RandomRejections:
        rate = 0

        def __init__(self):
            self.rng = random.Random(5)

        def take(self, _now, _weight):
            return self.rng.random() > 0.1

    tally, _ = run(script, RandomRejections(), (), until=60, count=4, workers=20)
    assert tally.goodput(40, 60) >= 50


def test_reports_are_sent_in_time(script):
    """Acceptances are reported within 0.1 s, a 429 at once; permits are granted for 50 ms at a time."""
    seen = []

    class Watched(VirtualStore):
        async def exchange(self, arguments):
            at = asyncio.get_running_loop().time()
            answer = await super().exchange(arguments)
            seen.append((at, PermitGrant.parse(answer), float(arguments[9]), float(arguments[11])))
            return answer

    async def main():
        processes = Processes(script, 1, rate=Rate(200))
        (limiter,) = processes.limiters
        limiter._store = Watched(script)
        loop = asyncio.get_running_loop()
        taken = await asyncio.gather(*(acquire_and_write(limiter, 1, "bulk") for _ in range(200)))
        granted = [grant.granted for _, grant, _, _ in seen]
        assert sum(granted) == 200
        assert len(seen) <= 30
        assert max(granted[1:]) <= 200 * 0.05 + 1
        await asyncio.sleep(1.0)
        accepted_at = loop.time()
        limiter.accepted(taken[0])
        await asyncio.sleep(0.5)
        rejected_at = loop.time()
        limiter.rejected(taken[1], None)
        await asyncio.sleep(0.5)
        (accepted,) = [at for at, _, count, _ in seen if count]
        (rejected,) = [at for at, _, _, count in seen if count]
        assert 0.0 < accepted - accepted_at <= 0.1 + 1e-9
        assert rejected - rejected_at <= 1e-9
        await limiter.aclose()

    run_virtual(main())


def test_slots_of_dead_processes_are_reused(script):
    """A process that requested permits and died costs the others only its turn."""
    for n in range(20):
        script(1_000.0 + n / 1000, report(ceiling=100.0, want_bulk=50, head_bulk=1))
    granted, now, ticket = 0, 1_000.02, 0.0
    while now < 1_004.0:
        now += 0.01
        grant = PermitGrant.parse(script(now, report(ceiling=100.0, want_bulk=50, head_bulk=1, ticket_bulk=ticket)))
        granted, ticket = granted + grant.granted, grant.bulk_ticket
    assert 280 <= granted <= 420


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.3, 2.0]),  # elapsed time
            st.integers(0, 4),  # process
            st.sampled_from(["interactive", "bulk"]),
            st.integers(1, 30),  # requested permits
            st.sampled_from(["own", "own", "stale", "none"]),  # ticket
            st.integers(0, 3),  # unused permits
        ),
        max_size=60,
    ),
    st.sampled_from([0.5, 7.0, 50.0, 900.0]),
)
def test_grants_never_exceed_the_rate_and_the_bucket(script, asked, rate):
    """For any requests, with or without slots, grants stay below rate * time + bucket."""
    script.client.flushall()
    now = start = 1_000.0
    tickets, held, granted = {}, 0, 0
    for passed, who, lane, want, slot, unused in asked:
        now += passed
        unused = min(unused, held)  # noqa: PLW2901 - a process returns only permits it holds
        ticket = {"own": tickets.get((who, lane), 0.0), "stale": EPOCH + now - 1.0, "none": 0.0}[slot]
        wanted = {f"want_{lane}": want, f"head_{lane}": 1, f"ticket_{lane}": ticket}
        grant = PermitGrant.parse(script(now, report(ceiling=rate, unused=unused, **wanted)))
        assert grant.granted <= want
        tickets[who, lane] = getattr(grant, f"{lane}_ticket")
        held, granted = held - unused + grant.granted, granted - unused + grant.granted
        assert granted <= rate * (now - start) + 1 + 0.15 * rate + 1e-3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["interactive", "bulk"]), st.booleans()), min_size=1, max_size=40
    ),
    st.sampled_from([2.0, 40.0]),
    st.integers(1, 3),
)
def test_every_remaining_caller_is_granted(script, callers, rate, processes):
    """Any weights, lanes and cancellations in up to three processes: every remaining caller is granted."""
    script.client.flushall()

    async def main():
        limiters = Processes(script, processes, Rate(rate)).limiters
        tasks = []
        for n, (weight, lane, leaves) in enumerate(callers):
            task = asyncio.create_task(acquire_and_write(limiters[n % processes], weight, lane))
            tasks.append((task, weight, leaves))
        await asyncio.sleep(0.3)
        left = 0
        for task, weight, leaves in tasks:
            if leaves and not task.done():
                task.cancel()
                left += weight
        stay = [task for task, _, _ in tasks if not task.cancelling()]
        served = sum(weight for _, weight, _ in tasks) - left
        await asyncio.wait_for(asyncio.gather(*stay), (served + 8) / rate + 3.0)
        for limiter in limiters:
            assert limiter.waiting == 0
            await limiter.aclose()

    run_virtual(main())


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
def test_a_text_heavier_than_the_rate_is_not_starved_by_light_ones(script, lane):
    """The heavy text needs an empty second; others of its lane, in other processes, do not take the room meanwhile."""
    waits = []

    async def main():
        limiters = Processes(script, 3, Rate(2.0)).limiters

        async def light(limiter):
            while True:
                await acquire_and_write(limiter, 1, lane)

        others = [asyncio.create_task(light(limiter)) for limiter in limiters[1:] for _ in range(3)]
        await asyncio.sleep(2.0)
        loop = asyncio.get_running_loop()
        for _ in range(3):
            began = loop.time()
            await asyncio.wait_for(acquire_and_write(limiters[0], 4, lane), 30.0)
            waits.append(loop.time() - began)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for limiter in limiters:
            await limiter.aclose()

    run_virtual(main())
    assert max(waits) <= 6.0


def test_a_text_heavier_than_the_rate_costs_few_calls(script):
    """Waiting for an empty second is no loop of calls."""

    async def main():
        limiter = Processes(script, 1, Rate(2.0)).limiters[0]
        for _ in range(3):
            await asyncio.wait_for(acquire_and_write(limiter, 3, "bulk"), 10.0)
        await limiter.aclose()

    run_virtual(main())
    assert script.calls <= 3 * 6


def test_bug_1_low_rates_are_probed(script):
    """A limit of 1 per second that rises to 4 is found: waiting exactly for one token is not idleness."""
    tally, _ = run(script, AccountQueue(1, 3), ((120, 4),), until=300, count=3, workers=12, per_second=0.01)
    assert tally.goodput(240, 300) >= 0.85 * 4


def test_bug_2_the_hold_is_bounded_at_tiny_rates(script):
    """At 0.05 per second a hundred messages take half an hour; the hold ends after a hundred seconds."""
    now, epoch = 1_000.0, 0
    for _ in range(3):
        epoch = PermitGrant.parse(script(now, report(epoch=epoch, accepted=1, rejected=1, rejected_epoch=epoch))).epoch
        now += 200.0
    assert float(script.client.hget(script.key, "believed")) < 1
    rates, ticket = [], 0.0
    for _ in range(60):
        now += 5.0
        grant = PermitGrant.parse(script(now, report(epoch=epoch, want_bulk=9, head_bulk=1, ticket_bulk=ticket)))
        rates.append(grant.rate)
        ticket = grant.bulk_ticket
    assert max(rates) > 1.2 * rates[0]


def test_bug_3_a_used_up_window_does_not_cut_the_rate_to_the_minimum(script):
    """While everything is rejected the pauses grow and the rate stays."""
    script(1_000.0, report(accepted=100))
    first = PermitGrant.parse(script(1_000.9, report(rejected=1, rejected_epoch=0)))
    now, grant = 1_000.9, first
    for _ in range(6):
        now += grant.pause + 0.05
        grant = PermitGrant.parse(script(now, report(epoch=grant.epoch, rejected=1, rejected_epoch=grant.epoch)))
    assert grant.rate == pytest.approx(first.rate)
    assert grant.pause > first.pause


def test_bug_4_zero_length_waits_do_not_spin(script):
    """Waiting for a slot costs a bounded number of calls, whatever the rounding."""

    async def main():
        limiter = Processes(script, 1, Rate(1 / 3)).limiters[0]
        await asyncio.gather(*(acquire_and_write(limiter, 1, "bulk") for _ in range(20)))
        await limiter.aclose()

    run_virtual(main())
    assert script.calls <= 20 * 6  # one per permit, and one per second while the slot is distant


def test_an_empty_redis_climbs_to_the_known_rate_only(script):
    """An empty Redis starts at 0.8 of the known rate, reaches it within 3 s and holds it."""
    now, ticket = 1_000.0, 0.0
    grant = PermitGrant.parse(script(now, report(epoch=4, seed=80.0, want_bulk=99, head_bulk=1)))
    assert grant.rate == pytest.approx(80.0)
    rates = []
    for _ in range(500):
        now += 0.01
        grant = PermitGrant.parse(script(now, report(epoch=5, want_bulk=99, head_bulk=1, ticket_bulk=ticket)))
        ticket = grant.bulk_ticket
        rates.append(grant.rate)
    assert max(rates) <= 100.0
    assert max(rates[:300]) >= 95.0


def test_a_climb_restarts_after_a_silence(script):
    """A climb does not continue after a silence, because the service's bucket has filled."""
    now, ticket = 1_000.0, 0.0
    epoch = PermitGrant.parse(script(now, report(accepted=100, rejected=1, rejected_epoch=0))).epoch
    for n in range(600):
        now += 0.01
        grant = PermitGrant.parse(
            script(now, report(epoch=epoch, accepted=n % 2, want_bulk=99, head_bulk=1, ticket_bulk=ticket))
        )
        ticket = grant.bulk_ticket
    assert grant.rate > 102
    grant = PermitGrant.parse(script(now + 4.0, report(epoch=epoch, want_bulk=99, head_bulk=1)))
    assert grant.rate < 100


def test_time_stamps_keep_their_microseconds(script):
    """Time stamps keep microseconds, although Lua prints 14 digits by default."""
    grant = PermitGrant.parse(script(1_000.123456, report(ceiling=1.0, want_bulk=5, head_bulk=1)))
    assert round(grant.bulk_ticket % 1, 6) == pytest.approx(0.123456, abs=1e-6)
