"""What arrives while the event loop is blocked is neither lost nor taken for another request's response."""

from __future__ import annotations

import asyncio
import select
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme

from bandwidth_mfa_async import BasicAuth, MFAClient, RetryPolicy
from tests.conftest import TO
from tests.support.certificates import serving, trusting
from tests.support.threaded_server import ThreadedServer, http_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bandwidth_mfa_async import CodeTemplate

ONCE = RetryPolicy(max_attempts=1)
LATE_YES = http_response(200, {"valid": True})
NO = http_response(200, {"valid": False})
ACCEPTED = http_response(200, {"messageId": "m-1"})

pytestmark = [
    pytest.mark.uvloop,
    pytest.mark.parametrize("way", ["direct", "documented"], indirect=True),
    pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"]),
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(tls: bool, authority: trustme.CA) -> Iterator[Callable[[bytes], tuple[ThreadedServer, dict[str, Any]]]]:
    with ExitStack() as servers:

        def start(response: bytes) -> tuple[ThreadedServer, dict[str, Any]]:
            server = servers.enter_context(ThreadedServer(response, serving(authority) if tls else None))
            options: dict[str, Any] = {"account_id": "9900000", "auth": BasicAuth("user", "pass")}
            options |= {"base_url": server.base_url, "retry": ONCE, "ssl": trusting(authority) if tls else None}
            return server, options

        yield start


def arrived(client: MFAClient) -> bool:
    """Block until the client's idle connection has something to read, as a blocking driver or a pause would."""
    session = client._executor.state.transport._session
    assert session is not None
    assert session.connector is not None
    (idle,) = session.connector._conns.values()
    transport = idle[0][0].transport
    assert transport is not None
    return bool(select.select([transport.get_extra_info("socket").fileno()], [], [], 10)[0])


@pytest.mark.parametrize(
    "unsolicited",
    [LATE_YES, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"\r\n", None],
    ids=["a late yes", "408", "bytes", "end"],
)
@pytest.mark.parametrize("borrowed", [False, True], ids=["own", "borrowed"])
async def test_a_kept_connection_with_unread_bytes_is_not_used(
    serve: Callable[[bytes], Any], unsolicited: bytes | None, borrowed: bool, template: CodeTemplate
) -> None:
    """A wrong code stays wrong, and a text is sent on another connection, however stale the loop's view is."""
    server, options = serve(NO)
    async with aiohttp.ClientSession() as session, MFAClient(**options, session=session if borrowed else None) as mfa:
        assert not (await mfa.verify_code(to=TO, code="111111")).valid
        for response, request in ((NO, "verify"), (ACCEPTED, "send")):
            if unsolicited is None:
                server.connections[-1].end()
            else:
                server.connections[-1].write(unsolicited)
            assert arrived(mfa)
            server.response = response
            if request == "verify":
                assert not (await mfa.verify_code(to=TO, code="222222")).valid
            else:
                sent = await mfa.generate_messaging_code(template.to(TO))
                assert (sent.message_id, sent.meta.possible_duplicate) == ("m-1", False)
    assert server.requests == 3
    assert len(server.connections) == 3


async def test_a_response_that_waits_in_the_socket_wins_over_a_late_timer(
    serve: Callable[[bytes], Any], template: CodeTemplate
) -> None:
    """The loop is blocked past the attempt's timeout; the response arrived in time, and is read."""
    server, options = serve(ACCEPTED)
    options["retry"] = RetryPolicy(max_attempts=1, attempt_timeout=0.2, timeout=10)
    async with MFAClient(**options) as mfa:
        await mfa.generate_messaging_code(template.to(TO))
        server.written.acquire()
        server.hold()
        task = asyncio.ensure_future(mfa.generate_messaging_code(template.to(TO)))
        while server.requests < 2:
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        began = loop.time()
        server.answer()
        while time.monotonic() - began < 0.3:  # the loop is blocked past the timeout
            pass
        assert (await task).message_id == "m-1"
