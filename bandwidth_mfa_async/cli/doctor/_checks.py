"""What `bandwidth-mfa doctor` looks at, from the environment to an answer of the service; prints nothing."""

from __future__ import annotations

import asyncio
import platform
import random
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from ..._client import MFAClient
from ..._client._environment import settings_from_env
from ..._client._probe import open_probe
from ..._clock import SystemClock
from ..._config import DEFAULT_BASE_URL, RetryPolicy
from ..._credentials import OAuth2ClientCredentials
from ..._models import VerifyCodeRequest
from ..._validation import checked_url
from ..._version import __version__
from ..._wire import VERIFY, decipher
from ...errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    Delivery,
    NotFoundError,
    PermissionDeniedError,
    RequestError,
    ServerError,
)
from ._network import FIREWALL, reach
from ._types import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ..._clock import Clock
    from ..._credentials import Auth
    from ..._models import CodeRequest, VerifyCodeResponse
    from ..._wire import RawResponse
    from ._types import Status

# Bandwidth's announcement (https://dev.bandwidth.com/docs/account/credentials/management): API users end on that day.
BASIC_ENDS: Final = 1_796_169_600.0  # 2026-12-02, 00:00 UTC
_DAY: Final = 86_400.0
_SKEW: Final = 5.0
_LIBRARIES: Final = ("aiohttp", "attrs", "cattrs", "tenacity")
_OPTIONAL: Final = ("click", "rich", "orjson", "uvloop", "redis", "taskiq", "opentelemetry-api")
_READ: Final = (
    "BW_ACCOUNT_ID",
    "BW_USERNAME",
    "BW_PASSWORD",
    "BW_CLIENT_ID",
    "BW_CLIENT_SECRET",
    "BW_AUTH",
    "BW_MFA_URL",
    "BW_TOKEN_URL",
    "BW_NUMBER",
    "BW_MESSAGING_APPLICATION_ID",
    "BW_VOICE_APPLICATION_ID",
)
_PROXIES: Final = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_SCOPE: Final = "bandwidth-mfa doctor"


def versions() -> dict[str, str | None]:
    """Return what is installed, by name; None for an optional library that is not."""
    found: dict[str, str | None] = {
        "bandwidth-mfa-async": __version__,
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }
    for name in (*_LIBRARIES, *_OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


async def examine(
    environ: Mapping[str, str], *, timeout: float, send: CodeRequest | None = None, clock: Clock | None = None
) -> AsyncIterator[Finding]:
    """Look at one thing after the other; what depends on a thing that failed is skipped.

    Sends nothing to anybody, unless `send` is given.

    Args:
        environ: the environment variables.
        timeout: seconds for each thing on the network.
        send: one real code to send in the end.
        clock: this machine's.
    """
    clock = clock or SystemClock()
    found = await asyncio.to_thread(versions)  # reads files
    yield Finding("versions", "ok", ", ".join(f"{name} {found[name]}" for name in found if name not in _OPTIONAL))
    yield _environment(environ)
    yield _proxy(environ)
    settings, finding = _credentials(environ, clock)
    yield finding
    reached, base_url = True, DEFAULT_BASE_URL
    try:
        base_url = checked_url("BW_MFA_URL", environ.get("BW_MFA_URL") or DEFAULT_BASE_URL)
    except ConfigurationError as error:
        reached = False
        yield Finding("address", "fail", str(error), "mend BW_MFA_URL, or unset it for the real service")
    if reached:
        async for finding in reach(base_url, timeout, clock):
            reached = reached and finding.status != "fail"
            yield finding
    if not reached or settings is None:
        yield Finding("probe", "skip", "the service was not asked, since something above must be mended first")
        answered = False
    else:
        answered = True
        async for finding in _probe(settings, timeout, clock):
            answered = answered and finding.status != "fail"
            yield finding
    if send is None:
        yield Finding("send", "skip", "no code was sent; --send TO sends one real code")
    elif answered and settings is not None:
        yield await _send(settings, send, timeout)
    else:
        yield Finding("send", "skip", "no code was sent, since something above must be mended first")


def _environment(environ: Mapping[str, str]) -> Finding:
    present = [name for name in _READ if environ.get(name)]
    detail = f"set: {', '.join(present)}" if present else "no BW_ variable is set"
    edges = [name for name in present if environ[name] != environ[name].strip()]
    if edges:
        return Finding(
            "environment",
            "warn",
            f"{detail}; white space at an end of {', '.join(edges)}",
            "set it again without the blank or line break, which is part of the value now",
        )
    unread = sorted(name for name in environ if name.startswith("BW_") and name not in _READ)
    if unread:
        detail += f"; not read here: {', '.join(unread)}"
    return Finding("environment", "ok", detail)


def _proxy(environ: Mapping[str, str]) -> Finding:
    present = [name for name in _PROXIES if environ.get(name)]
    if not present:
        return Finding("proxy", "ok", "none in the environment, and none used")
    return Finding(
        "proxy",
        "warn",
        f"{', '.join(present)} is set and not read: connections go straight out",
        "if this machine gets out through a proxy only, pass proxy= to MFAClient; this command cannot",
    )


def _credentials(environ: Mapping[str, str], clock: Clock) -> tuple[dict[str, Any] | None, Finding]:
    """Say which credentials are used and why; return a client's arguments if there are some."""
    try:
        settings = settings_from_env({}, environ)
        auth = settings["auth"]
        MFAClient(settings["account_id"], auth)
    except ConfigurationError as error:
        remedy = "set what is missing; `bandwidth-mfa simulate` prints a set that works without an account"
        return None, Finding("credentials", "fail", str(error), remedy)
    chosen = f", as BW_AUTH={environ['BW_AUTH'].strip().lower()} says" if environ.get("BW_AUTH") else ""
    if isinstance(auth, OAuth2ClientCredentials):
        why = chosen or ", since no BW_USERNAME and BW_PASSWORD are set"
        detail = f"OAuth2, from BW_CLIENT_ID and BW_CLIENT_SECRET{why}"
        return settings, Finding("credentials", "ok", detail)
    both = bool(environ.get("BW_CLIENT_ID") and environ.get("BW_CLIENT_SECRET"))
    why = chosen or (", which wins over the OAuth2 credentials that are set too" if both else "")
    detail = f"Basic, from BW_USERNAME and BW_PASSWORD{why}"
    days = (BASIC_ENDS - clock.time()) / _DAY
    when = f"in {days:.0f} days" if days >= 1 else ("within a day" if days > 0 else "which has passed")
    remedy = (
        "try OAuth2 before that day: set BW_CLIENT_ID, BW_CLIENT_SECRET and BW_AUTH=oauth2, and run this again; "
        "whether MFA takes it by now is not published"
    )
    detail += f"; Bandwidth has announced that API users end on 2026-12-02, {when}"
    return settings, Finding("credentials", "warn", detail, remedy)


async def _probe(settings: dict[str, Any], timeout: float, clock: Clock) -> AsyncIterator[Finding]:
    """Ask whether a made-up code is right for a number that nobody has.

    Bandwidth's own live tests get 200 and ``{"valid": false}`` for a number without an outstanding code (all five of
    its SDKs, since 2021). An invalid body would get a 400, but whether credentials are looked at before the body is
    not documented. Not known either: whether such a verify is billed.
    """
    auth = settings["auth"]
    base_url = settings.get("base_url", DEFAULT_BASE_URL)
    # 555-0100 to 555-0199 are kept for fiction, and a scope of our own keeps away from everybody's codes.
    number = f"+1{random.randint(201, 989)}55501{random.randint(0, 99):02}"  # noqa: S311 - no secret
    request = VerifyCodeRequest(number, f"{random.randint(0, 999_999):06}", _SCOPE)  # noqa: S311 - made up
    async with open_probe(settings["account_id"], auth, base_url, timeout=timeout, clock=clock) as probe:
        if probe.needs_token:
            try:
                await probe.authorize()
            except RequestError as error:
                remedy = "check BW_CLIENT_ID, BW_CLIENT_SECRET and BW_TOKEN_URL"
                yield Finding("token", "fail", _said(error), remedy)
                return
            yield Finding("token", "ok", "the token endpoint gave a token")
        asked = clock.time()
        try:
            answer = await probe.verify(request)
        except RequestError as error:
            yield Finding("probe", "fail", _said(error), f"run this again; {FIREWALL}")
            return
        took = clock.time() - asked
        yield _judged(answer, settings)
        yield _skew(answer, asked + took / 2, took)


def _judged(answer: RawResponse, settings: dict[str, Any]) -> Finding:
    """Say what the answer to the probe proves, and what it does not."""
    auth: Auth = settings["auth"]
    try:
        response: VerifyCodeResponse = decipher(VERIFY, answer, secrets=lambda: auth.secrets)
    except RequestError as error:
        status: Status = "fail"
        if isinstance(error, PermissionDeniedError) and isinstance(auth, OAuth2ClientCredentials):
            remedy = (
                "in June 2026 Bandwidth's staff saw MFA refuse OAuth2 tokens, and nothing later is published: "
                "try Basic (BW_AUTH=basic), or ask Bandwidth"
            )
        elif isinstance(error, (AuthenticationError, PermissionDeniedError)):
            remedy = (
                "check username and password (upper and lower case matter), BW_ACCOUNT_ID, and that the user may use "
                "MFA; Bandwidth answers 403 to a wrong password"
            )
        elif isinstance(error, NotFoundError):
            remedy = "check BW_MFA_URL: the real service's is https://mfa.bandwidth.com/api/v1"
        elif isinstance(error, ServerError):
            remedy = "the service is in trouble: run this again later"
        elif isinstance(error, APIStatusError) and error.status in {400, 429}:
            # The service was reached and spoke; whether it had looked at the credentials by then is not documented.
            status, remedy = "warn", "run this again in two minutes; if it stays so, try --send"
        else:
            remedy = "something else answers at BW_MFA_URL: a portal, a proxy, another service"
        return Finding("probe", status, _said(error), remedy)
    if response.valid:
        return Finding("probe", "warn", "the service calls a made-up code valid", "do not trust it; tell Bandwidth")
    return Finding(
        "probe",
        "ok",
        "credentials accepted: a made-up code for a fictional number is not valid, and nothing was sent; "
        "whether this account may send is not known before --send",
    )


def _skew(answer: RawResponse, now: float, took: float) -> Finding:
    """Compare this machine's clock with the answer's `Date`, which is cut to whole seconds."""
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (TypeError, ValueError, OverflowError):
        return Finding("clock", "skip", "the answer has no Date to compare this machine's clock with")
    if date.tzinfo is None:  # asctime dates come back naive; HTTP dates are always UTC
        date = date.replace(tzinfo=UTC)
    seconds = now - (date.timestamp() + 0.5)
    if abs(seconds) <= _SKEW + took / 2:
        return Finding("clock", "ok", "agrees with the service's within a few seconds")
    return Finding(
        "clock",
        "warn",
        f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the service's",
        "set it by NTP; waits are not affected, but certificates, tokens and logs may be",
    )


async def _send(settings: dict[str, Any], request: CodeRequest, timeout: float) -> Finding:
    # Once and not again: this is a look, and somebody's phone is at the other end.
    async with MFAClient(**settings, retry=RetryPolicy(max_attempts=1, timeout=timeout)) as mfa:
        try:
            sent = await mfa.generate_messaging_code(request)
        except RequestError as error:
            remedy = "check --from and --application-id: the number must belong to that messaging application"
            if error.delivery is Delivery.UNKNOWN:
                remedy = "look at the phone before you run this again: the text may have been sent"
            return Finding("send", "fail", f"{error.delivery}: {_said(error)}", remedy)
    return Finding("send", "ok", f"accepted {sent.message_id}; whether the carrier delivers it is not seen here")


def _said(error: RequestError) -> str:
    """Return an error's text, which is scrubbed already, on one line."""
    return " ".join(str(error).split())
