"""The checks of the command `doctor`, from the environment to an answer of the service."""

from __future__ import annotations

import asyncio
import platform
import random
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import attrs

from ..._auth import resolve
from ..._client import MFAClient
from ..._client._environment import settings_from_env
from ..._client._probe import open_probe
from ..._clock import SystemClock
from ..._config import DEFAULT_BASE_URL, RetryPolicy
from ..._credentials import CredentialChain, OAuth2ClientCredentials
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
from .._formats import plural
from ._network import FIREWALL, check_network
from ._types import Finding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from ..._clock import Clock
    from ..._credentials import Auth, BasicAuth
    from ..._models import CodeRequest, VerifyCodeResponse
    from ..._wire import RawResponse
    from ._types import Status

# API users end on this day, as announced at https://dev.bandwidth.com/docs/account/credentials/management.
BASIC_ENDS: Final = 1_796_169_600.0  # 2026-12-02, 00:00 UTC
_DAY: Final = 86_400.0
_SKEW: Final = 5.0
_LIBRARIES: Final = ("aiohttp", "attrs", "cattrs", "tenacity")
_OPTIONAL: Final = ("click", "rich", "orjson", "uvloop", "redis", "taskiq", "opentelemetry-api")
_VARIABLES: Final = (
    "BW_ACCOUNT_ID",
    "BW_USERNAME",
    "BW_PASSWORD",
    "BW_PASSWORD_FILE",
    "BW_CLIENT_ID",
    "BW_CLIENT_SECRET",
    "BW_CLIENT_SECRET_FILE",
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
    """Return the installed versions by name; None for an optional library that is not installed."""
    installed: dict[str, str | None] = {
        "bandwidth-mfa-async": __version__,
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }
    for name in (*_LIBRARIES, *_OPTIONAL):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


async def run_checks(
    environ: Mapping[str, str], *, timeout: float, send: CodeRequest | None = None, clock: Clock | None = None
) -> AsyncIterator[Finding]:
    """Run the checks in order; a check that depends on a failed one is skipped.

    Sends no code unless `send` is given.

    Args:
        environ: the environment variables.
        timeout: the timeout of each network check, in seconds.
        send: one real code to send at the end.
        clock: this machine's clock.
    """
    clock = clock or SystemClock()
    installed = await asyncio.to_thread(versions)  # reads files
    yield Finding(
        "versions", "ok", ", ".join(f"{name} {installed[name]}" for name in installed if name not in _OPTIONAL)
    )
    yield _environment(environ)
    yield _proxy(environ)
    settings, finding = await _credentials(environ)
    yield finding
    reachable, base_url = True, DEFAULT_BASE_URL
    try:
        base_url = checked_url("BW_MFA_URL", environ.get("BW_MFA_URL") or DEFAULT_BASE_URL)
    except ConfigurationError as error:
        reachable = False
        yield Finding("address", "fail", str(error), "correct BW_MFA_URL, or unset it for the real service")
    if reachable:
        async for finding in check_network(base_url, timeout, clock):
            reachable = reachable and finding.status != "fail"
            yield finding
    if not reachable or settings is None:
        yield Finding("probe", "skip", "the service was not called: fix the failures above first")
        probe_passed = False
    else:
        probe_passed = True
        async for finding in _probe(settings, timeout, clock):
            probe_passed = probe_passed and finding.status != "fail"
            yield finding
    if send is None:
        yield Finding("send", "skip", "no code was sent; --send TO sends one real code")
    elif probe_passed and settings is not None:
        yield await _send(settings, send, timeout)
    else:
        yield Finding("send", "skip", "no code was sent: fix the failures above first")


def _environment(environ: Mapping[str, str]) -> Finding:
    present = [name for name in _VARIABLES if environ.get(name)]
    detail = f"set: {', '.join(present)}" if present else "no BW_ variable is set"
    edges = [name for name in present if environ[name] != environ[name].strip()]
    if edges:
        return Finding(
            "environment",
            "warn",
            f"{detail}; leading or trailing white space in {', '.join(edges)}",
            "set it again without the white space, which is part of the value",
        )
    unread = sorted(name for name in environ if name.startswith("BW_") and name not in _VARIABLES)
    if unread:
        detail += f"; not used: {', '.join(unread)}"
    return Finding("environment", "ok", detail)


def _proxy(environ: Mapping[str, str]) -> Finding:
    present = [name for name in _PROXIES if environ.get(name)]
    if not present:
        return Finding("proxy", "ok", "none set, none used")
    return Finding(
        "proxy",
        "warn",
        f"{', '.join(present)} is set but ignored: connections are direct",
        "if this machine needs a proxy, pass proxy= to MFAClient; this command cannot use one",
    )


async def _credentials(environ: Mapping[str, str]) -> tuple[dict[str, Any] | None, Finding]:
    """Return the arguments of a client, or None without credentials, and which credentials are used and why."""
    try:
        settings = settings_from_env({}, environ)
        settings["auth"] = auth = await resolve(settings["auth"])
        MFAClient(settings["account_id"], auth)
    except ConfigurationError as error:
        remedy = "set what is missing; `bandwidth-mfa simulate` prints credentials that work without an account"
        return None, Finding("credentials", "fail", str(error), remedy)
    chosen = environ.get("BW_AUTH", "").strip().lower()
    names = " and ".join(_OAUTH2 if isinstance(part, OAuth2ClientCredentials) else _BASIC for part in _parts(auth))
    detail = f"{names}{f', selected by BW_AUTH={chosen}' if chosen else ''}"
    if isinstance(auth, CredentialChain):
        detail += "; each call uses the one that works, OAuth2 first"
    return settings, Finding("credentials", "ok", detail)


_BASIC: Final = "Basic, from BW_USERNAME and BW_PASSWORD"
_OAUTH2: Final = "OAuth2, from BW_CLIENT_ID and BW_CLIENT_SECRET"


def _parts(auth: Auth) -> tuple[BasicAuth | OAuth2ClientCredentials, ...]:
    return (auth.first, auth.second) if isinstance(auth, CredentialChain) else (auth,)


async def _probe(settings: dict[str, Any], timeout: float, clock: Clock) -> AsyncIterator[Finding]:
    """Verify a made-up code with each kind of credentials; one kind that works is enough."""
    parts = _parts(settings["auth"])
    findings: list[Finding] = []
    for part in parts:
        name = "probe" if len(parts) == 1 else "oauth2" if isinstance(part, OAuth2ClientCredentials) else "basic"
        findings += [finding async for finding in _probe_kind(name, part, settings, timeout, clock)]
    kinds = [finding for finding in findings if finding.name != "clock"]
    works = len(parts) > 1 and any(finding.status != "fail" for finding in kinds)
    for finding in kinds:
        yield attrs.evolve(finding, status="warn") if works and finding.status == "fail" else finding
    clocks = [finding for finding in findings if finding.name == "clock"]
    if clocks:
        yield clocks[0]


async def _probe_kind(
    name: str, auth: BasicAuth | OAuth2ClientCredentials, settings: dict[str, Any], timeout: float, clock: Clock
) -> AsyncIterator[Finding]:
    """Verify a made-up code for a number reserved for fiction.

    Bandwidth's own live tests get 200 and ``{"valid": false}`` for a number without an outstanding code (all five of
    its SDKs, since 2021). An invalid body gets a 400, but it is not documented whether the service checks the
    credentials before the body. It is also not documented whether such a verify is billed.
    """
    base_url = settings.get("base_url", DEFAULT_BASE_URL)
    # 555-0100 to 555-0199 are reserved for fiction; the scope separates this code from those of applications.
    number = f"+1{random.randint(201, 989)}55501{random.randint(0, 99):02}"  # noqa: S311 - not a secret
    request = VerifyCodeRequest(number, f"{random.randint(0, 999_999):06}", _SCOPE)  # noqa: S311 - made up
    async with open_probe(settings["account_id"], auth, base_url, timeout=timeout, clock=clock) as probe:
        if probe.needs_token:
            alone = name == "probe"
            try:
                await probe.authorize()
            except RequestError as error:
                remedy = "check BW_CLIENT_ID, BW_CLIENT_SECRET and BW_TOKEN_URL"
                yield Finding("token" if alone else name, "fail", f"rejected: {_error_text(error)}", remedy)
                return
            if alone:
                yield Finding("token", "ok", "the token endpoint issued a token")
        asked = clock.time()
        try:
            answer = await probe.verify(request)
        except RequestError as error:
            yield Finding(name, "fail", _error_text(error), f"run this again; {FIREWALL}")
            return
        took = clock.time() - asked
        yield _probe_finding(name, answer, auth, clock)
        yield _clock_finding(answer, asked + took / 2, took)


def _probe_finding(name: str, answer: RawResponse, auth: BasicAuth | OAuth2ClientCredentials, clock: Clock) -> Finding:
    """Return what the answer to the probe proves about credentials and URL."""
    oauth2 = isinstance(auth, OAuth2ClientCredentials)
    alone = name == "probe"
    kind = "OAuth2" if oauth2 else "Basic"
    try:
        response: VerifyCodeResponse = decipher(VERIFY, answer, secrets=lambda: auth.secrets)
    except RequestError as error:
        status: Status = "fail"
        rejected = isinstance(error, (AuthenticationError, PermissionDeniedError))
        if rejected and oauth2:
            use_basic = "set BW_USERNAME and BW_PASSWORD as well (or BW_AUTH=basic), or " if alone else ""
            remedy = (
                "no dated source says that MFA accepts OAuth2, and in June 2026 Bandwidth's staff saw it reject such "
                f"tokens: {use_basic}ask Bandwidth"
            )
        elif rejected:
            remedy = (
                "check username and password (upper and lower case matter), BW_ACCOUNT_ID, and that the user may use "
                f"MFA; Bandwidth answers 403 to a wrong password, and API users {_basic_end(clock)}"
            )
        elif isinstance(error, NotFoundError):
            remedy = "check BW_MFA_URL: the real service's is https://mfa.bandwidth.com/api/v1"
        elif isinstance(error, ServerError):
            remedy = "the service failed: run this again later"
        elif isinstance(error, APIStatusError) and error.status in {400, 429}:
            # The service answered; whether it had checked the credentials by then is not documented.
            status, remedy = "warn", "run this again in two minutes; if the answer is the same, try --send"
        else:
            remedy = "something else answers at BW_MFA_URL, such as a portal, a proxy or another service"
        text = f"{kind} rejected: {_error_text(error)}" if rejected else _error_text(error)
        return Finding(name, status, text, remedy)
    if response.valid:
        remedy = "do not trust its answers, and report this to Bandwidth"
        return Finding(name, "warn", "the service accepted a made-up code as valid", remedy)
    detail = (
        f"{kind} accepted now: a made-up code for a fictional number is not valid, and nothing was sent; "
        "only --send shows whether this account may send"
    )
    if oauth2:
        return Finding(name, "ok", detail)
    both = "set BW_CLIENT_ID and BW_CLIENT_SECRET too: with both kinds set," if alone else "keep both kinds set:"
    remedy = f"{both} calls use the one that works, without a restart; no dated source says that MFA accepts OAuth2"
    return Finding(name, "warn", f"{detail}; API users {_basic_end(clock)}", remedy)


def _basic_end(clock: Clock) -> str:
    days = (BASIC_ENDS - clock.time()) / _DAY
    when = f"in {plural(round(days), 'day')}" if days >= 1 else ("within a day" if days > 0 else "which has passed")
    return f"are announced to end on 2026-12-02, {when}"


def _clock_finding(answer: RawResponse, now: float, took: float) -> Finding:
    """Compare this machine's clock with the answer's `Date`, which is truncated to whole seconds."""
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except (TypeError, ValueError, OverflowError):
        return Finding("clock", "skip", "not compared: the answer has no valid Date header")
    if date.tzinfo is None:  # asctime dates are parsed as naive; HTTP dates are always UTC
        date = date.replace(tzinfo=UTC)
    seconds = now - (date.timestamp() + 0.5)
    if abs(seconds) <= _SKEW + took / 2:
        return Finding("clock", "ok", "within a few seconds of the service's clock")
    return Finding(
        "clock",
        "warn",
        f"this machine's clock is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the service's",
        "synchronise it with NTP; waits are not affected, but certificates, tokens and logs may be",
    )


async def _send(settings: dict[str, Any], request: CodeRequest, timeout: float) -> Finding:
    # One attempt only: a retry could send a second text to a real phone.
    async with MFAClient(**settings, retry=RetryPolicy(max_attempts=1, timeout=timeout)) as mfa:
        try:
            sent = await mfa.generate_messaging_code(request)
        except RequestError as error:
            remedy = "check --from and --application-id: the number must belong to that messaging application"
            if error.delivery is Delivery.UNKNOWN:
                remedy = "check the phone before you run this again: the text may have been sent"
            return Finding("send", "fail", f"{error.delivery}: {_error_text(error)}", remedy)
    return Finding("send", "ok", f"accepted {sent.message_id}; delivery by the carrier is not visible here")


def _error_text(error: RequestError) -> str:
    """Return an error's message, which contains no personal data, on one line."""
    return " ".join(str(error).split())
