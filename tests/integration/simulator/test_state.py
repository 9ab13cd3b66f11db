"""The state file: what it keeps, and that a damaged, foreign or used file is reported and left as it is."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re

import pytest

from bandwidth_mfa_async._clock import ManualClock
from bandwidth_mfa_async.simulator import AccountLimits, Fault, ReceiptPolicy, Simulator, StateFileError, _state_file
from tests.integration.simulator.conftest import SEND, TO, ApiClient, until

DAY = 24 * 3600.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


def later(clock: ManualClock, seconds: float) -> ManualClock:
    """Return the clock of a machine that started again: its wall time goes on, and its monotonic time does not."""
    return ManualClock(monotonic=5.0, wall=clock.time() + seconds)


async def test_messages_codes_and_their_state_survive(session, clock, path):
    async with Simulator(state=path, clock=clock, seed=1) as sim:
        api = ApiClient(session, sim)
        await api.send()
        await api.verify(sim.last_code(TO))
        sim.faults.script(Fault(status=503, accepted=True))
        await api.post("voice", SEND | {"callbackUrl": "http://example.com/"})
        await api.send(to="+19195550000", callbackUrl="http://example.com/")
        before = [message.as_json() for message in sim.inbox]
        secrets = (sim.password, sim.client_secret)
    assert path.stat().st_mode & 0o777 == 0o600
    clock = later(clock, 100)
    async with Simulator(state=path, clock=clock, seed=2) as sim:
        assert [message.as_json() for message in sim.inbox] == before
        assert (before[0]["verified"] is None, before[1]["answerStatus"], before[2]["receipt"]) == (
            False,
            503,
            "blocked",
        )
        assert (sim.password, sim.client_secret) == secrets
        assert sim.sent_count == 3
        api = ApiClient(session, sim)
        assert await api.verify(sim.inbox[1].code) == (200, {"valid": True})
        clock.tick(81)
        # 181 s after it was sent: the window is the verifier's.
        assert await api.verify(sim.inbox[1].code) == (200, {"valid": False})
        assert await api.verify(sim.inbox[1].code, minutes=4) == (200, {"valid": True})
        await api.send()
        assert [message.number for message in sim.inbox] == [1, 2, 3, 4]
    async with Simulator(state=path, clock=later(clock, DAY)) as sim:
        assert len(sim.inbox) == 4
        assert len(sim._service.codes) == 0


async def test_locks_limits_and_used_codes_survive_and_old_locks_do_not(session, clock, path):
    options = {"lockout_after": 2, "lockout_seconds": 600.0, "consume_on_success": True}
    async with Simulator(state=path, clock=clock, **options) as sim:
        api = ApiClient(session, sim)
        await api.send()
        assert await api.verify(sim.last_code(TO)) == (200, {"valid": True})
        other = "+19195550000"
        for number in (TO, TO, other):
            await api.verify("0000", to=number)
        sim.set_limits(messaging=AccountLimits(rate=7, per=2), voice=None)
    clock = later(clock, 300)
    async with Simulator(state=path, clock=clock, **options) as sim:
        api = ApiClient(session, sim)
        assert sim.limits == {"messaging": AccountLimits(rate=7, per=2), "voice": None}
        assert (await api.verify("0000"))[0] == 429
        assert (await api.verify("0000", to="+19195550000"))[0] == 200
        assert (await api.verify("0000", to="+19195550000"))[0] == 429
        clock.tick(300)
        assert await api.verify(sim.last_code(TO)) == (200, {"valid": False})


async def test_initial_limits_are_not_stored(clock, path):
    """Another option at the next start is not overridden by what was never changed."""
    async with Simulator(state=path, clock=clock, messaging_limits=AccountLimits()):
        pass
    async with Simulator(state=path, clock=clock, messaging_limits=AccountLimits(rate=9)) as sim:
        assert sim.limits["messaging"] == AccountLimits(rate=9)


async def test_only_credentials_that_were_made_up_are_stored(clock, path):
    """Those of the environment are not in the file, and win over it."""
    async with Simulator(state=path, clock=clock, password="from-the-environment", control_token=True) as sim:
        token, secret = sim.control_token, sim.client_secret
    content = path.read_text()
    assert "from-the-environment" not in content
    assert secret in content
    async with Simulator(state=path, clock=clock, client_secret="given", control_token=True) as sim:
        assert (sim.client_secret, sim.control_token) == ("given", token)
        assert sim.password != "from-the-environment"


async def test_clearing_survives(session, clock, path):
    async with Simulator(state=path, clock=clock, lockout_after=1) as sim:
        api = ApiClient(session, sim)
        await api.send()
        code = sim.last_code(TO)
        await api.control("DELETE", "/messages")
    async with Simulator(state=path, clock=clock) as sim:
        assert not sim.inbox
        assert sim.sent_count == 1
        # The inbox was cleared; the code stays valid.
        assert await ApiClient(session, sim).verify(code) == (200, {"valid": True})
        sim.set_limits(voice=AccountLimits())
        sim.clear()
    async with Simulator(state=path, clock=clock) as sim:
        assert await ApiClient(session, sim).verify(code) == (200, {"valid": False})
        assert sim.limits["voice"] is None


async def test_receipts_that_were_not_accepted_are_posted_after_a_restart(session, clock, path):
    async with Simulator(state=path, clock=clock, receipts=ReceiptPolicy(delay=60)) as sim:
        await ApiClient(session, sim).send(callbackUrl="http://127.0.0.1:9/")
        assert sim.inbox[0].receipt == "pending"
    async with Simulator(state=path, clock=clock, receipts=ReceiptPolicy(delay=1)) as sim:
        await until(lambda: clock.pending)
        clock.tick(1)
        await until(lambda: sim.inbox[0].receipt == "retrying")


async def test_the_inbox_limit_applies_to_the_file(session, clock, path):
    for _ in range(2):
        async with Simulator(state=path, clock=clock, inbox_limit=3) as sim:
            for _ in range(4):
                await ApiClient(session, sim).send()
            assert len(sim.inbox) == 3
    async with Simulator(state=path, clock=clock, inbox_limit=3) as sim:
        assert [message.number for message in sim.inbox] == [6, 7, 8]


async def test_the_file_is_rewritten_before_it_grows_without_bound(session, clock, path, monkeypatch):
    monkeypatch.setattr(_state_file, "_MIN_GROWTH", 50)
    async with Simulator(state=path, clock=clock, inbox_limit=2, seed=1) as sim:
        api = ApiClient(session, sim)
        sizes = []
        for index in range(200):
            await api.send(to=f"+1919555{index:04d}")
            await api.control("DELETE", "/messages")
            clock.tick(60)
            sizes.append(path.stat().st_size)
        assert max(sizes[100:]) < 3 * max(sizes[:50])
        await api.send()
    async with Simulator(state=path, clock=clock) as sim:
        assert (len(sim.inbox), sim.sent_count) == (1, 201)


async def test_a_simulator_that_starts_again_continues_its_file(session, clock, path):
    sim = Simulator(state=path, clock=clock)
    for count in (1, 2):
        async with sim:
            await ApiClient(session, sim).send()
            assert len(sim.inbox) == count
    async with Simulator(state=path, clock=clock) as other:
        assert len(other.inbox) == 2


async def test_an_incomplete_last_line_is_ignored(session, clock, path):
    """A process that is killed while it writes leaves one."""
    async with Simulator(state=path, clock=clock) as sim:
        for _ in range(2):
            await ApiClient(session, sim).send()
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-cut])
        records = _state_file.read_records(str(path))
        assert [record["kind"] for record in records].count("sent") == 1
    async with Simulator(state=path, clock=clock) as sim:
        assert len(sim.inbox) == 1
        await ApiClient(session, sim).send()
    async with Simulator(state=path, clock=clock) as sim:
        assert len(sim.inbox) == 2


async def test_a_damaged_file_is_reported_and_not_used(session, clock, path):
    """A changed byte, a lost line and exchanged lines are found, and the file stays as it is."""
    async with Simulator(state=path, clock=clock) as sim:
        for _ in range(3):
            await ApiClient(session, sim).send()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = [b"".join(lines[:index] + lines[index + 1 :]) for index in range(len(lines) - 1)]
    damaged += [b"".join([*lines[:index], lines[index + 1], lines[index]]) for index in range(len(lines) - 1)]
    for offset in range(0, len(whole), 7):
        if whole[offset : offset + 1] != b"\n":
            damaged.append(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
    damaged += [b"to,name\n+19195551234,Ann\n", b"a note", b"{}\n", b"\0" * 100, b"00000000 x\n"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(StateFileError, match=r"is (damaged at line \d+|not a state file)") as caught:
            Simulator(state=path, clock=clock)
        assert "move it away" in str(caught.value)
        assert not re.search(r"\+\d{8}", str(caught.value))
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("record", [{"kind": "other"}, {"kind": "sent"}, {"kind": "sent", "message": {"what": 1}}])
async def test_a_record_of_another_version_is_reported(clock, path, record):
    file, _ = await asyncio.to_thread(_state_file.StateFile.open, str(path))
    await file.rewrite([record])
    file.close()
    with pytest.raises(StateFileError, match="another version"):
        await Simulator(state=path, clock=clock).start()


async def test_a_file_of_a_newer_format_is_reported(clock, path, monkeypatch):
    monkeypatch.setattr(_state_file, "_HEADER", _state_file._HEADER | {"format": 2})
    file, _ = await asyncio.to_thread(_state_file.StateFile.open, str(path))
    await file.rewrite([])
    file.close()
    monkeypatch.undo()
    with pytest.raises(StateFileError, match="another version"):
        Simulator(state=path, clock=clock)


async def test_a_copy_that_a_killed_simulator_left_is_replaced(session, clock, path):
    left = path.with_name("state.new")
    left.write_text("half of a copy")
    async with Simulator(state=path, clock=clock) as sim:
        await ApiClient(session, sim).send()
    assert list(path.parent.iterdir()) == [path]


async def test_a_rewrite_that_fails_keeps_the_old_content(session, clock, path, monkeypatch, caplog):
    async with Simulator(state=path, clock=clock) as sim:
        await ApiClient(session, sim).send()
    before = path.read_bytes()
    monkeypatch.setattr(_state_file.os, "fsync", lambda _file: os.open("/missing/file", os.O_RDONLY))
    async with Simulator(state=path, clock=clock) as sim:
        assert len(sim.inbox) == 1
        assert path.read_bytes() == before
        await ApiClient(session, sim).send()
    assert "cannot be rewritten" in caplog.text
    monkeypatch.undo()
    async with Simulator(state=path, clock=clock) as sim:
        assert len(sim.inbox) == 2
    assert list(path.parent.iterdir()) == [path]


async def test_what_is_appended_during_a_rewrite_is_in_the_new_content(path):
    """Before its first step, while the copy is written, and while it is renamed."""
    file, _ = await asyncio.to_thread(_state_file.StateFile.open, str(path))
    rewriting = asyncio.ensure_future(file.rewrite([{"kind": "first"}]))
    count = 0
    while not rewriting.done():
        file.append({"kind": "appended", "number": count})
        count += 1
        await asyncio.sleep(0)
    file.close()
    records = await asyncio.to_thread(_state_file.read_records, str(path))
    assert [record.get("number") for record in records] == [None, *range(count)]
    assert count > 3


async def test_a_start_that_is_cancelled_releases_the_file(clock, path):
    for rounds in range(8):
        sim = Simulator(state=path, clock=clock)
        starting = asyncio.create_task(sim.start())
        for _ in range(rounds):
            await asyncio.sleep(0)
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        await sim.stop()
        async with Simulator(state=path, clock=clock):
            pass


async def test_a_file_in_use_is_reported_and_can_be_used_afterwards(clock, path):
    async with Simulator(state=path, clock=clock) as first:
        second = Simulator(state=path, clock=clock)
        with pytest.raises(StateFileError, match="another simulator uses"):
            await second.start()
        assert first.password == second.password
    async with second:
        pass


async def test_a_start_that_fails_releases_the_file(clock, path):
    async with Simulator(clock=clock) as other:
        sim = Simulator(other.port, state=path, clock=clock)
        with pytest.raises(OSError, match="in use"):
            await sim.start()
        async with Simulator(state=path, clock=clock):
            pass


async def test_what_is_no_regular_file_is_reported(clock, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe", "missing/file"):
        with pytest.raises(StateFileError, match=r"not a regular file|cannot be opened"):
            await Simulator(state=tmp_path / name, clock=clock).start()


async def test_a_link_is_followed_and_a_readable_file_made_private(session, clock, tmp_path):
    target = tmp_path / "target"
    target.touch(0o644)
    (tmp_path / "link").symlink_to(target)
    async with Simulator(state=tmp_path / "link", clock=clock) as sim:
        await ApiClient(session, sim).send()
    assert (tmp_path / "link").is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert b"sent" in target.read_bytes()


async def test_a_full_disk_does_not_stop_the_simulator_and_leaves_a_valid_file(
    session, clock, path, monkeypatch, caplog
):
    real = os.write

    def half(file, data):
        real(file, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with Simulator(state=path, clock=clock) as sim:
        api = ApiClient(session, sim)
        await api.send()
        with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
            patch.setattr(_state_file.os, "write", half)
            for _ in range(3):
                assert (await api.send())[0] == 200
        assert len(caplog.records) == 1
        assert "No space left" in caplog.text
        assert TO not in caplog.text
        await api.send()
    async with Simulator(state=path, clock=clock) as sim:
        assert [message.number for message in sim.inbox] == [1, 5]
