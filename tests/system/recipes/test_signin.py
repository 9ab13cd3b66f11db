"""The sign-in recipes on their servers, two uvicorn workers where it is uvicorn, one RedisStore and the simulator."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from playwright.async_api import async_playwright, expect

from bandwidth_mfa_async.simulator import Fault, Simulator
from tests.support import processes
from tests.support.fault_server import environment, refused_port
from tests.support.signins import SECRET, wrong
from tests.system.browser.conftest import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.redis_server import RedisServer

HERE = pathlib.Path(__file__).parent
RUN_AIOHTTP = (
    "import sys; from aiohttp import web; from signin_with_aiohttp import app; web.run_app(app, port=int(sys.argv[1]))"
)
UVICORN = ["-m", "uvicorn", "--workers", "2", "--port", "{port}"]
SERVERS = {
    "fastapi": [*UVICORN, "signin_with_fastapi:app"],
    "django": [*UVICORN, "signin_with_django:application"],
    "aiohttp": ["-c", RUN_AIOHTTP, "{port}"],
}
TIMEOUT = 60.0


class Browser:
    """What a browser does without JavaScript: it keeps cookies, follows redirects, and names the origin of a form."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url
        self.cookies: dict[str, str] = {}
        self.hidden: dict[str, str] = {}  # a field of the page's forms, in Django

    def copy(self) -> Browser:
        """Return another tab, with the same cookies and the same page."""
        other = Browser(self.session, self.url)
        other.cookies, other.hidden = dict(self.cookies), dict(self.hidden)
        return other

    async def request(self, method: str, path: str, origin: str | None = None, **form: str) -> tuple[int, str, Any]:
        """Return status, text and headers after at most one redirect."""
        for _ in range(2):
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
            if method == "POST":
                headers["Origin"] = self.url if origin is None else origin
            data = self.hidden | form if method == "POST" else None
            async with self.session.request(
                method, self.url + path, data=data, headers=headers, allow_redirects=False
            ) as response:
                text = await response.text()
                self.hidden = dict(re.findall(r'name="(csrf\w+)" value="([^"]+)"', text)[:1]) or self.hidden
                for line in response.headers.getall("Set-Cookie", []):
                    assert line.startswith("__Host-")
                    assert {"secure", "httponly", "path=/", "samesite=lax"} <= set(line.lower().split("; "))
                    name, _, value = line.partition(";")[0].partition("=")
                    self.cookies[name] = value.strip('"')
                if response.status != 303:
                    return response.status, text, response.headers
                method, path = "GET", response.headers["Location"]
        raise AssertionError("more than one redirect")

    async def get(self, path: str) -> tuple[int, str, Any]:
        return await self.request("GET", path)

    async def post(self, path: str, **form: str) -> tuple[int, str, Any]:
        return await self.request("POST", path, **form)

    async def key(self) -> str:
        found = re.search(r'name="key" value="([^"]+)"', (await self.get("/"))[1])
        assert found
        return found[1]

    async def start(self, number: str = "(919) 555-1234") -> tuple[int, str, Any]:
        return await self.post("/start", number=number, key=await self.key())


class App:
    """The recipe on its servers."""

    def __init__(self, sim: Simulator, session: aiohttp.ClientSession, url: str) -> None:
        self.sim, self.session, self.url = sim, session, url

    def browser(self) -> Browser:
        return Browser(self.session, self.url)


@pytest.fixture(params=SERVERS)
async def app(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: pathlib.Path) -> AsyncIterator[App]:
    port = refused_port()
    log = tmp_path / "server.log"
    async with Simulator() as sim, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        variables = {"BW_STORE_URL": redis_server.url, "BW_STORE_SECRET": SECRET.replace(" ", "-")}
        variables |= environment(sim) | {"SESSION_SECRET": "the secret of the sessions of this test"}
        command = [part.format(port=port) for part in SERVERS[request.param]]
        with log.open("wb") as output:
            process = await processes.start_async(
                sys.executable, *command, cwd=HERE, env=os.environ | variables, stdout=output, stderr=processes.STDOUT
            )
        running = App(sim, session, f"http://127.0.0.1:{port}")
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    try:
                        await running.browser().get("/")
                        break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.05)
            yield running
        finally:
            await processes.end_async(process)
    assert "Traceback" not in log.read_text(), log.read_text()


def title(text: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", text)
    assert found, text
    return found[1]


async def test_a_sign_in(app: App) -> None:
    """The number is what people type; the code may have a blank; the session is new."""
    browser = app.browser()
    status, text, headers = await browser.start()
    assert (status, title(text), headers["Cache-Control"]) == (200, "Enter your code", "no-store")
    assert "+***34" in text
    assert "9195551234" not in text
    before = browser.cookies.get("__Host-session")
    code = app.sim.inbox[-1].code
    status, text, _ = await browser.post("/code", code=f"{code[:3]} {code[3:]}")
    assert (status, title(text)) == (200, "You are signed in")
    assert browser.cookies["__Host-session"] != before
    assert browser.cookies["__Host-signin"] == ""


async def test_ten_simultaneous_clicks_send_one_text(app: App) -> None:
    browser = app.browser()
    key = await browser.key()
    app.sim.faults.script(Fault(delay=0.3))
    pages = await asyncio.gather(*(browser.copy().post("/start", number="+19195551234", key=key) for _ in range(10)))
    assert {title(text) for _, text, _ in pages} == {"Enter your code"}
    assert len(app.sim.inbox) == 1


async def test_wrong_used_and_locked(app: App) -> None:
    browser = app.browser()
    await browser.start()
    code = app.sim.inbox[-1].code
    status, text, _ = await browser.post("/code", code="12")
    assert (status, "A code has six digits. Tries left: 5" in text) == (422, True)
    for left in (4, 3, 2, 1):
        status, text, _ = await browser.post("/code", code=wrong(code))
        assert (status, f"That is not the code. Tries left: {left}" in text) == (422, True)
    status, text, _ = await browser.post("/code", code=wrong(code))
    assert (status, title(text), "Please start again." in text) == (200, "Sign in", True)
    # The simulator locks a number after five wrong codes.
    other = app.browser()
    assert (await other.start("(919) 555-9876"))[0] == 200
    copy = other.copy()
    code = app.sim.inbox[-1].code
    assert title((await other.post("/code", code=code))[1]) == "You are signed in"
    status, text, _ = await copy.post("/code", code=code)
    assert (status, title(text), "This code has been used." in text) == (200, "Sign in", True)


async def test_refusals_and_failures(app: App) -> None:
    browser = app.browser()
    await browser.start()
    status, text, headers = await browser.post("/resend")
    assert (status, title(text)) == (429, "Not now")
    assert 1 <= int(headers["Retry-After"]) <= 30
    status, text, _ = await app.browser().start("+18765551234")
    assert (status, title(text)) == (429, "Not now")
    assert "region" not in text
    app.sim.faults.script(Fault(status=403), operation="messaging")
    status, text, _ = await app.browser().start("(919) 555-2222")
    assert (status, title(text)) == (503, "Not possible at the moment")
    assert len(app.sim.inbox) == 1


async def test_an_unknown_outcome_asks_for_the_code(app: App) -> None:
    app.sim.faults.script(Fault(drop="after_read"), operation="messaging")
    browser = app.browser()
    assert title((await browser.start())[1]) == "Enter your code"
    assert title((await browser.post("/code", code=app.sim.inbox[-1].code))[1]) == "You are signed in"


async def test_posts_of_other_sites_are_refused(app: App) -> None:
    browser = app.browser()
    key = await browser.key()
    for origin in ("https://evil.example", "null", ""):
        status, _, _ = await browser.request("POST", "/start", origin, number="+19195551234", key=key)
        assert status == 403
    assert not app.sim.inbox


async def test_without_a_flow(app: App) -> None:
    browser = app.browser()
    for page in (await browser.get("/code"), await browser.post("/code", code="123456"), await browser.post("/resend")):
        assert (page[0], title(page[1])) == (200, "Sign in")
    assert title((await browser.get("/welcome"))[1]) == "Sign in"


@pytest.mark.parametrize("app", ["fastapi"], indirect=True)
@pytest.mark.parametrize(
    ("width", "scheme", "scripts"), [(390, "light", True), (1280, "dark", True), (390, "dark", False)]
)
async def test_in_a_browser(app: App, width: int, scheme: Any, scripts: bool) -> None:
    """By keyboard only, on a phone and on a desk, light and dark, with scripts and without."""
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; CI installs Debian's package of that name")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        page = await context.new_page()
        await page.goto(app.url)
        await page.keyboard.press("Tab")
        await page.keyboard.type("(919) 555-1234")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading")).to_have_text("Enter your code")
        again = page.get_by_role("button", name="Text me another code")
        await (expect(again).to_be_disabled() if scripts else expect(again).to_be_enabled())
        code = app.sim.inbox[-1].code
        await page.keyboard.type(wrong(code))  # the field has the focus
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("Tries left: 4")
        field = page.get_by_label("Code")
        await expect(field).to_have_attribute("autocomplete", "one-time-code")
        await expect(field).to_have_accessible_description("That is not the code. Tries left: 4")
        if scripts:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await page.keyboard.type(code)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading")).to_have_text("You are signed in")
        assert app.url + "/welcome" == page.url
        await browser.close()


async def test_without_the_store_nothing_is_sent(app: App, redis_server: RedisServer) -> None:
    browser = app.browser()
    key = await browser.key()
    with redis_server.client() as client:
        client.flushall()
        client.rpush("bandwidth-mfa:store:clock", "not what the store keeps there")
    status, text, _ = await browser.post("/start", number="(919) 555-1234", key=key)
    assert (status, title(text)) == (503, "Not possible at the moment")
    assert not app.sim.inbox
