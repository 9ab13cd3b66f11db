"""Checks what every test of a row must show: outcome, the server's records, the pool afterwards and elapsed time."""

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

# The `pytestmark` of each module in this folder: both loops, cold and warm.
MATRIX = [
    pytest.mark.virtual_time,
    pytest.mark.uvloop,
    pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"]),
]

CODE = CodeTemplate(FROM, APPLICATION, scope="login").to(TO)
ACCEPTED = (MessagingCodeResponse, Delivery.ACCEPTED)
# The waits of three attempts with the fixtures' policy: at most 2 ms before each retry.
REPEATED = (0.0, 0.006)


async def send(client: MFAClient) -> MessagingCodeResponse:
    return await client.generate_messaging_code(CODE)


async def send_all(bulk: BulkSender, source: Any) -> list[ItemOutcome]:
    """Return all outcomes of a bulk run."""
    async with bulk:
        return [outcome async for outcome in bulk.send(source, template=CodeTemplate(FROM, APPLICATION))]


async def prepare(server: FaultServer, client: MFAClient, *, warm: bool, keep: bool = True) -> None:
    """If `warm`, send once; keep that connection, unless the fault needs a new one."""
    if warm:
        server.play(answer(headers=None if keep else {"Connection": "close"}))
        await send(client)
        assert kept(client) == keep


def outcome_of(result: Any) -> Any:
    """Return the outcome that a caller sees: a type and the delivery; for a bulk run, the count of each."""
    if isinstance(result, list):
        return Counter(map(outcome_of, result))
    if isinstance(result, ItemOutcome):
        return None if result.error is None else type(result.error), result.delivery
    accepted = Delivery.ACCEPTED if isinstance(result, MessagingCodeResponse) else None
    return type(result), getattr(result, "delivery", accepted)


class Watch:
    """Observes one call after another, and compares each outcome with the expected one."""

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
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - any error is an outcome
            self.result = error
        self.passed, self.skipped = loop.time() - began, loop.skipped - skipped
        return self.result

    async def shows(
        self, *, outcome: Any, ledger: tuple[int, int], pool: int, elapsed: float | tuple[float, float]
    ) -> None:
        """Compare the last call with its row, once the server has completed its script.

        Args:
            outcome: the expected result of `outcome_of`.
            ledger: requests that the server read completely, and texts that it sent.
            pool: connections kept for the next call; no other is open.
            elapsed: seconds, or their minimum and maximum.
        """
        # Check the pool now: the server's delays may be longer than a connection is kept.
        assert kept(self.client) == pool
        server = self.server
        for _ in range(100):
            if not server.script and server.open_connections == pool:
                break
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(100.0)  # the server is in a delay
        assert not server.script, "the script of the fault was not completed"
        assert server.open_connections == pool, "the server has other connections than the pool"
        self.compare(outcome=outcome, ledger=ledger, pool=pool, elapsed=elapsed)

    def compare(
        self, *, outcome: Any, ledger: tuple[int, int], pool: int, elapsed: float | tuple[float, float]
    ) -> None:
        """Compare the last call with its row, where the server's loop has ended."""
        self.compared += 1
        assert outcome_of(self.result) == outcome, repr(self.result)
        assert (len(self.server.seen) - self.before[0], self.server.sent - self.before[1]) == ledger
        slots = self.client._executor.slots
        assert (slots.taken, slots.waiting, taken(self.client)) == (0, 0, 0), "a slot or a connection is still taken"
        assert kept(self.client) == pool
        least, most = elapsed if isinstance(elapsed, tuple) else (elapsed, elapsed)
        # On a busy machine real time passes as well: it counts for the minimum, not for the maximum.
        assert self.passed >= least - 1e-6
        assert self.skipped <= most + 1e-6, "it waited for longer than it should"

    async def serves_again(self) -> None:
        """Send once more: a kept connection is used, and the response is this request's own."""
        connections, pool = self.server.accepted_connections, kept(self.client)
        assert (await send(self.client)).message_id == OK_BODY["messageId"]
        assert self.server.accepted_connections - connections == (not pool)
        assert kept(self.client) == 1
