"""Damaged journals: bits are flipped in a journal and its log, or the log is lost, and the run is started again.

Run: python -m tests.system.journal_damage [--flips 2000] [--frames 200] [--kills 20] [--items 400] [--seed N] [--json]
Runs that a child process sends to a simulator in this process are killed with SIGKILL or end. Each damage is done to a
copy of their files. The run that follows sends to a counting transport, and must refuse the journal, or report what the
undamaged journal reports, or report items as unknown: it must never text anyone again whose text was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import pathlib
import random
import shutil
import signal
import struct
import sys
import tempfile
from typing import Any

from attrs import frozen

from bandwidth_mfa_async import BulkSender, JournalError, Limits
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import FakeTransport
from tests.support import processes
from tests.system.bulk_kills import LOGIN, numbers

FILES = ("", "-wal", "-mark")
HEADER, FRAME_HEADER = 32, 24


@frozen
class Base:
    """The files of a run that ended, and the numbers that it texted."""

    name: str
    files: tuple[bytes, bytes, bytes]
    texted: frozenset[str]
    items: int

    def restore(self, folder: pathlib.Path, files: tuple[bytes, ...] | None = None) -> pathlib.Path:
        for ending, content in zip(FILES, files or self.files, strict=True):
            if content:
                (folder / f"run.db{ending}").write_bytes(content)
        return folder / "run.db"

    def frames(self) -> tuple[int, list[int]]:
        """Return the size of a frame of the log, and the offsets of the frames of its current generation."""
        log = self.files[1]
        size = FRAME_HEADER + struct.unpack(">I", log[8:12])[0]
        return size, [
            offset for offset in range(HEADER, len(log) - size + 1, size) if log[offset + 8 : offset + 16] == log[16:24]
        ]


async def make_base(name: str, items: int, signals: dict[float, signal.Signals], folder: pathlib.Path) -> Base:
    """Run to the end, but end the process at some shares of the texts: SIGTERM stops the run, SIGKILL kills it."""
    journal = folder / "run.db"
    async with Simulator(seed=1) as simulator:
        simulator.faults.chance(Fault(delay=0.03), 0.5, operation="messaging")
        environment = {
            "BW_MFA_URL": simulator.base_url,
            "BW_ACCOUNT_ID": simulator.account_id,
            "BW_USERNAME": simulator.username,
            "BW_PASSWORD": simulator.password,
            "PATH": "/usr/bin:/bin",
        }
        command = (sys.executable, "-m", "tests.system.bulk_kills", "--child", items, journal)
        for share, number in signals.items() or [(2.0, signal.SIGKILL)]:
            async with processes.running_async(*command, env=environment, stdout=processes.PIPE) as process:
                ended = asyncio.create_task(process.communicate())
                while not ended.done() and len(simulator.inbox) < share * items:
                    await asyncio.wait([ended], timeout=0.002)
                if not ended.done():
                    process.send_signal(number)
                await ended
        texted = frozenset(message.to for message in simulator.inbox)
    content = tuple(path.read_bytes() if path.exists() else b"" for path in (folder / f"run.db{end}" for end in FILES))
    assert len(texted) == len(simulator.inbox)
    return Base(name, content, texted, items)  # type: ignore[arg-type]


async def resume(base: Base, path: pathlib.Path) -> tuple[str, list[str]]:
    """Return how the next run ends, and the outcomes."""
    fake = FakeTransport()
    outcomes: list[str] = []
    result = "resumed"
    async with fake.client(limits=Limits(max_in_flight=100)) as mfa:
        try:
            async with BulkSender(mfa, journal=path, ordered=True) as bulk:
                async for outcome in bulk.send(numbers(base.items), template=LOGIN):
                    outcomes.append((outcome.previous or outcome.delivery).value)
        except JournalError:
            result = "refused"
    sent = collections.Counter(str(request.document["to"]) for request in fake.sent)
    if sent.keys() & base.texted or any(number > 1 for number in sent.values()):
        return "texted again", outcomes
    for to, outcome in zip(numbers(base.items), outcomes, strict=False):
        if outcome != "unknown" and (outcome == "accepted") is not (to in sent or to in base.texted):
            return "false outcome", outcomes
    if result == "refused" and sent:
        return "refused late", outcomes
    return result, outcomes


async def try_damage(base: Base, damage: tuple[bytes, ...], folder: pathlib.Path, expected: list[str]) -> str:
    place = pathlib.Path(tempfile.mkdtemp(dir=folder))
    try:
        result, outcomes = await resume(base, base.restore(place, damage))
    finally:
        shutil.rmtree(place)
    if result != "resumed":
        return result
    # The last transaction, whose write the kill interrupted, may be lost: nothing was sent because of it, so its
    # results are unknown, and what it was about to send is sent now.
    return "as without damage" if outcomes == expected else "other true outcomes"


def flip(files: tuple[bytes, ...], bit: int) -> tuple[bytes, ...]:
    """Flip one bit of the journal and its log, in this order."""
    content = bytearray(files[0] + files[1])
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content[: len(files[0])]), bytes(content[len(files[0]) :]), *files[2:]


async def run(options: argparse.Namespace, folder: pathlib.Path) -> dict[str, Any]:
    rng = random.Random(options.seed)
    plans: dict[str, dict[float, signal.Signals]] = {
        "finished": {},
        "killed": {0.6: signal.SIGKILL},
        "stopped, then killed": {0.4: signal.SIGTERM, 0.8: signal.SIGKILL},
    }
    bases: list[tuple[Base, list[str]]] = []
    for place, (name, signals) in enumerate(plans.items()):
        (folder / str(place)).mkdir()
        base = await make_base(name, options.items, signals, folder / str(place))
        assert bool(base.files[1]) is bool(signals), name
        (folder / f"{place}-whole").mkdir()
        result, outcomes = await resume(base, base.restore(folder / f"{place}-whole"))
        assert (result, len(outcomes)) == ("resumed", options.items), (name, result)
        bases.append((base, outcomes))
    found: dict[str, collections.Counter[str]] = {}
    for number in range(options.flips):
        base, expected = bases[number % len(bases)]
        bit = rng.randrange(8 * len(base.files[0] + base.files[1]))
        counter = found.setdefault(f"flipped bits, {base.name}", collections.Counter())
        counter[await try_damage(base, flip(base.files, bit), folder, expected)] += 1
    for number in range(options.frames):
        base, expected = bases[1 + number % 2]
        size, offsets = base.frames()
        offset = rng.choice(offsets[:-1])
        bit = 8 * len(base.files[0]) + rng.randrange(8 * offset, 8 * (offset + size))
        counter = found.setdefault("flipped frames before good ones", collections.Counter())
        counter[await try_damage(base, flip(base.files, bit), folder, expected)] += 1
    for number in range(options.kills):
        (folder / f"kill-{number}").mkdir()
        share = rng.uniform(0.05, 0.95)
        base = await make_base("killed", options.items, {share: signal.SIGKILL}, folder / f"kill-{number}")
        for name, kept in (("log", (0, 2)), ("log and mark", (0,)), ("end of the log", (0, 1, 2))):
            files = [content if place in kept else b"" for place, content in enumerate(base.files)]
            if 1 in kept:
                size, offsets = base.frames()
                files[1] = files[1][: rng.choice([HEADER, *offsets[1:], rng.randrange(len(files[1]))])]
            counter = found.setdefault(
                f"{name} {'cut' if 1 in kept else 'missing'} after a kill", collections.Counter()
            )
            counter[await try_damage(base, tuple(files), folder, [])] += 1
    return {"seed": options.seed, "items": options.items, "sound": is_sound(found), "found": found}


def is_sound(found: dict[str, collections.Counter[str]]) -> bool:
    """Return whether no damage led to a second text or a false outcome, and each missing log was noticed."""
    return not any(
        set(counter) & {"texted again", "false outcome", "refused late"}
        or (name.endswith("missing after a kill") and set(counter) != {"refused"})
        for name, counter in found.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = asyncio.run(run(options, pathlib.Path(name)))
    if options.as_json:
        print(json.dumps(results))
    else:
        for kind, counter in results["found"].items():
            print(f"{kind}: " + ", ".join(f"{number} {end}" for end, number in sorted(counter.items())))
        print(f"seed {results['seed']}: {'sound' if results['sound'] else 'NOT SOUND'}")
    sys.exit(not results["sound"])


if __name__ == "__main__":
    main()
