"""A browser test of a sign-in page, as users would write it: it reads the code through the JSON control API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import expect

from tests.system.browser.signin_app import make_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="session")

TO = "+19195551234"


@pytest_asyncio.fixture(loop_scope="session")
async def signin(sim) -> AsyncIterator[str]:
    """Run the application and return its address."""
    runner = web.AppRunner(make_app(**sim.client_kwargs()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def latest(sim):
    """Return a function that reads the newest code of a number from the control API."""
    async with aiohttp.ClientSession() as session:

        async def read(to: str) -> str:
            params = {"to": to, "wait": "5"}
            async with session.get(sim.control_url + "/messages/latest", params=params) as response:
                return (await response.json())["code"]

        yield read


async def submit(page, label, text, button):
    await page.get_by_label(label).fill(text)
    await page.get_by_role("button", name=button).click()


async def test_the_right_code_signs_in(tab, signin, latest):
    page = tab
    await page.goto(signin)
    await submit(page, "Phone number", TO, "Send me a code")
    await expect(page.get_by_role("heading")).to_have_text("Enter your code")
    await submit(page, "Code", await latest(TO), "Sign in")
    await expect(page.get_by_role("heading")).to_have_text("Welcome")
    await expect(page.get_by_role("status")).to_have_text(f"You are in, {TO}.")


async def test_wrong_codes_are_rejected_and_then_the_number_is_locked(tab, signin, latest):
    page = tab
    await page.goto(signin)
    await submit(page, "Phone number", "call me", "Send me a code")
    await expect(page.get_by_role("status")).to_have_text("That is not a phone number.")
    await submit(page, "Phone number", TO, "Send me a code")
    code = await latest(TO)
    wrong = "1" + code[1:] if code[0] != "1" else "2" + code[1:]
    for _ in range(5):
        await submit(page, "Code", wrong, "Sign in")
        await expect(page.get_by_role("status")).to_have_text("That code is not right.")
    await submit(page, "Code", code, "Sign in")
    await expect(page.get_by_role("heading")).to_have_text("Too many tries")
