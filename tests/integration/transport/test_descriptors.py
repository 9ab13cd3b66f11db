"""A process that is out of file descriptors gets errors that say what is known of each text, and recovers."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from tests.support import processes
from tests.support.fault_server import Act, FaultServer, answer

if TYPE_CHECKING:
    from typing import Any


async def test_a_failure_opens_no_file_and_imports_nothing(server: FaultServer) -> None:
    """Neither a retry nor an error needs one; a bulk run goes on to its end."""
    server.play(
        answer(),
        answer(500, {"error": "Internal Error"}),
        answer(),
        answer(400, {"error": "no", "requestId": "r-1"}),
        answer(429, {"error": "slow down"}, headers={"Retry-After": "Sun Nov  6 08:49:37 1994"}),
        answer(),
        Act(then="fin"),
    )
    command = (sys.executable, "-m", "tests.support.out_of_descriptors", server.base_url)
    async with processes.running_async(*command, stdout=processes.PIPE) as process:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    found: dict[str, Any] = json.loads(output)
    assert {name: value[:2] for name, value in found.items() if isinstance(value, list) and len(value) == 3} == {
        "first": ["MessagingCodeResponse", "accepted"],
        "retried": ["MessagingCodeResponse", "accepted"],
        "rejected": ["BadRequestError", "rejected"],
        "date": ["MessagingCodeResponse", "accepted"],
        "unknown": ["DeliveryUnknownError", "unknown"],
        "not sent": ["NotSentError", "not_sent"],
        "last": ["MessagingCodeResponse", "accepted"],
    }, found
    assert "errno 24" in found["not sent"][2]
    assert found["bulk"] == ["not_sent"] * 20
    assert found["ending"] == "finished"
    assert found["imports"] == []
