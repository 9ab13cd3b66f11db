"""The five models of account limits: with explicit times, and over HTTP."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth_mfa_async.simulator import AccountLimits, InvalidOptionError, Simulator
from bandwidth_mfa_async.simulator._server_limiter import ServerLimiter
from tests.integration.simulator.conftest import SEND, TO, ApiClient


def _accepted(limiter, *, until, step, start=0.0, weight=1):
    count = 0
    for index in range(math.ceil((until - start) / step)):
        count += limiter.admit(start + index * step, weight, "+1", "+2").accepted
    return count


def test_the_defaults_are_bandwidths():
    """Documented: 60 messages per minute, and a queue of 900 messages (15 minutes)."""
    limits = AccountLimits()
    assert (limits.per_second, limits.capacity, limits.model, limits.retry_after) == (1.0, 900.0, "queue", False)
    voice = AccountLimits.voice()
    assert (voice.per_second, voice.capacity) == (5.0, 1500.0)  # "e.g. 1500 at 5 CPS"


def test_a_queue_accepts_its_capacity_at_once_and_then_the_rate():
    limiter = ServerLimiter(AccountLimits(rate=60, per=60, queue_seconds=900))
    assert [limiter.admit(0.0).wait for _ in range(900)] == [float(n) for n in range(900)]
    rejected = limiter.admit(0.0)
    assert not rejected.accepted
    assert rejected.wait == pytest.approx(1.0)
    assert not limiter.admit(0.5).accepted
    assert limiter.admit(1.0).accepted
    assert not limiter.admit(1.0).accepted


def test_a_token_bucket_accepts_its_burst_and_then_the_rate():
    limiter = ServerLimiter(AccountLimits(rate=100, model="token_bucket", burst=10))
    assert _accepted(limiter, until=1e-3, step=1e-5) == 10
    assert _accepted(limiter, start=1.0, until=11.0, step=0.001) == pytest.approx(10 + 1000, abs=2)


def test_a_message_heavier_than_the_bucket_makes_it_negative():
    limiter = ServerLimiter(AccountLimits(rate=1, model="token_bucket", burst=1))
    assert limiter.admit(0.0, 3).accepted
    assert limiter.admit(0.0).wait == pytest.approx(3.0)
    assert not limiter.admit(2.9).accepted
    assert limiter.admit(3.0).accepted


def test_a_fixed_window_resets_at_clock_boundaries():
    limiter = ServerLimiter(AccountLimits(rate=60, per=60, model="fixed_window"))
    assert _accepted(limiter, start=59.0, until=60.0, step=0.01) == 60
    assert limiter.admit(59.99).wait == pytest.approx(0.01)
    assert _accepted(limiter, start=60.0, until=119.0, step=0.1) == 60


def test_a_sliding_log_has_no_window_boundaries():
    limiter = ServerLimiter(AccountLimits(rate=60, per=60, model="sliding_log"))
    assert _accepted(limiter, start=59.0, until=60.0, step=0.01) == 60
    assert not limiter.admit(118.9).accepted
    rejected = limiter.admit(60.0, 2)
    assert rejected.wait == pytest.approx(59.01)
    assert limiter.admit(119.02, 2).accepted


@pytest.mark.parametrize("number", ["from", "to"])
def test_per_number_counts_each_number_separately(number):
    limiter = ServerLimiter(AccountLimits(rate=1, model="per_number", number=number))
    one, other = {number + "_" * (number == "from"): "+11"}, {number + "_" * (number == "from"): "+12"}
    assert limiter.admit(0.0, **one).accepted
    assert not limiter.admit(0.5, **one).accepted
    assert limiter.admit(0.5, **other).accepted
    assert limiter.admit(1.0, **one).accepted


def test_full_buckets_are_removed():
    limiter = ServerLimiter(AccountLimits(rate=1, model="per_number", number="to"))
    for second in range(1000):
        limiter.admit(float(second), to=f"+1{second}")
    assert len(limiter._buckets) <= 3


def test_a_change_of_the_rate_keeps_the_counts():
    """A change of the rate does not grant a new burst."""
    limiter = ServerLimiter(AccountLimits(rate=10, model="token_bucket"))
    assert _accepted(limiter, until=1e-3, step=1e-5) == 10
    limiter.change(AccountLimits(rate=20, model="token_bucket"), 0.001)
    assert not limiter.admit(0.001).accepted
    queue = ServerLimiter(AccountLimits(rate=1, queue_seconds=10))
    for _ in range(10):
        queue.admit(0.0)
    queue.change(AccountLimits(rate=2, queue_seconds=10), 5.0)
    assert queue.admit(5.0).wait == pytest.approx(2.5)
    queue.change(None, 5.0)
    assert queue.admit(5.0).wait == 0.0
    queue.change(AccountLimits(rate=1, model="fixed_window"), 5.0)
    assert queue.admit(5.0).accepted


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["token_bucket", "fixed_window", "sliding_log", "queue", "per_number"]),
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3)), max_size=60),
)
def test_a_rejected_send_is_accepted_after_its_wait(model, sends):
    """The `wait` of a rejection, which becomes Retry-After, is long enough and bounded."""
    limits = AccountLimits(rate=3, per=2, model=model, queue_seconds=4)
    limiter = ServerLimiter(limits)
    now = 0.0
    for pause, weight in sends:
        now += pause
        admission = limiter.admit(now, weight)
        if not admission.accepted:
            assert 0 < admission.wait <= 6
            now += admission.wait + 1e-6
            assert limiter.admit(now, weight).accepted


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": -1},
        {"rate": math.nan},
        {"rate": True},
        {"per": 0},
        {"per": math.inf},
        {"burst": 0},
        {"queue_seconds": "900"},
        {"model": "leaky"},
        {"number": "both"},
        {"retry_after": 1},
    ],
)
def test_an_invalid_limit_raises_an_error_that_names_it(options):
    with pytest.raises(InvalidOptionError, match=next(iter(options))):
        AccountLimits(**options)


async def test_a_full_queue_gets_429_with_the_documented_text(session, clock):
    """MFA's body is not known; it has MFA's error format and the Messaging API's text."""
    async with Simulator(clock=clock, messaging_limits=AccountLimits(queue_seconds=3)) as sim:
        api = ApiClient(session, sim)
        assert [(await api.send())[0] for _ in range(4)] == [200, 200, 200, 429]
        assert [message.queued for message in sim.inbox] == [0, 1, 2]
        _, body = await api.send()
        assert body.keys() == {"error", "requestId"}
        assert "Your allowed rate is 60 messages per minute. The capacity of this queue is 3 messages" in body["error"]
        assert (await api.post("voice", SEND))[0] == 200
        assert (await api.verify("123456"))[0] == 200
        clock.tick(1)
        assert (await api.send())[0] == 200
        assert len(sim.inbox) == 5


async def test_limits_count_segments_and_a_rejected_send_leaves_no_code(session, clock):
    async with Simulator(clock=clock, messaging_limits=AccountLimits(rate=2, model="fixed_window")) as sim:
        api = ApiClient(session, sim)
        assert (await api.send(message="{CODE}" + "x" * 200))[0] == 200
        assert sim.inbox[0].segments == 2
        assert (await api.send())[0] == 429
        assert len(sim.inbox) == len(sim._service.codes) == 1


async def test_limits_change_while_running_and_clear_restores_them(sim, api):
    sim.set_limits(messaging=AccountLimits(rate=1, model="token_bucket", retry_after=True))
    assert (await api.send())[0] == 200
    url = f"{sim.base_url}/accounts/{sim.account_id}/code/messaging"
    async with api.session.post(url, json=SEND, headers=api.basic) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "1")
    assert sim.limits["voice"] is None
    sim.set_limits(voice=AccountLimits.voice(model="token_bucket", burst=1))
    assert (await api.post("voice", SEND))[0] == 200
    status, body = await api.post("voice", SEND)
    assert (status, body["error"]) == (429, "Account call creation rate limit exceeded")
    sim.clear()
    assert sim.limits == {"messaging": None, "voice": None}
    assert [(await api.send(to=TO))[0] for _ in range(3)] == [200] * 3
