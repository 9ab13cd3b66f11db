"""The inbox page shows hostile text in messages as text and never runs it."""

from __future__ import annotations

import json

import aiohttp
import pytest
from playwright.async_api import expect

from bandwidth_mfa_async.simulator import Fault
from tests.support.fault_server import basic_auth

pytestmark = pytest.mark.asyncio(loop_scope="session")

TO = "+19195551234"
HOSTILE = (
    "<img src=x onerror=ran.push(1)>",
    "</script><script>ran.push(1)</script>",
    "javascript:ran.push(1)//",
    "\"'><svg onload=ran.push(1)>",
    "{{7*7}}${ran.push(1)}",
    "\u202eright to left\u2066",
    "a\u0000b\u2028c\r\nevent: reload\ndata: {}\n\n",
    "<style>*{display:none}</style>",
    "<a href=javascript:ran.push(1) autofocus onfocus=ran.push(1)>x</a>",
    "\ud800 alone",
)


async def post(sim, name, body):
    login = basic_auth(sim.username, sim.password)
    url = f"{sim.base_url}/accounts/9900000/code/{name}"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=json.dumps(body), headers={"Authorization": login}) as response,
    ):
        return response.status


def shown(text):
    """Return the text as Playwright returns it: lone surrogates become U+FFFD."""
    return text.replace("\ud800", "\ufffd")


async def content(locator):
    return await locator.evaluate("node => node.textContent.toWellFormed()")


async def test_hostile_text_in_every_field_is_shown_and_not_run(watched, sim):
    """The fixture asserts at the end that no script ran, no dialog opened and no policy was violated."""
    page = watched.page
    for evil in HOSTILE:
        body = {
            "to": TO,
            "from": "+19195554321",
            "applicationId": evil[:50],
            "scope": evil[:25],
            "message": f"{evil} {{CODE}} {{SCOPE}} {evil}",
            "digits": 6,
            "callbackUrl": evil,
        }
        assert await post(sim, "messaging", body) == 200
        assert await post(sim, "voice", body) == 200
        assert await post(sim, "messaging", body | {"to": evil}) == 400
        sim.faults.script(Fault(status=599, body=evil.encode(errors="replace"), headers={"X": "<b>"}), to=evil)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{sim.port}/<img onerror=ran.push(1)>") as response,
    ):
        assert response.status == 403

    rows, attempts = page.locator("#messages > li"), page.locator("#attempts > li")
    await expect(rows).to_have_count(2 * len(HOSTILE))
    await expect(attempts).to_have_count(1 + len(HOSTILE))
    await expect(page.locator("#rules > li")).to_have_count(len(HOSTILE))
    assert "<img onerror=ran.push(1)>" in await content(attempts.first)
    for index, evil in enumerate(HOSTILE):
        row = rows.nth(2 * (len(HOSTILE) - index) - 1)
        text = await content(row.locator(".text"))
        assert text == shown(sim.inbox[2 * index].text)
        assert text.startswith(shown(evil))
        assert await content(row.locator(".facts bdi").first) == shown(evil[:25])
        assert shown(evil) in await content(row.locator("details"))
        assert shown(evil) in await content(attempts.nth(len(HOSTILE) - index))
        assert shown(evil) in await content(page.locator("#rules > li").nth(index))
    for evil in HOSTILE:
        await page.get_by_label("Filter by number").fill(evil)
    assert await page.locator("main").locator("img, script, style, svg, a[href^=javascript]").count() == 0
    for view in ("refused", "inbox"):
        await page.goto(f"{sim.page_url}#{view}")
        await page.reload()
        await expect(page.locator("#status")).to_have_text("Live")


async def test_a_long_text_is_shortened_and_can_be_expanded(page, sim):
    long = "x" * 2040 + "{CODE}"
    body = {"to": TO, "from": "+19195554321", "applicationId": "a", "message": long, "digits": 8}
    assert await post(sim, "messaging", body) == 200
    text = page.locator("#messages .text")
    await expect(text).to_have_text(sim.inbox[0].text)
    short_height = (await text.bounding_box())["height"]
    more = page.get_by_role("button", name="Show all of it")
    await expect(more).to_have_attribute("aria-expanded", "false")
    await more.click()
    assert (await text.bounding_box())["height"] > 2 * short_height
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="Show less").click()
