"""What every test of a row shows: the outcome, the server's ledger, the pool afterwards and the time that passed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import BulkSender, CodeTemplate, Delivery, ItemOutcome, MessagingCodeResponse
from tests.conftest import APPLICATION, FROM, TO
from tests.support.fault_server import OK_BODY, FaultServer, answer, kept, taken

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bandwidth_mfa_async import MFAClient

# Each module of this folder takes these for its `pytestmark`: both loops, and all that it says cold and warm.
MATRIX = [
    pytest.mark.virtual_time,
    pytest.mark.uvloop,
    pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"]),
]

CODE = CodeTemplate(FROM, APPLICATION, scope="login").to(TO)
ACCEPTED = (MessagingCodeResponse, Delivery.ACCEPTED)
# What three attempts wait with the fixtures' policy: at most 2 ms before each repetition.
REPEATED = (0.0, 0.006)


async def send(client: MFAClient) -> MessagingCodeResponse:
    return await client.generate_messaging_code(CODE)


async def send_all(bulk: BulkSender, source: Any) -> list[ItemOutcome]:
    """Return all outcomes of a bulk run."""
    async with bulk:
        return [outcome async for outcome in bulk.send(source, template=CodeTemplate(FROM, APPLICATION))]


async def prepare(server: FaultServer, client: MFAClient, *, warm: bool, keep: bool = True) -> None:
    """Let a client that is to be warm send once; keep that connection, unless the fault needs a new one."""
    if warm:
        server.play(answer(headers=None if keep else {"Connection": "close"}))
        await send(client)
        assert kept(client) == keep


def told(result: Any) -> Any:
    """Return what somebody who awaited a call learnt: a type, and what became of the message; of a run, how often."""
    if isinstance(result, list):
        return Counter(map(told, result))
    if isinstance(result, ItemOutcome):
        return None if result.error is None else type(result.error), result.delivery
    accepted = Delivery.ACCEPTED if isinstance(result, MessagingCodeResponse) else None
    return type(result), getattr(result, "delivery", accepted)


class Watch:
    """Follows one call after another, and compares what came of each with what has to."""

    def __init__(self) -> None:
        self.compared = 0

    async def of(self, call: Awaitable[Any], client: MFAClient, server: FaultServer) -> Any:
        """Await a call; return what it returned or raised."""
        loop: Any = asyncio.get_running_loop()
        self.client, self.server = client, server
        self.before = (len(server.seen), server.sent)
        began, skipped = loop.time(), loop.skipped
        try:
            self.result = await call
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it is the outcome
            self.result = error
        self.passed, self.skipped = loop.time() - began, loop.skipped - skipped
        return self.result

    async def shows(
        self, *, outcome: Any, ledger: tuple[int, int], pool: int, elapsed: float | tuple[float, float]
    ) -> None:
        """Compare the last call with its row, once the server has done what it does.

        Args:
            outcome: what `told` makes of it.
            ledger: requests that the server read whole, and texts that went out.
            pool: connections kept for the next call; no other is open.
            elapsed: seconds, or the least and the most of them.
        """
        # The pool as it is now: the server's delays may be longer than a connection is kept.
        assert kept(self.client) == pool
        server = self.server
        for _ in range(100):
            if not server.script and server.open_connections == pool:
                break
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(100.0)  # it is in the middle of a delay
        assert not server.script, "not all of the fault was met"
        assert server.open_connections == pool, "the server has other connections than the pool"
        self.compare(outcome=outcome, ledger=ledger, pool=pool, elapsed=elapsed)

    def compare(
        self, *, outcome: Any, ledger: tuple[int, int], pool: int, elapsed: float | tuple[float, float]
    ) -> None:
        """Compare the last call with its row, where the server's loop is no more."""
        self.compared += 1
        assert told(self.result) == outcome, repr(self.result)
        assert (len(self.server.seen) - self.before[0], self.server.sent - self.before[1]) == ledger
        slots = self.client._executor.slots
        assert (slots.taken, slots.waiting, taken(self.client)) == (0, 0, 0), "something is still in somebody's hands"
        assert kept(self.client) == pool
        least, most = elapsed if isinstance(elapsed, tuple) else (elapsed, elapsed)
        # A busy machine takes real time as well: to the least that counts, to the most it does not.
        assert self.passed >= least - 1e-6
        assert self.skipped <= most + 1e-6, "it waited for longer than it should"

    async def serves_again(self) -> None:
        """Send once more: a kept connection is used, and whatever came before, the answer is this request's own."""
        connections, pool = self.server.accepted_connections, kept(self.client)
        assert (await send(self.client)).message_id == OK_BODY["messageId"]
        assert self.server.accepted_connections - connections == (not pool)
        assert kept(self.client) == 1
