"""Rows 10 to 36 of the fault table, except 11 and 34: responses, and what arrives instead of one."""

from __future__ import annotations

import asyncio
import email.utils
from typing import TYPE_CHECKING

import pytest

from bandwidth_mfa_async import (
    APIStatusError,
    Delivery,
    RateLimitError,
    ReadTimeoutError,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
    _wire,
)
from tests.integration.faults.answers import FAULTS, NEVER, ODD_SUCCESSES, OWN_ERROR, READERS, WAITS, Fault
from tests.integration.faults.watch import ACCEPTED, MATRIX, Watch, prepare, send
from tests.support.fault_server import OK_BODY, Act, FaultServer, answer, reply

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

pytestmark = [*MATRIX, pytest.mark.parametrize("way", ["direct", "documented"], indirect=True)]

ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{fault.row} {fault.name}" for fault in FAULTS])
async def test_a_fault_has_one_meaning(
    server: FaultServer, make_client: MakeClient, watch: Watch, fault: Fault, warm: bool
) -> None:
    """On a new connection and on a kept one; a response that the server has ended is not waited for."""
    client = make_client(retry=ONCE)
    await prepare(server, client, warm=warm, keep=not fault.act.on_accept)
    server.play(fault.act)
    error = await watch.of(send(client), client, server)
    whole = fault.act.read == "all" and not fault.act.on_accept
    await watch.shows(
        outcome=(fault.error, fault.delivery), ledger=(whole, fault.act.accepted), pool=int(fault.kept), elapsed=0
    )
    assert (error.attempts, error.operation) == (1, "generate_messaging_code")
    assert not (fault.act.accepted and error.delivery is not Delivery.UNKNOWN), (
        "a text was sent and not reported as unknown"
    )
    await watch.serves_again()


@pytest.mark.parametrize(
    ("act", "message_id", "pool"),
    [row[2:] for row in ODD_SUCCESSES],
    ids=[f"{row[0]} {row[1]}" for row in ODD_SUCCESSES],
)
async def test_an_unusual_success_is_accepted(
    server: FaultServer, make_client: MakeClient, watch: Watch, act: Act, message_id: str, pool: int, warm: bool
) -> None:
    """The id is read, nothing is sent twice, and the next call gets its own response."""
    client = make_client()
    await prepare(server, client, warm=warm)
    server.play(act)
    response = await watch.of(send(client), client, server)
    await watch.shows(outcome=ACCEPTED, ledger=(1, 1), pool=pool, elapsed=0)
    assert response.message_id == message_id
    assert (response.meta.attempts, response.meta.possible_duplicate) == (1, False)
    await watch.serves_again()


@pytest.mark.parametrize("faster", [True, False], ids=["orjson", "json"])
@pytest.mark.parametrize(("body", "readers"), READERS.values(), ids=READERS)
async def test_json_on_which_parsers_differ(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    readers: str,
    faster: bool,
    warm: bool,
) -> None:
    """Accepted with its id by a parser that can read it, and unknown with one that cannot."""
    if faster:
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(_wire._json, "orjson", None)
    client = make_client(retry=ONCE)
    await prepare(server, client, warm=warm)
    server.play(answer(200, body))
    result = await watch.of(send(client), client, server)
    readable = ("orjson" if faster else "json") in readers.split()
    outcome = ACCEPTED if readable else (ResponseDecodeError, Delivery.UNKNOWN)
    await watch.shows(outcome=outcome, ledger=(1, 1), pool=1, elapsed=0)
    assert not readable or result.message_id == "x"


@pytest.mark.parametrize("act", [row[2] for row in NEVER], ids=[f"{row[0]} {row[1]}" for row in NEVER])
async def test_a_response_that_does_not_arrive_is_unknown(
    server: FaultServer, make_client: MakeClient, watch: Watch, act: Act, warm: bool
) -> None:
    """`attempt_timeout` covers head and body to the last byte; the half-read connection is not used again."""
    client = make_client(retry=RetryPolicy(attempt_timeout=30.0))
    await prepare(server, client, warm=warm)
    server.play(act)
    error = await watch.of(send(client), client, server)
    outcome = (ReadTimeoutError, Delivery.UNKNOWN)
    await watch.shows(outcome=outcome, ledger=(1, act.accepted), pool=0, elapsed=30.0)
    assert error.retry_stopped_by is None, "an unknown outcome is not repeated, so nothing was stopped"
    await watch.serves_again()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    server: FaultServer, make_client: MakeClient, watch: Watch, status: int, warm: bool
) -> None:
    """Neither body nor credentials go to the redirect's target."""
    client = make_client()
    await prepare(server, client, warm=warm)
    async with FaultServer() as elsewhere:
        server.play(answer(status, b"", headers={"Location": f"{elsewhere.base_url}/stolen"}))
        error = await watch.of(send(client), client, server)
        outcome = (APIStatusError, Delivery.UNKNOWN if status == 303 else Delivery.REJECTED)
        await watch.shows(outcome=outcome, ledger=(1, 0), pool=1, elapsed=0)
        assert (error.attempts, elsewhere.accepted_connections) == (1, 0)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("value", "elapsed"), WAITS.values(), ids=WAITS)
async def test_retry_after_is_a_lower_bound(
    server: FaultServer,
    make_client: MakeClient,
    watch: Watch,
    value: str,
    elapsed: tuple[float, float],
    status: int,
    warm: bool,
) -> None:
    """A wait that the service asks for is kept, plus at most 10 %; invalid values are ignored."""
    # A date is relative to the response's own: this server's clock is ten years slow.
    headers = {"Retry-After": value, "Date": email.utils.formatdate(1_400_000_000, usegmt=True)}
    client = make_client(retry=RetryPolicy(wait_initial=0.25))
    await prepare(server, client, warm=warm)
    server.play(answer(status, OWN_ERROR, headers=headers))
    response = await watch.of(send(client), client, server)
    await watch.shows(outcome=ACCEPTED, ledger=(2, 1), pool=1, elapsed=elapsed)
    assert (response.meta.attempts, response.meta.possible_duplicate) == (2, False)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "stopped"), [("1e9", "retry_after"), ("1" + "0" * 20, "retry_after"), ("61", "retry_after"), ("30", "")]
)
async def test_a_retry_after_that_is_too_long_is_raised_immediately(
    server: FaultServer, make_client: MakeClient, watch: Watch, value: str, stopped: str, status: int, warm: bool
) -> None:
    """Longer than `max_retry_after` or than the call's remaining time: the error is raised before the wait."""
    client = make_client(retry=RetryPolicy(timeout=60.0 if stopped else 20.0))
    await prepare(server, client, warm=warm)
    server.play(answer(status, OWN_ERROR, headers={"Retry-After": value}))
    error = await watch.of(send(client), client, server)
    outcome = (RateLimitError if status == 429 else ServerError, Delivery.REJECTED)
    await watch.shows(outcome=outcome, ledger=(1, 0), pool=1, elapsed=0)
    assert (error.retry_stopped_by, error.retry_after) == (stopped or "deadline", float(value))


FORGED = reply(200, {"messageId": "FORGED"})


@pytest.mark.parametrize(
    "acts",
    [
        [Act(reply() + FORGED, accepted=True)],
        [answer(), Act(FORGED, read="nothing", delay=1.0)],
        [answer(), Act(reply(408, b""), read="nothing", delay=1.0)],
        [answer(), Act(b"bye", read="nothing", delay=1.0)],
    ],
    ids=["in one piece with ours", "while idle", "408 while idle", "no HTTP while idle"],
)
async def test_an_unsolicited_response_is_discarded(
    server: FaultServer, make_client: MakeClient, watch: Watch, acts: list[Act], warm: bool
) -> None:
    """Bytes after one response are not taken for the next one."""
    client = make_client()
    await prepare(server, client, warm=warm)
    server.play(*acts)
    assert (await send(client)).message_id == OK_BODY["messageId"]
    await asyncio.sleep(1.5)
    response = await watch.of(send(client), client, server)
    await watch.shows(outcome=ACCEPTED, ledger=(1, 1), pool=1, elapsed=0)
    assert response.message_id == OK_BODY["messageId"]
    assert server.accepted_connections == 2, "the connection with the unsolicited response was used"
