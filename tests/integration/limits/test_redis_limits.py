"""One limit for several processes on a real Redis: all follow what one learns, and each gets its turn."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient, RedisLimits
from bandwidth_mfa_async._client._shared_limiters import MAX_IDLE
from bandwidth_mfa_async._config import Rate
from bandwidth_mfa_async.errors import ConfigurationError, RateLimitError
from bandwidth_mfa_async.telemetry import LimitChangedEvent, LimitWaitEvent, SendsPausedEvent
from tests.support import processes
from tests.support.virtual_redis import VirtualRedisLimits

pytestmark = pytest.mark.virtual_time


async def until(condition, seconds=2.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def keep_acquiring(limiter, times, lane="bulk", workers=20):
    """Take permits as fast as they are granted, until cancelled."""
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


async def run_with_timeout(seconds, *coroutines):
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
def test_invalid_settings_name_the_field_at_construction(url, options):
    """Invalid settings are reported without I/O, and the message contains no password."""
    with pytest.raises(ConfigurationError) as caught:
        RedisLimits(url, **({"key": "9900000"} | options))
    assert str(caught.value).startswith(next(iter(options), "url") + ": ")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h/", "redis://h/1/", "rediss://user:pw@h:1/2", "unix:///tmp/redis.sock?db=1"]
)
def test_valid_urls_are_accepted_and_hidden(url):
    """TLS, users, sockets and databases come from the URL, which the repr does not show."""
    assert repr(RedisLimits(url, key="9900000")) == "RedisLimits(key='9900000', prefix='bandwidth-mfa')"


def test_without_redis_py_the_error_names_the_extra(monkeypatch):
    """Without redis-py the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'bandwidth-mfa-async\[redis\]'"):
        RedisLimits("redis://h", key="9900000")


def test_importing_the_name_does_not_import_redis():
    """Importing the package does not import redis-py."""
    code = "import sys; from bandwidth_mfa_async import RedisLimits, MFAClient; assert 'redis' not in sys.modules"
    processes.run([sys.executable, "-c", code], check=True)


def test_keys_belong_to_one_account_and_one_channel():
    """Two accounts never share a key, and an account's keys are on one cluster node."""
    shared = RedisLimits("redis://h", key="9900000")
    assert shared.redis_keys("messaging")[0] == "bandwidth-mfa:{9900000}:messaging"
    assert shared.redis_keys("voice") == ("bandwidth-mfa:{9900000}:voice", "bandwidth-mfa:{9900000}:voice:waiting")
    assert not set(RedisLimits("redis://h", key="9900001").redis_keys("voice")) & set(shared.redis_keys("voice"))


def test_an_invalid_shared_value_raises():
    """A URL as `shared` raises an error."""
    with pytest.raises(ConfigurationError, match="shared"):
        MFAClient("9900000", auth=BasicAuth("u", "p"), limits=Limits(shared="redis://localhost"))


async def test_permits_are_free_before_the_first_429(redis_server, make_limiter):
    """Before the first 429 permits are free, and Redis is called rarely, not once per permit."""
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


async def test_a_429_of_one_process_limits_all(redis_server, make_limiter):
    """A 429 of one process limits the other at its next exchange; a second one of the same epoch does not cut again."""
    events = []
    one, other = make_limiter(redis_server.url), make_limiter(redis_server.url, emit=events.append)
    mine, theirs = await one.acquire(), await other.acquire()
    another = await one.acquire()
    one.accepted(another)
    one.rejected(mine, None)
    await until(lambda: one.epoch == 1)
    assert one.rate is not None
    other.rejected(theirs, None)
    await until(lambda: other.epoch == 1)
    assert other.rate == pytest.approx(one.rate, rel=0.05)
    await asyncio.sleep(0.02)
    assert one.epoch == other.epoch == 1
    assert [event.cause for event in events if isinstance(event, LimitChangedEvent)] == ["refused"]
    assert any(isinstance(event, LimitWaitEvent) for event in events)


async def test_a_retry_after_pauses_all_processes(redis_server, make_limiter):
    """No process sends before the end of a Retry-After that one of them received."""
    events = []
    one = make_limiter(redis_server.url, emit=events.append)
    other = make_limiter(redis_server.url)
    one.rejected(await one.acquire(), 0.4)
    closed = asyncio.get_running_loop().time()
    await until(lambda: one.epoch == 1)
    await other.acquire()
    assert 0.38 <= asyncio.get_running_loop().time() - closed <= 0.9
    assert any(isinstance(event, SendsPausedEvent) for event in events)


async def test_a_known_rate_is_kept_and_shared_fairly(redis_server, make_limiter):
    """Four processes at a known 200 per second keep the limit together, use nearly all of it, and get equal shares."""
    limiters = [make_limiter(redis_server.url, rate=Rate(200)) for _ in range(4)]
    times = [[] for _ in limiters]
    await run_with_timeout(1.5, *(keep_acquiring(limiter, mine) for limiter, mine in zip(limiters, times, strict=True)))
    every = sorted(at for mine in times for at in mine)
    assert 0.85 * 300 <= len(every) <= 200 * 1.5 + 1 + 30 + 10
    shares = [len(mine) for mine in times]
    assert sum(shares) ** 2 / (4 * sum(share**2 for share in shares)) >= 0.97
    assert sum(len(limiter.calls) for limiter in limiters) <= len(every)


async def test_interactive_sends_go_before_bulk_items_of_every_process(redis_server, make_limiter):
    """An interactive send in one process does not wait behind a bulk run in another."""
    bulk, interactive = (make_limiter(redis_server.url, rate=Rate(50)) for _ in range(2))
    loop, waits = asyncio.get_running_loop(), []

    async def send_interactive():
        for _ in range(8):
            await asyncio.sleep(0.1)
            began = loop.time()
            interactive.accepted(await interactive.acquire(1, "interactive"))
            waits.append(loop.time() - began)
        await asyncio.sleep(10)

    await run_with_timeout(1.3, keep_acquiring(bulk, [], workers=100), send_interactive())
    assert len(waits) == 8
    assert max(waits) <= 0.2


async def test_a_weight_above_a_batch_waits_for_all_its_permits(redis_server, make_limiter):
    """A text heavier than a batch is neither starved nor granted too early."""
    limiter = make_limiter(redis_server.url, rate=Rate(40))
    times, loop, began = [], asyncio.get_running_loop(), asyncio.get_running_loop().time()
    task = asyncio.ensure_future(keep_acquiring(limiter, times, workers=5))
    await asyncio.sleep(0.05)
    heavy = await limiter.acquire(12, "bulk")
    waited = loop.time() - began
    task.cancel()
    await asyncio.wait([task])
    assert heavy.weight == 12
    assert 0.15 <= waited <= 0.9
    assert len(times) + 12 <= 40 * (loop.time() - began) + 12


async def test_cancelled_waiters_lose_no_capacity(redis_server, make_limiter):
    """When half of the waiters are cancelled, the others get the whole rate."""
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


async def test_refunded_permits_are_granted_again(redis_server, make_limiter):
    """A refunded permit is available at once in this process, and within a flush in others."""
    one, other = (make_limiter(redis_server.url, rate=Rate.parse("6/m")) for _ in range(2))
    permit = await one.acquire()
    one.refund(permit)
    again = one.try_acquire()
    assert again is not None
    one.refund(again)
    await until(lambda: len(one.calls) == 2)
    async with asyncio.timeout(1.0):
        await other.acquire()


async def test_a_known_wait_beyond_the_deadline_fails_at_once(redis_server, make_limiter):
    """A pause beyond the deadline fails at once; a wait that turns out too long fails at its deadline."""
    limiter = make_limiter(redis_server.url, rate=Rate.parse("6/m"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    permit = await limiter.acquire()
    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(deadline=loop.time() + 0.1)
    assert caught.value.local
    limiter.rejected(permit, 30.0)
    with pytest.raises(RateLimitError):
        await limiter.acquire(deadline=loop.time() + 5.0)
    assert loop.time() - began < 0.6


async def test_two_accounts_and_two_channels_do_not_share(redis_server, make_limiter):
    """A rejection affects neither the other channel nor another account."""
    limiters = [
        make_limiter(redis_server.url),
        make_limiter(redis_server.url, channel="voice"),
        make_limiter(redis_server.url, key="9900001"),
    ]
    permits = [await limiter.acquire() for limiter in limiters]
    limiters[0].rejected(permits[0], None)
    await until(lambda: limiters[0].epoch == 1)
    for limiter, permit in list(zip(limiters, permits, strict=True))[1:]:
        limiter.accepted(permit)
        await until(lambda limiter=limiter: len(limiter.calls) >= 2)
        await asyncio.sleep(0.02)
        assert (limiter.epoch, limiter.rate) == (0, None)


async def test_a_flushed_script_is_loaded_again(redis_server, make_limiter):
    """SCRIPT FLUSH, as after a restart, costs one extra round trip and nothing else."""
    limiter = make_limiter(redis_server.url, rate=Rate(100))
    await limiter.acquire()
    with redis_server.client() as client:
        client.script_flush()
    async with asyncio.timeout(1.0):
        for _ in range(3):
            await limiter.acquire()
    assert "without" not in repr(limiter)


async def test_expired_state_restarts_below_the_known_rate(redis_server, make_limiter):
    """Unused state expires; a process that still knows the rate starts with 0.8 of it."""
    limiter = make_limiter(redis_server.url, expires=5)
    for _ in range(20):
        limiter.accepted(await limiter.acquire())
    limiter.rejected(await limiter.acquire(), None)
    await until(lambda: limiter.epoch == 1)
    rate, key = limiter.rate, "bandwidth-mfa:{9900000}:messaging"
    with redis_server.client() as client:
        assert 0 < client.pttl(key) <= 5_000
        client.delete(key)
    async with asyncio.timeout(2.0):
        limiter.accepted(await limiter.acquire())
    assert limiter.rate == pytest.approx(0.8 * rate, rel=0.1)
    assert limiter.epoch == 2


async def test_a_channel_without_a_rate_uses_slow_start_after_a_pause(redis_server, make_limiter):
    """After a Retry-After the queue leaves at a doubling rate, then without a limit, as in the local limiter."""
    limiter = make_limiter(redis_server.url, adaptive=False)
    permit = await limiter.acquire()
    limiter.rejected(permit, 0.2)
    began, times = asyncio.get_running_loop().time(), []

    async def one():
        await limiter.acquire()
        times.append(asyncio.get_running_loop().time() - began)

    await asyncio.gather(*(one() for _ in range(12)))
    assert times[0] >= 0.19
    assert 0.5 <= times[-1] <= 1.4


async def test_counts_are_flushed_and_the_task_ends(redis_server, make_limiter):
    """An accepted message is reported within 0.1 s; then the background task ends."""
    limiter = make_limiter(redis_server.url)
    limiter.accepted(await limiter.acquire())
    began = len(limiter.calls)
    await until(lambda: len(limiter.calls) > began, 0.2)
    await until(lambda: limiter._task._running is False, 0.2)
    assert "unlimited" in repr(limiter)


async def test_closing_ends_waits_and_sends_the_last_report(redis_server, make_limiter):
    """`abort` gives every waiter an error; `aclose` still reports accepted messages."""
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


async def test_clients_with_the_same_redis_limits_share_one_limit(redis_server, server, make_client, template):
    """Two clients with the same `RedisLimits` share one limit and close their connections."""
    shared = VirtualRedisLimits(redis_server.url, key="9900000")
    clients = [make_client(limits=Limits(shared=shared, rate="20/s")) for _ in range(2)]
    began = asyncio.get_running_loop().time()
    login: CodeTemplate = template
    await asyncio.gather(
        *(client.generate_messaging_code(login.to("+19195551234")) for client in clients for _ in range(10))
    )
    assert asyncio.get_running_loop().time() - began >= 0.6
    view = clients[0].with_options(timeout=5.0, limits=Limits(shared=shared, rate="20/s"))
    assert view._executor.limiters["voice"] is clients[0]._executor.limiters["voice"]
    for client in clients:
        await client.aclose()


async def test_views_with_limits_of_their_own_hold_a_bounded_number_of_connections(
    redis_server, server, make_client, template
):
    """One view a request, each with its own `RedisLimits`: those that are gone are closed."""
    client = make_client()
    state = client._executor.state

    def connections():
        with redis_server.client() as own:
            return len([each for each in own.client_list() if each["cmd"].startswith("eval")])

    for number in range(3 * MAX_IDLE):
        shared = RedisLimits(redis_server.url, key=f"account{number}")
        view = client.with_options(limits=Limits(shared=shared)).with_options(timeout=5.0)
        await view.generate_messaging_code(template.to("+19195551234"))
        del view
        gc.collect()
    await until(lambda: not state.shared_limiters._closing)
    assert len(state.shared_limiters._entries) <= 2 * (MAX_IDLE + 1)
    assert 0 < connections() <= MAX_IDLE + 2
    await client.aclose()
    assert connections() == 0


async def test_views_with_the_same_limits_one_after_another_share_one_limiter(
    redis_server, server, make_client, template
):
    """What is known of the limit, and the connection, outlive the view."""
    client, shared = make_client(), RedisLimits(redis_server.url, key="9900000")
    found = set()
    for _ in range(3):
        view = client.with_options(limits=Limits(shared=shared))
        await view.generate_messaging_code(template.to("+19195551234"))
        found.add(id(view._executor.limiters["messaging"]))
        del view
        gc.collect()
    assert len(found) == 1
    await client.aclose()
