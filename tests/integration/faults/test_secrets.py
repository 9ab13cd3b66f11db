"""Row 56 of the fault table: no error shows a secret, even if the service repeats what it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BasicAuth,
    CodeTemplate,
    Delivery,
    DisconnectedError,
    Limits,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RequestError,
    Resend,
    ResponseDecodeError,
    RetryPolicy,
    ServerError,
)
from tests.integration.faults.watch import MATRIX, Watch
from tests.integration.test_redaction import FAULTS
from tests.support.fault_server import FaultServer
from tests.support.secrets import SENTINELS, assert_clean, everything

if TYPE_CHECKING:
    from tests.support.clients import MakeClient

pytestmark = MATRIX

# For each fault of the redaction test's table: the error, the delivery, and the attempts under AT_LEAST_ONCE.
ENDS: dict[str, tuple[type[RequestError], Delivery, int]] = {
    "400": (BadRequestError, Delivery.REJECTED, 1),
    "401": (AuthenticationError, Delivery.REJECTED, 1),
    "403": (PermissionDeniedError, Delivery.REJECTED, 1),
    "404": (NotFoundError, Delivery.REJECTED, 1),
    "429": (RateLimitError, Delivery.REJECTED, 3),
    "500": (ServerError, Delivery.REJECTED, 3),
    "502": (ServerError, Delivery.UNKNOWN, 3),
    "302": (APIStatusError, Delivery.REJECTED, 1),
    "200 HTML": (ResponseDecodeError, Delivery.UNKNOWN, 3),
    "200 echo": (ResponseDecodeError, Delivery.UNKNOWN, 3),
    "not HTTP": (ResponseDecodeError, Delivery.UNKNOWN, 3),
    "truncated": (DisconnectedError, Delivery.UNKNOWN, 3),
    "bad header": (ResponseDecodeError, Delivery.UNKNOWN, 3),
    "cut": (DisconnectedError, Delivery.UNKNOWN, 3),
    "reset": (DisconnectedError, Delivery.UNKNOWN, 3),
}
BROKEN = {"not HTTP", "truncated", "bad header", "cut", "reset"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_error_shows_a_secret(
    server: FaultServer, make_client: MakeClient, watch: Watch, fault: str, warm: bool
) -> None:
    """Neither the error, its chain and notes, nor its pickle and traceback."""
    client = make_client(
        auth=BasicAuth(SENTINELS["username"], SENTINELS["password"]),
        limits=Limits(adaptive=False),  # which would wait after a 429
        retry=RetryPolicy(wait_initial=0.0, resend=Resend.AT_LEAST_ONCE),
    )
    request = CodeTemplate(SENTINELS["from_"], "app", "login", SENTINELS["message"]).to(SENTINELS["to"])
    if warm:
        await client.generate_messaging_code(request)
    server.default = FAULTS[fault]
    error: Any = await watch.of(client.generate_messaging_code(request), client, server)
    kind, delivery, attempts = ENDS[fault]
    await watch.shows(
        outcome=(kind, delivery),
        ledger=(attempts, attempts * FAULTS[fault].accepted),
        pool=int(fault not in BROKEN),
        elapsed=0,
    )
    assert error.attempts == attempts
    assert_clean(everything(error), fault)
