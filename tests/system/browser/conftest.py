"""Fixtures: one headless Chromium for the session, and a page that records every script that it must not run."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

# Only the browser may be missing. A missing package must fail, or CI would silently skip these tests.
from playwright.async_api import async_playwright

from bandwidth_mfa_async import MFAClient, RetryPolicy
from bandwidth_mfa_async.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from playwright.async_api import Browser, BrowserContext, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without the last flags Chromium connects to Google's hosts at every start.
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
    """A page with its recorded errors and the hosts that it requested."""

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

    def detach(self) -> None:
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
        """Assert that no injected script ran, nothing violated the policy, and no other host was requested."""
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
    """One tab for all tests; a new one takes a third of a second."""
    return await context.new_page()


@pytest_asyncio.fixture(loop_scope="session")
async def _nothing_left_in_loop(tab: Page) -> AsyncIterator[None]:
    """Check for leftover tasks on the event loop that the browser and these tests share."""
    loop = asyncio.get_running_loop()
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    before = asyncio.all_tasks()
    yield
    await tab.goto("about:blank")
    left = {task for task in asyncio.all_tasks() - before if "playwright" not in repr(task)} - {asyncio.current_task()}
    assert not left, f"tasks left running: {left}"
    assert not problems, f"the loop's exception handler was called: {problems}"


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
    """Open the inbox page, wait until it is live, and check it at the end."""
    seen = Watched(tab)
    try:
        await tab.goto(sim.page_url)
        await tab.locator("#status[data-state=live]").wait_for()
        yield seen
        await seen.check()
    finally:
        seen.detach()


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page


async def until(page: Page, condition: Callable[[], object]) -> None:
    """Let the browser run until the condition is true in this process; fail after 5 s of real time."""
    limit = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < limit, "the condition did not become true"
        await page.evaluate("new Promise((done) => setTimeout(done, 5))")
