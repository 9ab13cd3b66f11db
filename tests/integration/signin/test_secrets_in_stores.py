"""No number, code, visitor or subject in the bytes of a store, a log, an event or an error."""

from __future__ import annotations

import asyncio
import json
import pathlib
import stat
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    ConfigurationError,
    GuardRefusedError,
    MemoryStore,
    RedisStore,
    RequestError,
    SQLiteStore,
    StoreError,
)
from bandwidth_mfa_async.signin import Guard, SignIns, UnverifiedBudget
from bandwidth_mfa_async.simulator import Fault
from tests.support.secrets import everything
from tests.support.signins import LOGIN, SECRET, VOICE, Events, WallClock, wrong

if TYPE_CHECKING:
    from bandwidth_mfa_async import MFAClient
    from bandwidth_mfa_async.simulator import Simulator
    from tests.integration.signin.conftest import AnyStore
    from tests.support.redis_server import RedisServer

SENTINEL = "+19195557788"
VISITOR = "203.0.113.77"
SUBJECT = "s3ntinel-user"


def content(store: AnyStore, request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> bytes:
    """Return everything that a store holds, in memory and on the disk."""
    if isinstance(store, MemoryStore):
        return json.dumps(store._records).encode()
    if isinstance(store, SQLiteStore):
        files = [path for path in tmp_path.iterdir() if path.name.startswith("store.db")]
        assert {path.name for path in files} >= {"store.db", "store.db-wal"}
        return b"".join(path.read_bytes() for path in files)
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client() as client:
        held = b"".join(name + (client.dump(name) or b"") for name in client.keys("*"))
    return held + b"".join(path.read_bytes() for path in pathlib.Path(server.directory).rglob("*") if path.is_file())


async def test_the_bytes_of_every_store(
    made_store: AnyStore,
    any_store: AnyStore,
    mfa: MFAClient,
    sim: Simulator,
    wall: WallClock,
    events: Events,
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = UnverifiedBudget(expected_per_day=1000)
    guard = Guard(unverified=budget, total="100/h", per_visitor="100/h")
    signins = SignIns(mfa, LOGIN, store=any_store, guard=guard, voice_template=VOICE, max_checks=3)
    held: list[bytes] = []
    flow_ids: list[str] = []
    errors: list[BaseException] = []

    async def look() -> None:
        held.append(await asyncio.to_thread(content, made_store, request, tmp_path))

    async def fail(work: Any) -> None:
        with pytest.raises(RequestError) as failed:
            await work
        errors.append(failed.value)

    async def start(**options: Any) -> str:
        wall.tick(60)
        flow = await signins.start(SENTINEL, visitor=VISITOR, subject=SUBJECT, cleared=True, **options)
        flow_ids.append(flow.id)
        await look()
        return flow.id

    for end in ("used", "exhausted", "cancelled", "done", "expired"):
        flow_id = await start(idempotency_key=f"the key of a form, {end}")
        code = sim.inbox[-1].code
        sim.faults.script(Fault(status=403), operation="verify")
        await fail(signins.check(flow_id, code))
        await fail(signins.resend(flow_id))
        match end:
            case "used":
                wall.tick(30)
                await signins.call(flow_id)
                assert (await signins.check(flow_id, sim.inbox[-1].code)).valid
                await signins.check(flow_id, code)
            case "exhausted":
                for _ in range(4):
                    await signins.check(flow_id, wrong(code))
            case "cancelled":
                await signins.cancel(flow_id)
            case "done":
                await signins.done(flow_id)
            case _:
                wall.tick(3600)
                await signins.check(flow_id, code)
        await look()
    with pytest.raises(GuardRefusedError) as refused:
        for _ in range(12):
            await start()
    errors.append(refused.value)
    secrets = [SENTINEL[1:], SENTINEL[2:], VISITOR, SUBJECT, *flow_ids, *{text.code for text in sim.inbox}]
    for secret in secrets:
        if len(secret) > 6:  # six digits occur in the times of any record
            assert not [number for number, each in enumerate(held) if secret.encode() in each], secret
        shown = caplog.text + repr(events.seen) + "".join(map(everything, errors)) + repr(signins) + repr(guard)
        assert secret not in shown, secret
    codes = {text.code for text in sim.inbox}
    for each in held:
        assert not [code for code in codes if f'"{code}"'.encode() in each]


async def test_a_store_of_several_processes_needs_a_secret(mfa: MFAClient, redis_server: RedisServer) -> None:
    async with RedisStore(redis_server.url) as store:
        with pytest.raises(ConfigurationError, match=r"^secret: .*BW_STORE_SECRET"):
            await SignIns(mfa, LOGIN, store=store).start("+19195551234")


async def test_the_variable(mfa: MFAClient, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BW_STORE_SECRET", f"{SECRET.replace(' ', '-')},another-secret-of-this-test")
    async with RedisStore(redis_server.url) as store:
        assert len(await store.secrets(deadline=0)) == 2


@pytest.mark.parametrize("secret", ["short", b"short", [], ["a good and long secret", "short"], 7, ["a" * 16, 7]])
def test_a_bad_secret(secret: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^secret: "):
        MemoryStore(secret=secret)


class TestSecretBesideTheFile:
    def store(self, tmp_path: pathlib.Path) -> SQLiteStore:
        return SQLiteStore(tmp_path / "store.db")

    async def test_all_processes_find_the_first_one(self, tmp_path: pathlib.Path) -> None:
        stores = [self.store(tmp_path) for _ in range(8)]
        deadline = asyncio.get_running_loop().time() + 10
        found = await asyncio.gather(*(store.secrets(deadline=deadline) for store in stores))
        assert len(set(map(tuple, found))) == 1
        files = await asyncio.to_thread(lambda: [(path.name, path.stat().st_mode) for path in tmp_path.iterdir()])
        assert [(name, stat.S_IMODE(mode)) for name, mode in files] == [("store.db.secret", 0o600)]

    async def test_an_unreadable_one_is_a_store_error(self, tmp_path: pathlib.Path) -> None:
        await asyncio.to_thread((tmp_path / "store.db.secret").write_text, "short")
        deadline = asyncio.get_running_loop().time() + 10
        with pytest.raises(StoreError, match=r"store\.db\.secret"):
            await self.store(tmp_path).secrets(deadline=deadline)
