"""An async generator given to `bulk.send` is closed by the task that reads it, before the block ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import AuthenticationError, BulkSender, Limits
from tests.conftest import TO
from tests.support.fault_server import FaultServer, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bandwidth_mfa_async import CodeRequest, CodeTemplate
    from tests.support.clients import MakeClient


class Input:
    """An input that holds a connection while it is open, as one that reads a database does."""

    def __init__(self, template: CodeTemplate) -> None:
        self.template = template
        self.opened_by: asyncio.Task[Any] | None = None
        self.closed_by: asyncio.Task[Any] | None = None

    async def rows(self) -> AsyncIterator[CodeRequest]:
        self.opened_by = asyncio.current_task()
        try:
            # A task group must end in the task in which it began; anyio's complain otherwise.
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                connection = group.create_task(asyncio.Event().wait())
                try:
                    while True:
                        yield self.template.to(TO)
                finally:
                    connection.cancel()
        finally:
            await asyncio.sleep(0)  # a connection is closed with a word to its server
            self.closed_by = asyncio.current_task()


@pytest.mark.parametrize("end", ["break", "stop", "cancel", "error", "reader cancelled", "credentials"])
async def test_an_async_generator_is_closed_before_the_block_ends(
    make_client: MakeClient, server: FaultServer, template: CodeTemplate, end: str
) -> None:
    """However the run ends early."""
    if end == "credentials":
        server.default = answer(401, {"message": "no"})
    source = Input(template)
    bulk = BulkSender(make_client(limits=Limits(max_in_flight=2)))

    async def run() -> None:
        async with bulk:
            count = 0
            async for _outcome in bulk.send(source.rows()):
                count += 1
                if count < 3 or end == "credentials":
                    continue
                if end == "break":
                    break
                if end == "error":
                    raise LookupError
                if end == "reader cancelled":
                    task.cancel()
                elif count == 3:
                    (bulk.stop if end == "stop" else bulk.cancel)()

    task = asyncio.ensure_future(run())
    expected: dict[str, Any] = {
        "error": LookupError,
        "reader cancelled": asyncio.CancelledError,
        "credentials": AuthenticationError,
    }
    if end in expected:
        with pytest.raises(expected[end]):
            await task
    else:
        await task
    assert source.closed_by is source.opened_by is not None
