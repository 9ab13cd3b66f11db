"""A headless Chromium that is started once, and a page in it that notices every script it should not run."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

# Only the browser itself may be missing: without the package the tests would not be run where they should.
from playwright.async_api import async_playwright

from bandwidth_mfa_async import MFAClient, RetryPolicy
from bandwidth_mfa_async.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from playwright.async_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without the last ones Chromium looks for Google's hosts at every start; this is not a test of those.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH = """
window.ran = [];
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.hosts: set[str | None] = set()
        self._listeners = {
            "dialog": self._dialog,
            "pageerror": self._error,
            "console": self._console,
            "request": self._request,
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)

    def leave(self) -> None:
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    async def _dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _error(self, error: Any) -> None:
        self.problems.append(f"error: {error}")

    def _console(self, message: Any) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        self.hosts.add(urlsplit(request.url).hostname)

    async def check(self) -> None:
        """Assert that no script of others ran, nothing was blocked, and nothing was asked for elsewhere."""
        assert await self.page.evaluate("[window.ran, window.violations]") == [[], []]
        assert self.problems == []
        assert self.hosts <= {"127.0.0.1", None}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH; CI installs Debian's package of that name")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    opened = await chromium.new_context(
        viewport={"width": 1280, "height": 900},
        locale="en-GB",
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened.set_default_timeout(5_000)
    await opened.add_init_script(WATCH)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tab(context: BrowserContext) -> Page:
    """One tab for every test: a new one each time would cost a third of a second."""
    return await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def _nothing_left_in_loop(tab: Page) -> AsyncIterator[None]:
    """The check of every other test, on the loop that the browser and these tests share."""
    loop = asyncio.get_running_loop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    before = asyncio.all_tasks()
    yield
    await tab.goto("about:blank")
    left = {task for task in asyncio.all_tasks() - before if "playwright" not in repr(task)} - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"
    assert not problems, f"the loop's exception handler was told: {problems}"


@pytest_asyncio.fixture(loop_scope="session")
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(seed=3, password="keep-me-off-the-page") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def mfa(sim: Simulator) -> AsyncIterator[MFAClient]:
    async with MFAClient(**sim.client_kwargs(), retry=RetryPolicy(max_attempts=1)) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def watched(tab: Page, sim: Simulator) -> AsyncIterator[Watched]:
    """The inbox page, opened and live; checked at the end."""
    seen = Watched(tab)
    try:
        await tab.goto(sim.page_url)
        await tab.locator("#status[data-state=live]").wait_for()
        yield seen
        await seen.check()
    finally:
        seen.leave()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


async def until(page: Page, condition: Callable[[], object]) -> None:
    """Let the browser work until something is so on our side; fail after a few real seconds."""
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "it never came"
        await page.evaluate("new Promise((done) => setTimeout(done, 5))")
