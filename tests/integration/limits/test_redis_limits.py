"""One limit for several processes, on a real Redis: what one learns all keep to, and each gets its turn."""

from __future__ import annotations

import asyncio
import sys

import pytest

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RedisLimits
from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.errors import ConfigurationError, RateLimitError
from bandwidth_mfa_async.telemetry import GateClosedEvent, LimitChangedEvent, LimitWaitEvent
from tests.support import processes
from tests.support.virtual_redis import VirtualRedisLimits

pytestmark = pytest.mark.virtual_time


async def until(condition, seconds=2.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def busy(limiter, times, lane="bulk", workers=20):
    """Take permits as fast as they come, for ever."""
    loop = asyncio.get_running_loop()

    async def worker():
        while True:
            permit = await limiter.acquire(1, lane)
            times.append(loop.time())
            await asyncio.sleep(0)
            limiter.accepted(permit)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(worker())


async def run_for(seconds, *coroutines):
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError), outcome


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://localhost", {}),
        ("localhost:6379", {}),
        ("redis://localhost:port", {}),
        ("redis://user:hunter2@localhost:99999999", {}),
        ("redis://:hunter2@localhost/0?no_such_option=1", {}),
        ("redis://:hunter2@localhost/production", {}),
        ("rediss://localhost/0x1", {}),
        ("redis://localhost/0\n", {}),
        ("redis://[::1", {}),
        ("unix://", {}),
        ("", {}),
        (None, {}),
        (b"redis://localhost", {}),
        ("redis://localhost", {"key": ""}),
        ("redis://localhost", {"key": 9900000}),
        ("redis://localhost", {"key": "a}b"}),
        ("redis://localhost", {"key": "a\n"}),
        ("redis://localhost", {"prefix": ""}),
        ("redis://localhost", {"fallback_rate": 5}),
        ("redis://localhost", {"fallback_rate": "5"}),
        ("redis://localhost", {"fallback_rate": "0/s"}),
        ("redis://localhost", {"fallback_rate": "60/x"}),
        ("redis://localhost", {"required": "no"}),
        ("redis://localhost", {"expires": 0}),
        ("redis://localhost", {"expires": float("nan")}),
        ("redis://localhost", {"expires": True}),
    ],
)
def test_bad_settings_are_named_at_construction(url, options):
    """No I/O is needed to see them, and the message shows no password."""
    with pytest.raises(ConfigurationError) as caught:
        RedisLimits(url, **({"key": "9900000"} | options))
    assert str(caught.value).startswith(next(iter(options), "url") + ": ")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h/", "redis://h/1/", "rediss://user:pw@h:1/2", "unix:///tmp/redis.sock?db=1"]
)
def test_good_urls(url):
    """TLS, users, sockets and databases go through the URL, which the repr does not show."""
    assert repr(RedisLimits(url, key="9900000")) == "RedisLimits(key='9900000', prefix='bandwidth-mfa')"


def test_without_redis_py_the_remedy_is_named(monkeypatch):
    """The extra is named where it is missing."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'bandwidth-mfa-async\[redis\]'"):
        RedisLimits("redis://h", key="9900000")


def test_importing_the_name_does_not_import_redis():
    """Who does not use it does not pay for it."""
    code = "import sys; from bandwidth_mfa_async import RedisLimits, MFAClient; assert 'redis' not in sys.modules"
    processes.run([sys.executable, "-c", code], check=True)


def test_keys_are_one_account_s_and_one_channel_s():
    """Two accounts never share a key, and an account's keys live on one node of a cluster."""
    shared = RedisLimits("redis://h", key="9900000")
    assert shared.redis_keys("messaging")[0] == "bandwidth-mfa:{9900000}:messaging"
    assert shared.redis_keys("voice") == ("bandwidth-mfa:{9900000}:voice", "bandwidth-mfa:{9900000}:voice:waiting")
    assert not set(RedisLimits("redis://h", key="9900001").redis_keys("voice")) & set(shared.redis_keys("voice"))


def test_something_else_as_shared_is_refused():
    """A URL in its place is the likeliest mistake."""
    with pytest.raises(ConfigurationError, match="shared"):
        MFAClient("9900000", auth=BasicAuth("u", "p"), limits=Limits(shared="redis://localhost"))


async def test_before_the_first_refusal_nothing_waits(redis_server, make_limiter):
    """Permits cost nothing until a 429, and Redis is asked now and then, not for each."""
    limiter = make_limiter(redis_server.url)
    for _ in range(1_000):
        permit = limiter.try_acquire(1, "bulk") or await limiter.acquire(1, "bulk")
        limiter.accepted(permit)
    assert limiter.rate is None
    await until(lambda: len(limiter.calls) >= 2)
    await asyncio.sleep(0.15)
    assert len(limiter.calls) <= 4
    with redis_server.client() as client:
        state = client.hgetall("bandwidth-mfa:{9900000}:messaging")
        assert float(state[b"accepted"]) == 1_000


async def test_what_one_learns_all_keep_to(redis_server, make_limiter):
    """A 429 of one process paces the other at its next exchange; a second of the same epoch cuts no further."""
    events = []
    one, other = make_limiter(redis_server.url), make_limiter(redis_server.url, emit=events.append)
    mine, theirs = await one.acquire(), await other.acquire()
    another = await one.acquire()
    one.accepted(another)
    one.refused(mine, None)
    await until(lambda: one.epoch == 1)
    assert one.rate is not None
    other.refused(theirs, None)
    await until(lambda: other.epoch == 1)
    assert other.rate == pytest.approx(one.rate, rel=0.05)
    await asyncio.sleep(0.02)
    assert one.epoch == other.epoch == 1
    assert [event.cause for event in events if isinstance(event, LimitChangedEvent)] == ["refused"]
    assert any(isinstance(event, LimitWaitEvent) for event in events)


async def test_a_retry_after_closes_the_gate_of_all(redis_server, make_limiter):
    """No process sends before the moment the service named to one of them."""
    events = []
    one = make_limiter(redis_server.url, emit=events.append)
    other = make_limiter(redis_server.url)
    one.refused(await one.acquire(), 0.4)
    closed = asyncio.get_running_loop().time()
    await until(lambda: one.epoch == 1)
    await other.acquire()
    assert 0.38 <= asyncio.get_running_loop().time() - closed <= 0.9
    assert any(isinstance(event, GateClosedEvent) for event in events)


async def test_the_budget_is_kept_and_shared_fairly(redis_server, make_limiter):
    """Four processes at a known 200 a second: no more than that together, nearly all of it, each its quarter."""
    limiters = [make_limiter(redis_server.url, rate=Rate(200)) for _ in range(4)]
    times = [[] for _ in limiters]
    await run_for(1.5, *(busy(limiter, mine) for limiter, mine in zip(limiters, times, strict=True)))
    every = sorted(at for mine in times for at in mine)
    assert 0.85 * 300 <= len(every) <= 200 * 1.5 + 1 + 30 + 10
    shares = [len(mine) for mine in times]
    assert sum(shares) ** 2 / (4 * sum(share**2 for share in shares)) >= 0.97
    assert sum(len(limiter.calls) for limiter in limiters) <= len(every)


async def test_people_go_before_the_bulk_of_every_process(redis_server, make_limiter):
    """A login in one process does not wait behind a bulk run in another."""
    bulk, people = (make_limiter(redis_server.url, rate=Rate(50)) for _ in range(2))
    loop, waits = asyncio.get_running_loop(), []

    async def sign_in():
        for _ in range(8):
            await asyncio.sleep(0.1)
            began = loop.time()
            people.accepted(await people.acquire(1, "interactive"))
            waits.append(loop.time() - began)
        await asyncio.sleep(10)

    await run_for(1.3, busy(bulk, [], workers=100), sign_in())
    assert len(waits) == 8
    assert max(waits) <= 0.2


async def test_weights_wait_for_their_whole(redis_server, make_limiter):
    """A text of many segments, heavier than a batch, is neither starved nor cheap."""
    limiter = make_limiter(redis_server.url, rate=Rate(40))
    times, loop, began = [], asyncio.get_running_loop(), asyncio.get_running_loop().time()
    task = asyncio.ensure_future(busy(limiter, times, workers=5))
    await asyncio.sleep(0.05)
    heavy = await limiter.acquire(12, "bulk")
    waited = loop.time() - began
    task.cancel()
    await asyncio.wait([task])
    assert heavy.weight == 12
    assert 0.15 <= waited <= 0.9
    assert len(times) + 12 <= 40 * (loop.time() - began) + 1 + 6 + 2


async def test_cancelled_waiters_cost_nobody_anything(redis_server, make_limiter):
    """Half of those who wait leave; the others get the whole rate."""
    limiter = make_limiter(redis_server.url, rate=Rate(100))
    times, loop = [], asyncio.get_running_loop()

    async def one():
        await limiter.acquire(1, "bulk")
        times.append(loop.time())

    tasks = [asyncio.create_task(one()) for _ in range(160)]
    await asyncio.sleep(0.1)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert limiter.waiting == 0
    assert times[-1] - times[0] <= 80 / 100 + 0.1


async def test_unused_permits_go_back(redis_server, make_limiter):
    """A refunded permit is the next one's, here at once and elsewhere within a flush."""
    one, other = (make_limiter(redis_server.url, rate=Rate.parse("6/m")) for _ in range(2))
    permit = await one.acquire()
    one.refund(permit)
    again = one.try_acquire()
    assert again is not None
    one.refund(again)
    await until(lambda: len(one.calls) == 2)
    async with asyncio.timeout(1.0):
        await other.acquire()


async def test_no_wait_that_is_known_to_be_too_long_is_begun(redis_server, make_limiter):
    """A closed gate beyond the deadline fails at once; a wait that turns out too long fails at the deadline."""
    limiter = make_limiter(redis_server.url, rate=Rate.parse("6/m"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    permit = await limiter.acquire()
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(deadline=loop.time() + 0.1)
    assert caught.value.local
    limiter.refused(permit, 30.0)
    with pytest.raises(RateLimitError):
        await limiter.acquire(deadline=loop.time() + 5.0)
    assert loop.time() - began < 0.6


async def test_two_accounts_and_two_channels_do_not_share(redis_server, make_limiter):
    """A refusal of one account's texts slows neither its calls nor anybody else."""
    limiters = [
        make_limiter(redis_server.url),
        make_limiter(redis_server.url, channel="voice"),
        make_limiter(redis_server.url, key="9900001"),
    ]
    permits = [await limiter.acquire() for limiter in limiters]
    limiters[0].refused(permits[0], None)
    await until(lambda: limiters[0].epoch == 1)
    for limiter, permit in list(zip(limiters, permits, strict=True))[1:]:
        limiter.accepted(permit)
        await until(lambda limiter=limiter: len(limiter.calls) >= 2)
        await asyncio.sleep(0.02)
        assert (limiter.epoch, limiter.rate) == (0, None)


async def test_a_forgotten_script_is_loaded_again(redis_server, make_limiter):
    """SCRIPT FLUSH, as after a restart, costs one more round trip and nothing else."""
    limiter = make_limiter(redis_server.url, rate=Rate(100))
    await limiter.acquire()
    with redis_server.client() as client:
        client.script_flush()
    async with asyncio.timeout(1.0):
        for _ in range(3):
            await limiter.acquire()
    assert "without" not in repr(limiter)


async def test_state_expires_and_is_begun_anew_below_what_was_known(redis_server, make_limiter):
    """An unused key goes; whoever still knows the rate begins with 0.8 of it."""
    limiter = make_limiter(redis_server.url, expires=5)
    for _ in range(20):
        limiter.accepted(await limiter.acquire())
    limiter.refused(await limiter.acquire(), None)
    await until(lambda: limiter.epoch == 1)
    rate, key = limiter.rate, "bandwidth-mfa:{9900000}:messaging"
    with redis_server.client() as client:
        assert 0 < client.pttl(key) <= 5_000
        client.delete(key)
    async with asyncio.timeout(2.0):
        limiter.accepted(await limiter.acquire())
    assert limiter.rate == pytest.approx(0.8 * rate, rel=0.1)
    assert limiter.epoch == 2


async def test_not_adaptive_and_no_rate_ramps_up_after_the_gate(redis_server, make_limiter):
    """As locally: after a Retry-After the queue leaves at a pace that doubles, then all is free again."""
    limiter = make_limiter(redis_server.url, adaptive=False)
    permit = await limiter.acquire()
    limiter.refused(permit, 0.2)
    began, times = asyncio.get_running_loop().time(), []

    async def one():
        await limiter.acquire()
        times.append(asyncio.get_running_loop().time() - began)

    await asyncio.gather(*(one() for _ in range(12)))
    assert times[0] >= 0.19
    assert 0.5 <= times[-1] <= 1.4


async def test_counts_are_flushed_and_the_task_ends(redis_server, make_limiter):
    """An accepted message is reported within 0.1 s; then nothing runs any more."""
    limiter = make_limiter(redis_server.url)
    limiter.accepted(await limiter.acquire())
    began = len(limiter.calls)
    await until(lambda: len(limiter.calls) > began, 0.2)
    await until(lambda: limiter._task._running is None, 0.2)
    assert "unlimited" in repr(limiter)


async def test_closing_ends_waits_and_reports_the_rest(redis_server, make_limiter):
    """`abort` gives every waiter its error; `aclose` still says what was accepted."""
    limiter = make_limiter(redis_server.url, rate=Rate.parse("6/m"))
    permit = await limiter.acquire()
    waiting = [asyncio.create_task(limiter.acquire(1, "bulk")) for _ in range(3)]
    await asyncio.sleep(0.05)
    limiter.accepted(permit)
    limiter.abort(lambda: RuntimeError("closed"))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 3
    with pytest.raises(RuntimeError):
        limiter.try_acquire()
    await limiter.aclose()
    with redis_server.client() as client:
        assert float(client.hget("bandwidth-mfa:{9900000}:messaging", "accepted")) == 1


async def test_clients_share_it(redis_server, server, make_client, template):
    """Two clients with the same `RedisLimits` keep to one limit; closing them closes their connections."""
    shared = VirtualRedisLimits(redis_server.url, key="9900000")
    clients = [make_client(limits=Limits(shared=shared, rate="20/s")) for _ in range(2)]
    began = asyncio.get_running_loop().time()
    login: CodeTemplate = template
    await asyncio.gather(
        *(client.generate_messaging_code(login.to("+19195551234")) for client in clients for _ in range(10))
    )
    assert asyncio.get_running_loop().time() - began >= 0.6
    view = clients[0].with_options(timeout=5.0, limits=Limits(shared=shared, rate="20/s"))
    assert view._caller.limiters["voice"] is clients[0]._caller.limiters["voice"]
    for client in clients:
        await client.aclose()
