"""Settings are validated before any I/O; the error names the invalid one."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest

from bandwidth_mfa_async import (
    BasicAuth,
    ConfigurationError,
    CredentialChain,
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
def test_invalid_credentials(kind: type, first: Any, second: Any, says: str) -> None:
    """The error names the rule and contains neither credential."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        kind(first, second)
    assert "pa\nss" not in str(caught.value)


def test_the_basic_header_is_encoded_in_utf8() -> None:
    """As in RFC 7617; the password may contain a colon."""
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
def test_an_invalid_base_url_is_refused(url: Any, says: str) -> None:
    """Plain http is valid for loopback only, because it shows the credentials."""
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
def test_a_valid_base_url_is_accepted(url: str) -> None:
    """It is http on loopback, or https to any host."""
    MFAClient("9900000", BasicAuth("u", "p"), base_url=url)


@pytest.mark.parametrize(
    "account_id", ["", "..", "a/b", "../admin", "a b", "9900000\n", "x" * 65, 9900000, None, "%2e"]
)
def test_an_invalid_account_id_is_refused(account_id: Any) -> None:
    """It is part of the URL path, so it must not contain characters that change the path."""
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
def test_an_invalid_client_argument_is_refused(argument: str, value: Any, says: str) -> None:
    """The error names the argument and what it must be."""
    settings: dict[str, Any] = {"account_id": "9900000", "auth": BasicAuth("u", "p")}
    with pytest.raises(ConfigurationError, match=says) as caught:
        MFAClient(**(settings | {argument: value}))
    assert str(caught.value).startswith(argument)


def test_a_proxy_requires_an_https_base_url() -> None:
    """With plain http, the proxy could read the credentials."""
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
def test_an_invalid_retry_policy_is_refused(bad: dict[str, Any]) -> None:
    """The error begins with the name of the invalid option."""
    with pytest.raises(ConfigurationError, match=f"^{next(iter(bad))}: "):
        RetryPolicy(**bad)


def test_defaults_of_the_retry_policy() -> None:
    """They are part of the public contract."""
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
def test_a_rate_is_parsed_from_text(text: str, per_second: float) -> None:
    """`Limits` accepts the same texts."""
    assert Rate.parse(text).per_second == pytest.approx(per_second)
    assert Limits(rate=text).rate == Rate.parse(text)  # type: ignore[arg-type]
    assert Rate(60, per=60) == Rate.parse("60/m")


@pytest.mark.parametrize("text", ["60/x", "", "60", "/s", "-1/s", "nan/s", "0/s", "5/0s", "٣/s", None])
def test_an_invalid_rate_text_is_refused(text: Any) -> None:
    """The error states the expected form or the bound."""
    with pytest.raises(ConfigurationError, match=r"rate|count|per"):
        Rate.parse(text)


@pytest.mark.parametrize(("count", "per"), [(5e-324, 10), (1, 5e-324), (1e14, 1e-14)])
def test_a_rate_of_zero_or_infinity_is_refused(count: float, per: float) -> None:
    """It is refused at construction, not at the first call."""
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
def test_invalid_limits_are_refused(bad: dict[str, Any]) -> None:
    """They are refused at construction; the error names the option."""
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
        (BASIC | OAUTH, CredentialChain(OAuth2ClientCredentials("c", "s"), BasicAuth("u", "p"))),
        (
            BASIC | OAUTH | {"BW_AUTH": "auto"},
            CredentialChain(OAuth2ClientCredentials("c", "s"), BasicAuth("u", "p")),
        ),
        (BASIC | OAUTH | {"BW_AUTH": "oauth2"}, OAuth2ClientCredentials("c", "s")),
        (BASIC | OAUTH | {"BW_AUTH": "basic"}, BasicAuth("u", "p")),
        (
            OAUTH | {"BW_TOKEN_URL": "http://127.0.0.1:1/token"},
            OAuth2ClientCredentials("c", "s", "http://127.0.0.1:1/token"),
        ),
    ],
    ids=["basic", "oauth2", "both", "both, auto", "both, oauth2 chosen", "both, basic chosen", "token url"],
)
def test_credentials_from_the_environment(env: dict[str, str], auth: object) -> None:
    """If both kinds are set, a chain is used unless `BW_AUTH` selects one."""
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
def test_one_error_names_all_missing_variables(env: dict[str, str], missing: list[str]) -> None:
    """The user can fix all of them at once."""
    with pytest.raises(ConfigurationError) as caught:
        settings_from_env({}, env)
    every = ["BW_ACCOUNT_ID", "BW_USERNAME", "BW_PASSWORD", "BW_CLIENT_ID", "BW_CLIENT_SECRET"]
    assert [name for name in every if name in str(caught.value)] == missing
    assert "bandwidth-mfa simulate" in str(caught.value)


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides have precedence, `BW_MFA_URL` is the base URL, and the error of an invalid `BW_AUTH` names it."""
    for name, value in (ACCOUNT | BASIC | {"BW_MFA_URL": "http://127.0.0.1:4010/api/v1/"}).items():
        monkeypatch.setenv(name, value)
    assert "base_url='http://127.0.0.1:4010/api/v1'" in repr(MFAClient.from_env())
    assert "account_id='1'" in repr(MFAClient.from_env(account_id="1"))
    monkeypatch.setenv("BW_AUTH", "kerberos")
    with pytest.raises(ConfigurationError, match="BW_AUTH"):
        MFAClient.from_env()


async def test_the_client_accepts_a_session() -> None:
    """The constructor only checks its type."""
    async with aiohttp.ClientSession() as session:
        MFAClient("9", BasicAuth("u", "p"), session=session)
