"""Settings: each bad one is refused by name before any I/O."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    ConfigurationError,
    Limits,
    MFAClient,
    OAuth2ClientCredentials,
    Rate,
    Resend,
    RetryPolicy,
)
from bandwidth_mfa_async._client._environment import settings_from_env


@pytest.mark.parametrize("kind", [BasicAuth, OAuth2ClientCredentials])
@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("", "p", "empty"),
        ("u", "", "empty"),
        (b"u", "p", "decode"),
        ("u", b"p", "decode"),
        ("u", None, "must be str"),
        ("u", "pa\nss", "control"),
        ("u\r", "p", "control"),
        ("u:x", "p", "':'"),
        ("u", "p\ud800", "UTF-8"),
    ],
)
def test_bad_credentials(kind: type, first: Any, second: Any, says: str) -> None:
    """The error says which one and what to do, and shows neither."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        kind(first, second)
    assert "pa\nss" not in str(caught.value)


def test_the_header_is_utf8_basic() -> None:
    """RFC 7617; a colon may stand in the password."""
    assert BasicAuth("user", "p:ä").header == "Basic dXNlcjpwOsOk"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://mfa.bandwidth.com/api/v1", "https"),
        ("http://10.0.0.1/api/v1", "https"),
        ("http://127.0.0.1.example.com/", "https"),
        ("http://evil-localhost/", "https"),
        ("ftp://mfa.bandwidth.com", "https"),
        ("mfa.bandwidth.com", "https"),
        ("https://", "https"),
        ("https://user:pw@mfa.bandwidth.com", "credentials"),
        ("https://mfa.bandwidth.com/?x=1", "query"),
        ("https://mfa.bandwidth.com/api/v1?", "query"),
        ("https://mfa.bandwidth.com/api/v1/#", "fragment"),
        ("https://mfa.bandwidth.com#", "fragment"),
        ("https://mfa.bandwidth.com/a b", "white space"),
        ("https://mfa.bandwidth.com\\evil", "letters, digits"),
        ("https://mfa.bandwidth.com%2f.example.com", "letters, digits"),
        ("https://mfa..example.com", "letters, digits"),
        ("http://evil.example%00.localhost", "letters, digits"),
        ("http://evil.example;.localhost", "letters, digits"),
        ("http://.localhost", "not a URL|letters, digits"),
        ("https://xn--a", "not a URL"),
        ("https://m\xfcnchen.example", "xn--"),
        ("https://[::1", "not a URL"),
        ("https://x:99999/", "not a URL"),
        (None, "must be str"),
    ],
)
def test_bad_base_url(url: Any, says: str) -> None:
    """Credentials go over plain http to this machine only."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        MFAClient("9900000", BasicAuth("u", "p"), base_url=url)
    assert "pw" not in str(caught.value)
    assert "base_url" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/x",
        "http://127.3.2.1/",
        "http://[::1]:8080",
        "https://x.example",
        "https://x.example.:8443/",
        "https://XN--MNCHEN-3YA.example",
        "https://mfa_gateway:8443/api/v1",
    ],
)
def test_good_base_url(url: str) -> None:
    """Loopback may be plain; anything may be https."""
    MFAClient("9900000", BasicAuth("u", "p"), base_url=url)


@pytest.mark.parametrize(
    "account_id", ["", "..", "a/b", "../admin", "a b", "9900000\n", "x" * 65, 9900000, None, "%2e"]
)
def test_bad_account_id(account_id: Any) -> None:
    """It stands in a path, so nothing in it may change the path."""
    with pytest.raises(ConfigurationError, match="account_id"):
        MFAClient(account_id, BasicAuth("u", "p"))


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("auth", ("u", "p"), "BasicAuth"),
        ("auth", None, "BasicAuth"),
        ("retry", 3, "RetryPolicy"),
        ("limits", 5, "Limits"),
        ("session", object(), "ClientSession"),
        ("ssl", False, "SSLContext"),
        ("proxy", 8080, "proxy"),
        ("proxy", "socks5://x", "proxy"),
        ("proxy", "http://", "proxy"),
        ("proxy", "http://xn--a:3128", "proxy"),
    ],
)
def test_bad_client_argument(argument: str, value: Any, says: str) -> None:
    """Each names the argument and what it takes."""
    settings: dict[str, Any] = {"account_id": "9900000", "auth": BasicAuth("u", "p")}
    with pytest.raises(ConfigurationError, match=says) as caught:
        MFAClient(**(settings | {argument: value}))
    assert str(caught.value).startswith(argument)


def test_a_proxy_needs_https() -> None:
    """A proxy for plain http would read the credentials."""
    with pytest.raises(ConfigurationError, match="https base_url"):
        MFAClient("9", BasicAuth("u", "p"), base_url="http://127.0.0.1:1/x", proxy="http://127.0.0.1:3128")
    MFAClient("9", BasicAuth("u", "p"), proxy="http://127.0.0.1:3128", ssl=ssl.create_default_context())


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"wait_initial": -1},
        {"wait_max": float("nan")},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"timeout": "60"},
        {"attempt_timeout": -1},
        {"connect_timeout": 0},
        {"max_retry_after": -0.1},
        {"resend": "rejected"},
    ],
    ids=str,
)
def test_bad_retry_policy(bad: dict[str, Any]) -> None:
    """A value that cannot work is refused by name."""
    with pytest.raises(ConfigurationError, match=f"^{next(iter(bad))}: "):
        RetryPolicy(**bad)


def test_retry_defaults() -> None:
    """The defaults are part of the contract."""
    assert RetryPolicy() == RetryPolicy(
        max_attempts=3,
        wait_initial=0.5,
        wait_max=8.0,
        timeout=60.0,
        attempt_timeout=30.0,
        connect_timeout=5.0,
        max_retry_after=60.0,
        resend=Resend.REJECTED,
    )


@pytest.mark.parametrize(
    ("text", "per_second"), [("60/m", 1.0), ("5/s", 5.0), ("3600/h", 1.0), (" 1.5 / 2 min ", 0.0125), ("10/5s", 2.0)]
)
def test_rates(text: str, per_second: float) -> None:
    """A rate may be written as people say it."""
    assert Rate.parse(text).per_second == pytest.approx(per_second)
    assert Limits(rate=text).rate == Rate.parse(text)  # type: ignore[arg-type]
    assert Rate(60, per=60) == Rate.parse("60/m")


@pytest.mark.parametrize("text", ["60/x", "", "60", "/s", "-1/s", "nan/s", "0/s", "5/0s", "٣/s", None])
def test_bad_rates(text: Any) -> None:
    """Everything else is refused, with the form it should have or the bound it breaks."""
    with pytest.raises(ConfigurationError, match=r"rate|count|per"):
        Rate.parse(text)


@pytest.mark.parametrize(("count", "per"), [(5e-324, 10), (1, 5e-324), (1e14, 1e-14)])
def test_rates_beyond_numbers(count: float, per: float) -> None:
    """A rate that comes out as 0 or infinity is refused when it is made, not at the first call."""
    with pytest.raises(ConfigurationError, match="count / per"):
        Rate(count, per=per)


@pytest.mark.parametrize(
    "bad",
    [
        {"rate": 5},
        {"voice_rate": 1.0},
        {"max_in_flight": 0},
        {"rate": "60/x"},
        {"voice_rate": "60/x"},
        {"voice_rate": "0/s"},
        {"adaptive": "no"},
        {"adaptive": None},
    ],
    ids=str,
)
def test_bad_limits(bad: dict[str, Any]) -> None:
    """Limits are checked when they are made."""
    with pytest.raises(ConfigurationError, match=next(iter(bad))):
        Limits(**bad)


BASIC = {"BW_USERNAME": "u", "BW_PASSWORD": "p"}
OAUTH = {"BW_CLIENT_ID": "c", "BW_CLIENT_SECRET": "s"}
ACCOUNT = {"BW_ACCOUNT_ID": "9900000"}


@pytest.mark.parametrize(
    ("env", "auth"),
    [
        (BASIC, BasicAuth("u", "p")),
        (OAUTH, OAuth2ClientCredentials("c", "s")),
        (BASIC | OAUTH, BasicAuth("u", "p")),
        (BASIC | OAUTH | {"BW_AUTH": "oauth2"}, OAuth2ClientCredentials("c", "s")),
        (BASIC | OAUTH | {"BW_AUTH": "basic"}, BasicAuth("u", "p")),
        (
            OAUTH | {"BW_TOKEN_URL": "http://127.0.0.1:1/token"},
            OAuth2ClientCredentials("c", "s", "http://127.0.0.1:1/token"),
        ),
    ],
    ids=["basic", "oauth2", "both", "both, oauth2 chosen", "both, basic chosen", "token url"],
)
def test_credentials_from_the_environment(env: dict[str, str], auth: object) -> None:
    """Basic wins when both are there, unless BW_AUTH says otherwise."""
    settings = settings_from_env({}, ACCOUNT | env)
    assert settings == {"account_id": "9900000", "auth": auth}


@pytest.mark.parametrize(
    ("env", "missing"),
    [
        ({}, ["BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET"]),
        ({"BW_USERNAME": "u"}, ["BW_ACCOUNT_ID", "BW_PASSWORD"]),
        (ACCOUNT | {"BW_PASSWORD": "p"}, ["BW_USERNAME"]),
        (ACCOUNT | {"BW_CLIENT_ID": "c"}, ["BW_CLIENT_SECRET"]),
        (ACCOUNT | BASIC | {"BW_AUTH": "oauth2"}, ["BW_CLIENT_ID", "BW_CLIENT_SECRET"]),
        (ACCOUNT | OAUTH | {"BW_AUTH": "basic"}, ["BW_USERNAME", "BW_PASSWORD"]),
    ],
)
def test_missing_variables_are_all_named(env: dict[str, str], missing: list[str]) -> None:
    """One error names every variable, so that nobody fixes them one at a time."""
    with pytest.raises(ConfigurationError) as caught:
        settings_from_env({}, env)
    every = ["BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET"]
    assert [name for name in every if name in str(caught.value)] == missing


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides win; BW_MFA_URL is the base URL; a bad BW_AUTH is named."""
    for name, value in (ACCOUNT | BASIC | {"BW_MFA_URL": "http://127.0.0.1:4010/api/v1/"}).items():
        monkeypatch.setenv(name, value)
    assert "base_url='http://127.0.0.1:4010/api/v1'" in repr(MFAClient.from_env())
    assert "account_id='1'" in repr(MFAClient.from_env(account_id="1"))
    monkeypatch.setenv("BW_AUTH", "kerberos")
    with pytest.raises(ConfigurationError, match="BW_AUTH"):
        MFAClient.from_env()


async def test_a_session_may_be_passed() -> None:
    """Its type is checked, nothing else is touched."""
    async with aiohttp.ClientSession() as session:
        MFAClient("9", BasicAuth("u", "p"), session=session)
