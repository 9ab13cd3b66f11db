"""The compared clients, each with one code request: ours, handwritten aiohttp, and other libraries."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import frozen
from yarl import URL

from bandwidth_mfa_async import BasicAuth, CodeTemplate, Limits, MFAClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Call = Callable[[str], Awaitable[object]]
    Make = Callable[[str], AbstractAsyncContextManager[Call]]

OURS = "bandwidth_mfa_async"
NAIVE = "aiohttp, naive"
OFFICIAL = "bandwidth-sdk in threads"
PATH = "/accounts/9900000/code/messaging"
BASIC = "Basic " + base64.b64encode(b"user:pass").decode()
FIELDS = {
    "from": "+19195554321",
    "applicationId": "app",
    "scope": "login",
    "message": "Your {NAME} {SCOPE} code is {CODE}",
    "digits": 6,
}


@frozen
class Rival:
    """A client to measure.

    Args:
        name: its name in the table.
        make: opens the client for a base URL and yields a call that sends a code to a number.
        needs: the module that it needs; None for those that this package depends on.
        extra: the extra of this package that installs the module.
    """

    name: str
    make: Make
    needs: str | None = None
    extra: str = "bench"

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


@asynccontextmanager
async def ours(base_url: str, limits: Limits = Limits()) -> AsyncIterator[Call]:  # noqa: B008 - frozen
    """All features on: the adaptive limiter, slots, the retry budget, meta, delivery."""
    template = CodeTemplate("+19195554321", "app", scope="login")
    async with MFAClient("9900000", BasicAuth("user", "pass"), base_url=base_url, limits=limits) as mfa:

        async def call(to: str) -> str:
            return (await mfa.generate_messaging_code(template.to(to))).message_id

        yield call


@asynccontextmanager
async def naive(base_url: str, connections: int = 100) -> AsyncIterator[Call]:
    """A first version: text URL, `json=`, `raise_for_status`, `response.json()`; none of our features."""
    url, connector = base_url + PATH, aiohttp.TCPConnector(limit=connections)  # 100 are aiohttp's own default
    async with aiohttp.ClientSession(headers={"Authorization": BASIC}, connector=connector) as session:

        async def call(to: str) -> str:
            async with session.post(url, json={"to": to, **FIELDS}) as response:
                response.raise_for_status()
                document: dict[str, str] = await response.json()
                return document["messageId"]

        yield call


@asynccontextmanager
async def tuned(base_url: str) -> AsyncIterator[Call]:
    """An optimised version: prebuilt URL and headers, a bytes body, no work for unused results."""
    url, headers = URL(base_url + PATH), {"Authorization": BASIC, "Content-Type": "application/json"}
    none = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session:

        async def call(to: str) -> str:
            body = json.dumps({"to": to, **FIELDS}).encode()
            async with session.post(url, data=body, headers=headers, allow_redirects=False, timeout=none) as response:
                document: dict[str, str] = json.loads(await response.read())
                return document["messageId"]

        yield call


@asynccontextmanager
async def retrying(base_url: str) -> AsyncIterator[Call]:
    """aiohttp-retry: the naive call with three attempts."""
    from aiohttp_retry import ExponentialRetry, RetryClient

    url = base_url + PATH
    async with aiohttp.ClientSession(headers={"Authorization": BASIC}) as session:
        client = RetryClient(client_session=session, retry_options=ExponentialRetry(attempts=3))

        async def call(to: str) -> str:
            async with client.post(url, json={"to": to, **FIELDS}) as response:
                response.raise_for_status()
                document: dict[str, str] = await response.json()
                return document["messageId"]

        yield call


@asynccontextmanager
async def twilio(base_url: str) -> AsyncIterator[Call]:
    """Twilio's own client over its asyncio transport, with its form body, sent to our path."""
    from twilio.http.async_http_client import AsyncTwilioHttpClient
    from twilio.rest import Client

    url = base_url + PATH
    async with AsyncTwilioHttpClient() as transport:
        client = Client("user", "pass", http_client=transport)

        async def call(to: str) -> str:
            response = await client.request_async("POST", url, data={"To": to, "From": "+1919", "Body": "code"})
            document: dict[str, str] = json.loads(response.text)
            return document["messageId"]

        yield call


@asynccontextmanager
async def httpx_client(base_url: str) -> AsyncIterator[Call]:
    """A client of httpx with an unlimited pool."""
    import httpx

    url = base_url + PATH
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(auth=("user", "pass"), limits=limits, timeout=60, trust_env=False) as client:

        async def call(to: str) -> str:
            response = await client.post(url, json={"to": to, **FIELDS})
            document: dict[str, str] = response.raise_for_status().json()
            return document["messageId"]

        yield call


@asynccontextmanager
async def niquests_client(base_url: str) -> AsyncIterator[Call]:
    """Niquests, an asyncio fork of requests."""
    import niquests

    url = base_url + PATH
    async with niquests.AsyncSession(pool_connections=10, pool_maxsize=300) as session:
        session.trust_env = False
        session.auth = ("user", "pass")

        async def call(to: str) -> Any:
            response = await session.post(url, json={"to": to, **FIELDS})
            return response.raise_for_status().json()["messageId"]

        yield call


@asynccontextmanager
async def official(base_url: str) -> AsyncIterator[Call]:
    """Bandwidth's generated SDK, which blocks: a thread and a connection for each call in flight."""
    import bandwidth
    from bandwidth.models.code_request import CodeRequest

    configuration = bandwidth.Configuration(
        username="user", password="pass", host=base_url, ignore_operation_servers=True
    )
    configuration.connection_pool_maxsize = 300
    with bandwidth.ApiClient(configuration) as client, ThreadPoolExecutor(300) as threads:
        api = bandwidth.MFAApi(client)

        def send(to: str) -> Any:
            request = CodeRequest.from_dict({"to": to, **FIELDS})
            return api.generate_messaging_code("9900000", request).message_id

        async def call(to: str) -> Any:
            return await asyncio.get_running_loop().run_in_executor(threads, send, to)

        yield call
        client.rest_client.pool_manager.clear()


def urllib3_is_replaced() -> bool:
    """Return whether niquests has replaced urllib3, which Bandwidth's SDK uses, with its own library."""
    return importlib.util.find_spec("niquests") is not None and importlib.util.find_spec("bandwidth") is not None


RIVALS = (
    Rival(OURS, ours),
    Rival(NAIVE, naive),
    Rival("aiohttp, tuned", tuned),
    Rival("aiohttp-retry", retrying, "aiohttp_retry"),
    Rival("twilio, async", twilio, "twilio"),
    Rival("httpx", httpx_client, "httpx"),
    Rival("niquests", niquests_client, "niquests", "bench-niquests"),
    Rival(OFFICIAL, official, "bandwidth"),
)

# Twilio's client passes credentials to aiohttp in a way that is deprecated in 2026; the warning is not measured.
warnings.filterwarnings("ignore", category=DeprecationWarning, module="aiohttp|twilio")
