"""Bandwidth's own Python SDK works with the simulator as with the real service."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.simulator.conftest import TO

if TYPE_CHECKING:
    from collections.abc import Callable

with warnings.catch_warnings():
    # Its generated models use names that pydantic 2 deprecates.
    warnings.simplefilter("ignore")
    bandwidth = pytest.importorskip("bandwidth")
    from bandwidth.exceptions import ApiException, ForbiddenException, UnauthorizedException

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:bandwidth")


@pytest.fixture
def call(sim):
    """Call one method of the official SDK in a thread, by default with valid credentials."""

    async def run(operation: Callable[[Any], Any], credentials: dict[str, str] | None = None) -> Any:
        if credentials is None:
            credentials = {"username": sim.username, "password": sim.password}

        def work() -> Any:
            # Without ignore_operation_servers it uses MFA's real host and ignores `host`.
            configuration = bandwidth.Configuration(
                host=sim.base_url, ignore_operation_servers=True, retries=0, **credentials
            )
            with bandwidth.ApiClient(configuration) as client:
                return operation(bandwidth.MFAApi(client))

        return await asyncio.to_thread(work)

    return run


def _code_request(**changes: Any) -> Any:
    values = {
        "to": TO,
        "from": "+19195554321",
        "applicationId": "93de2206-9669-4e07-948d-329f4b722ee2",
        "scope": "login",
        "message": "Your {NAME} {SCOPE} code is {CODE}",
        "digits": 6,
    }
    return bandwidth.CodeRequest.from_dict(values | changes)


def _check(code: str) -> Any:
    return bandwidth.VerifyCodeRequest(to=TO, scope="login", expiration_time_in_minutes=3, code=code)


async def test_messaging_voice_and_verify_work(sim, call):
    sent = await call(lambda mfa: mfa.generate_messaging_code("9900000", _code_request()))
    assert sent.message_id == sim.inbox[0].message_id
    called = await call(lambda mfa: mfa.generate_voice_code("9900000", _code_request()))
    assert called.call_id == sim.inbox[1].call_id
    for message in list(sim.inbox):
        verified = await call(lambda mfa, code=message.code: mfa.verify_code("9900000", _check(code)))
        assert verified.valid is True


async def test_wrong_codes_lock_the_number_until_the_lock_expires(sim, call, clock):
    await call(lambda mfa: mfa.generate_messaging_code("9900000", _code_request()))
    code = sim.last_code(TO)
    wrong = "000000" if code != "000000" else "000001"
    for _ in range(5):
        assert (await call(lambda mfa: mfa.verify_code("9900000", _check(wrong)))).valid is False
    with pytest.raises(ApiException) as locked:
        await call(lambda mfa: mfa.verify_code("9900000", _check(code)))
    assert locked.value.status == 429
    assert "please wait 2 minutes" in locked.value.body
    clock.tick(35)
    assert (await call(lambda mfa: mfa.verify_code("9900000", _check(code)))).valid is True


async def test_missing_credentials_get_401_and_wrong_ones_403(sim, call):
    with pytest.raises(UnauthorizedException) as unauthorized:
        await call(lambda mfa: mfa.generate_messaging_code("9900000", _code_request()), {})
    assert unauthorized.value.status == 401
    with pytest.raises(ForbiddenException) as forbidden:
        await call(
            lambda mfa: mfa.generate_messaging_code("9900000", _code_request()),
            {"username": "bad", "password": "wrong"},
        )
    assert forbidden.value.status == 403
    assert not sim.inbox
