"""`CredentialChain`: which kind of credentials a call uses, and when it changes."""

from __future__ import annotations

import asyncio
import logging
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    ConfigurationError,
    CredentialChain,
    Delivery,
    MFAClient,
    NotSentError,
    OAuth2ClientCredentials,
    PermissionDeniedError,
    RequestError,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async.telemetry import CredentialSwitchedEvent
from bandwidth_mfa_async.testing import ManualClock
from tests.conftest import TO
from tests.support.clients import Recorder
from tests.support.credential_server import BASIC, CredentialServer

if TYPE_CHECKING:
    import pathlib
    from collections.abc import AsyncIterator, Callable

    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
async def service() -> AsyncIterator[CredentialServer]:
    async with CredentialServer() as server:
        yield server


@pytest.fixture
def chained(service: CredentialServer, make_client: MakeClient) -> Callable[..., MFAClient]:
    def make(**options: Any) -> MFAClient:
        return make_client(**{"auth": service.chain(), "base_url": f"{service.origin}/api/v1", **options})

    return make


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("working", ["oauth2", "basic"])
async def test_a_call_is_made_with_the_kind_that_works(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, working: str
) -> None:
    """The first call may be rejected once; later ones use the kind that worked. No attempt of the policy is used."""
    service.only(working)
    client = chained(retry=ONCE)
    for _ in range(5):
        sent = await client.generate_messaging_code(template.to(TO))
        assert (sent.meta.credential, sent.meta.possible_duplicate) == (working, False)
    rejected = 0 if working == "oauth2" else 1
    assert service.count("messaging", status=200) == 5
    assert service.count("messaging", status=403) == rejected


async def test_a_switch_has_one_event_and_one_warning(
    service: CredentialServer,
    chained: Callable[..., MFAClient],
    template: CodeTemplate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Fifty calls in flight at the switch are all accepted; the next ones are not rejected first."""
    events: list[Any] = []
    client = chained(hooks=[SimpleNamespace(on_event=events.append)])
    await client.generate_messaging_code(template.to(TO))
    service.only("basic")
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(50)))
    rejected = service.count("messaging", status=403)
    assert 1 <= rejected <= 100  # a rejected token that had worked is renewed once
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(50)))
    assert service.count("messaging", status=403) == rejected
    switched = [event for event in events if isinstance(event, CredentialSwitchedEvent)]
    assert switched == [
        CredentialSwitchedEvent(operation="generate_messaging_code", previous="oauth2", current="basic", status=403)
    ]
    assert len(warnings(caplog)) == 1
    assert "hunter" not in caplog.text


async def test_the_preferred_kind_is_probed_and_used_again(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """One call in 300 s tries it; a rejected probe costs that call one request."""
    clock = ManualClock()
    client = chained(clock=clock)
    service.only("basic")
    for _ in range(3):
        await client.generate_messaging_code(template.to(TO))
    assert service.count("messaging", "oauth2") == 1
    clock.tick(300)
    for _ in range(3):
        assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    assert service.count("messaging", "oauth2") == 2
    service.only("oauth2", "basic")
    clock.tick(300)
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "oauth2"
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "oauth2"


async def test_a_probe_waits_for_no_token(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The token is fetched in the background, and the call that finds it is the probe."""
    clock = ManualClock()
    client = chained(clock=clock)
    service.fail["token"] = (503, {})
    await client.generate_messaging_code(template.to(TO))
    tokens = service.count("token")
    for _ in range(3):
        await client.generate_messaging_code(template.to(TO))
    assert service.count("token") == tokens
    service.hang.add("token")
    clock.tick(300)
    for _ in range(3):
        assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    assert service.count("token") == tokens + 1


async def test_a_rejected_probe_waits_for_no_token(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The token that the service rejects is renewed in the background."""
    clock = ManualClock()
    client = chained(clock=clock)
    service.only("basic")
    await client.generate_messaging_code(template.to(TO))
    service.hang.add("token")
    clock.tick(300)
    async with asyncio.timeout(10):  # the clock stands still, so a wait for the token would not end
        assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    assert service.count("messaging", "oauth2") == 2


@pytest.mark.virtual_time
@pytest.mark.parametrize(("timeout", "wait"), [(60.0, 5.0), (6.0, 2.0)])
async def test_a_token_endpoint_that_hangs_costs_one_call_a_bounded_wait(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, timeout: float, wait: float
) -> None:
    """At most 5 s or a third of the call's time; later calls do not wait."""
    service.hang.add("token")
    client = chained()
    first = await client.generate_messaging_code(template.to(TO), timeout=timeout)
    second = await client.generate_messaging_code(template.to(TO), timeout=timeout)
    assert wait <= first.meta.elapsed < wait + 0.5
    assert second.meta.elapsed < 0.5
    assert (first.meta.credential, second.meta.credential) == ("basic", "basic")


@pytest.mark.parametrize("failure", [(401, {"error": "invalid_client"}), (500, {}), (200, {"no": "token"})])
async def test_without_a_token_the_other_kind_is_used(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, failure: Any
) -> None:
    """Whatever the token endpoint answers; it is not asked again for each call."""
    service.fail["token"] = failure
    client = chained(retry=ONCE)
    for _ in range(20):
        assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    assert service.count("token") == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_failure_of_the_service_does_not_switch(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, status: int
) -> None:
    """The other kind is not asked, whatever the failure."""
    service.fail["messaging"] = (status, {"error": "failed", "requestId": "x"})
    client = chained(retry=RetryPolicy(max_attempts=3, wait_initial=0.001, wait_max=0.002))
    for _ in range(3):
        with pytest.raises(RequestError):
            await client.generate_messaging_code(template.to(TO))
    assert service.count("messaging", "basic") == 0
    assert service.count("messaging", "oauth2") >= 3


@pytest.mark.virtual_time
async def test_a_timeout_does_not_switch(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """An attempt with an unknown outcome is repeated under AT_LEAST_ONCE only, with the same kind."""
    service.hang.add("messaging")
    client = chained(retry=RetryPolicy(attempt_timeout=1.0, timeout=20.0, resend=Resend.AT_LEAST_ONCE))
    with pytest.raises(RequestError) as caught:
        await client.generate_messaging_code(template.to(TO))
    assert caught.value.delivery is Delivery.UNKNOWN
    assert (service.count("messaging", "basic"), service.count("messaging", "oauth2")) == (0, 3)


async def test_both_rejected_is_one_error_with_both_answers_and_a_pause(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The error survives pickling; calls in the next five seconds are not made; afterwards both are tried again."""
    clock = ManualClock()
    client = chained(clock=clock)
    service.only()
    with pytest.raises(PermissionDeniedError) as caught:
        await client.generate_messaging_code(template.to(TO))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value)), type(caught.value)(*caught.value.args)):
        assert "forbidden for oauth2" in str(error)
        assert "forbidden for basic" in str(error)
        assert (error.delivery, error.attempts) == (Delivery.REJECTED, 2)
    for _ in range(20):
        with pytest.raises(NotSentError, match=r"forbidden for oauth2.*forbidden for basic") as paused:
            await client.generate_messaging_code(template.to(TO))
    assert paused.value.retry_after == pytest.approx(5.0)
    assert (paused.value.retry_stopped_by, paused.value.attempts) == ("credentials", 0)
    assert service.count("messaging") == 2
    clock.tick(5)
    service.only("basic")
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"


async def test_an_operation_that_is_forbidden_does_not_disturb_the_others(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """Voice is forbidden for both kinds; messaging stays with its own, and its credentials are not paused."""
    client = chained()
    service.accepts["voice"] = set()
    for _ in range(10):
        assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "oauth2"
        with pytest.raises(RequestError):
            await client.generate_voice_code(template.to(TO))
        assert (await client.verify_code(to=TO, code="123456")).valid
    assert service.count("messaging") == service.count("messaging", "oauth2", 200) == 10
    assert service.count("token") == 1


async def test_one_rejection_among_successes_pauses_nothing(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The service may forbid one request, such as one with another's number."""
    client = chained()
    await client.generate_messaging_code(template.to(TO))
    service.accepts["messaging"] = {"basic"}
    await client.generate_messaging_code(template.to(TO))
    service.only()
    with pytest.raises(PermissionDeniedError):
        await client.generate_messaging_code(template.to(TO))
    service.only("basic", "oauth2")
    await client.generate_messaging_code(template.to(TO))


async def test_a_proxys_rejection_does_not_switch_for_good(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """Its page is not the service's error: the call is made with the other kind, and the next one with the first."""
    client = chained()
    service.fail["messaging"] = (403, ["a page"])
    with pytest.raises(PermissionDeniedError):
        await client.generate_messaging_code(template.to(TO))
    assert service.count("messaging") == 2
    service.fail.clear()
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "oauth2"


async def test_a_thousand_sign_ins_with_rejected_credentials_are_cheap(
    service: CredentialServer,
    chained: Callable[..., MFAClient],
    template: CodeTemplate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At most ten token requests, and each error names both answers."""
    service.only()
    client = chained()
    for _ in range(20):
        results = await asyncio.gather(
            *(client.generate_messaging_code(template.to(TO)) for _ in range(50)), return_exceptions=True
        )
        assert all("forbidden for oauth2" in str(error) and "forbidden for basic" in str(error) for error in results)
    assert service.count("token") <= 10
    assert service.count("messaging") <= 150
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize("pair", [(BASIC, BASIC), (OAuth2ClientCredentials("i", "s"),) * 2, (BASIC, "token")])
def test_a_chain_has_one_of_each_kind(pair: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigurationError, match="one BasicAuth and one OAuth2ClientCredentials"):
        CredentialChain(*pair)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "300", True])
def test_the_probe_interval_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="probe_after"):
        CredentialChain(OAuth2ClientCredentials("i", "s"), BASIC, probe_after=seconds)


@pytest.mark.parametrize("kind", ["function", "async function"])
async def test_a_rotated_password_needs_no_restart(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, kind: str
) -> None:
    """The provider is asked before the first call and after a rejection, once for all calls."""
    asked = 0

    def provide() -> BasicAuth:
        nonlocal asked
        asked += 1
        return BasicAuth("user", service.password)

    async def provide_later() -> BasicAuth:
        await asyncio.sleep(0)
        return provide()

    client = chained(auth=provide if kind == "function" else provide_later, retry=ONCE)
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(50)))
    assert asked == 1
    service.password = "rotated"
    await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(50)))
    assert asked == 2
    assert service.count("messaging", status=200) == 100


async def test_a_password_in_a_file_is_read_again(
    service: CredentialServer, template: CodeTemplate, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte-order mark and a line end are not part of the password."""
    path = tmp_path / "password"
    variables = {"ACCOUNT_ID": "9", "USERNAME": "user", "PASSWORD_FILE": str(path)}
    for name, value in {**variables, "MFA_URL": f"{service.origin}/api/v1"}.items():
        monkeypatch.setenv(f"BW_{name}", value)
    service.only("basic")
    await asyncio.to_thread(path.write_bytes, b"\xef\xbb\xbfhunter2\r\n")
    async with await asyncio.to_thread(MFAClient.from_env) as client:
        await client.generate_messaging_code(template.to(TO))
        service.password = "rotated"
        await asyncio.to_thread(path.write_bytes, b"rotated\n")
        await asyncio.gather(*(client.generate_messaging_code(template.to(TO)) for _ in range(10)))
    assert service.count("messaging", status=200) == 11


async def test_a_provider_that_has_nothing_new_is_not_asked_by_every_call(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """At most every five seconds."""
    asked = 0
    clock = ManualClock()

    def provide() -> BasicAuth:
        nonlocal asked
        asked += 1
        return BASIC

    service.only()
    client = chained(auth=provide, clock=clock)
    for _ in range(20):
        with pytest.raises(PermissionDeniedError):
            await client.generate_messaging_code(template.to(TO))
    assert asked == 2
    clock.tick(5)
    with pytest.raises(PermissionDeniedError):
        await client.generate_messaging_code(template.to(TO))
    assert asked == 3


async def test_the_provider_is_asked_before_a_chain_switches(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """A new password is used at once; the chain does not leave Basic."""
    service.only("basic")
    chain = service.chain()

    def provide() -> CredentialChain:
        return CredentialChain(BasicAuth("user", service.password), chain.first)

    client = chained(auth=provide)
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    service.password = "rotated"
    assert (await client.generate_messaging_code(template.to(TO))).meta.credential == "basic"
    assert service.count("messaging", "oauth2") == service.count("token") == 0


@pytest.mark.virtual_time
@pytest.mark.parametrize(("timeout", "wait"), [(60.0, 5.0), (6.0, 2.0)])
async def test_a_provider_that_hangs_costs_one_call_of_a_chain_a_bounded_wait(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate, timeout: float, wait: float
) -> None:
    """The call then uses the other kind, and so do later ones, without asking."""
    asked = 0

    async def provide() -> CredentialChain:
        nonlocal asked
        asked += 1
        if asked > 1:
            await asyncio.Event().wait()
        return service.chain()

    service.only("basic")
    client = chained(auth=provide)
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = await client.generate_messaging_code(template.to(TO), timeout=timeout)
    assert (sent.meta.credential, loop.time() - began) == ("basic", pytest.approx(wait, abs=0.1))
    began = loop.time()
    await client.generate_messaging_code(template.to(TO), timeout=timeout)
    assert (asked, loop.time() - began) == (2, pytest.approx(0, abs=0.1))


async def test_a_provider_that_fails_sends_nothing(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The error names the exception's type and not its text; later the old credentials stay in use."""
    broken = True

    def provide() -> BasicAuth:
        if broken:
            raise OSError("vault token hunter2 expired")
        return BASIC

    client = chained(auth=provide, retry=ONCE)
    with pytest.raises(NotSentError, match="the auth provider raised OSError") as caught:
        await client.generate_messaging_code(template.to(TO))
    assert "hunter2" not in str(caught.value)
    broken = False
    await client.generate_messaging_code(template.to(TO))
    broken = True
    service.only()
    with pytest.raises(PermissionDeniedError):
        await client.generate_messaging_code(template.to(TO))
    service.only("basic")
    await client.generate_messaging_code(template.to(TO))


async def test_a_provider_must_return_credentials(chained: Callable[..., MFAClient], template: CodeTemplate) -> None:
    client = chained(auth=lambda: "a token")
    with pytest.raises(ConfigurationError, match="auth: the provider: must be BasicAuth"):
        await client.generate_messaging_code(template.to(TO))


async def test_closing_ends_a_question_to_the_provider(
    chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """A provider that hangs does not keep the client open."""
    asked = asyncio.Event()

    async def provide() -> BasicAuth:
        asked.set()
        await asyncio.Event().wait()
        return BASIC

    client = chained(auth=provide)
    call = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    await asked.wait()
    await client.aclose(drain_timeout=0)
    with pytest.raises(NotSentError) as caught:
        await call
    assert caught.value.retry_stopped_by == "closed"


async def test_a_rejected_attempt_is_reported_although_its_call_is_cancelled(
    service: CredentialServer, chained: Callable[..., MFAClient], template: CodeTemplate
) -> None:
    """The attempt has ended when the call waits for other credentials: it keeps its own error."""
    service.only("oauth2")
    asked, hook = asyncio.Event(), Recorder()

    async def provide() -> BasicAuth:
        if service.count("messaging", status=403):
            asked.set()
            await asyncio.Event().wait()
        return BASIC

    client = chained(auth=provide, hooks=[hook])
    call = asyncio.create_task(client.generate_messaging_code(template.to(TO)))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [(event.status, event.error_type) for event in hook.attempts] == [(403, "PermissionDeniedError")]
    assert [event.error_type for event in hook.calls] == ["CancelledError"]


async def test_setting_an_attribute_is_refused(chained: Callable[..., MFAClient]) -> None:
    """`client.auth = ...` would have no effect."""
    client = chained()
    with pytest.raises(AttributeError, match="auth= may be a function"):
        client.auth = BASIC  # type: ignore[attr-defined]
