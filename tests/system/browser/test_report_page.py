"""The report's page in a real browser: wide, narrow, dark, printed, and without its script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from bandwidth_mfa_async import JournalReport
from bandwidth_mfa_async.cli.report.page import render
from tests.support.journal_file import BEGAN, make_journal, make_launch
from tests.system.browser.conftest import WATCH, Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

EVIL = "</title><script>ran.push(1)</script><img src=http://127.0.0.1:9/x onerror=ran.push(1)>"
ACCEPTED = ("accepted", None, None, 0)
SCENES: dict[str, dict[str, Any]] = {
    "nothing": {"sessions": []},
    "one": {"items": [ACCEPTED], "seconds": {BEGAN: {"accepted": 1}}, "latency": [0.12]},
    "invalid": {
        "items": [("invalid", "InvalidRequestError", None, 0)] * 90,
        "seconds": {BEGAN + at: {"invalid": 30} for at in range(3)},
    },
    "all-429": {
        "items": [("rejected", "RateLimitError", 429, 1)] * 600,
        "seconds": {BEGAN + at: {"rejected": 10, "throttled": 30} for at in range(60)},
        "latency": [0.02] * 600,
    },
    "kills": {
        "items": [ACCEPTED] * 400 + [("unknown", "InterruptedRun", None, 0)] * 60 + [("sending", None, None, 0)] * 9,
        "seconds": {BEGAN + 100 * n + m: {"accepted": 20} for n in range(20) for m in range(10)},
        "sessions": [(BEGAN + 100.0 * n, None, None) for n in range(20)],
    },
    "evil": {"items": [("unknown", EVIL, 599, 0)] * 3, "run": EVIL, "channel": EVIL, "made_by": EVIL},
    "long-words": {"items": [("rejected", "W" * 120, 599, 0)], "run": "W" * 300},
    "months": {
        "items": [ACCEPTED] * 50,
        "seconds": {BEGAN + 3_600 * n: {"accepted": 50_000} for n in range(24 * 60)},
        "latency": [10 ** (n / 100) * 1e-5 for n in range(700)],
    },
}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scenes(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    journals = {name: make_journal(folder / f"{name}.db", **content) for name, content in SCENES.items()}
    journals["launch"] = make_launch(folder / "launch.db", items=6_000)
    pages = {}
    for name, journal in journals.items():
        pages[name] = folder / f"{name}.html"
        pages[name].write_text(render(JournalReport.read(journal)))
    return pages


@pytest_asyncio.fixture(loop_scope="session")
async def opened(chromium, scenes):
    """Open a scene in a new window; an error in any window fails the test."""
    watched: list[Watched] = []

    async def open_(name: str, *, width: int = 1280, scripts: bool = True, **options: Any):
        context = await chromium.new_context(
            viewport={"width": width, "height": 900}, java_script_enabled=scripts, **options
        )
        context.set_default_timeout(5_000)
        if scripts:
            await context.add_init_script(WATCH)
        page = await context.new_page()
        seen = Watched(page)
        watched.append(seen)
        await page.goto(scenes[name].as_uri())
        return page

    yield open_
    for seen in watched:
        if await seen.page.evaluate("'violations' in window"):
            await seen.check()
        assert seen.hosts <= {None}, "the page made a request"
        assert not seen.problems
        await seen.page.context.close()


@pytest.mark.parametrize("name", [*SCENES, "launch"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
async def test_the_page_fits_the_screen_and_makes_no_request(opened, name, width, scheme):
    """No injected script runs, nothing is wider than the screen, and no text is cut off at its edge."""
    page = await opened(name, width=width, color_scheme=scheme)
    await expect(page.locator("h1")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    for details in await page.locator("summary").all():
        await details.click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    outside = await page.evaluate(
        """() => [...document.querySelectorAll("svg text, h1, h2, p, dd, li, summary")]
          .filter((node) => !node.closest(".scroll"))
          .map((node) => [node.getBoundingClientRect(), node.textContent])
          .filter(([box]) => box.width && (box.left < 0 || box.right > innerWidth + 0.5))
          .map(([box, text]) => `${text} ${box.left} ${box.right}`)"""
    )
    assert outside == []


@pytest.mark.parametrize("width", [360, 800, 1000, 1280])
async def test_code_in_the_next_steps_is_not_broken_over_two_lines(opened, width):
    """The option can be copied, and does not leave its card."""
    page = await opened("launch", width=width)
    typed = page.locator(".steps li code")
    assert await typed.all_text_contents() == ["--resend at-least-once", "Resend.AT_LEAST_ONCE"]
    card = await page.locator(".steps").bounding_box()
    for code in await typed.all():
        assert await code.evaluate("node => node.getClientRects().length") == 1
        box = await code.bounding_box()
        assert box["x"] + box["width"] <= card["x"] + card["width"]


@pytest.mark.parametrize("name", [*SCENES, "launch"])
async def test_every_chart_has_a_name_a_sentence_and_a_table(opened, name):
    """Screen readers get the same information as the drawings."""
    page = await opened(name)
    for figure in await page.locator("figure").all():
        await expect(figure.locator("figcaption h2")).not_to_be_empty()
        await expect(figure.locator("figcaption p")).not_to_be_empty()
        drawings = figure.locator("svg[role=img]")
        for drawing in await drawings.all():
            assert len(await drawing.get_attribute("aria-label") or "") > 20
        if await figure.locator("svg").count():
            await expect(figure.get_by_role("table", include_hidden=True)).to_have_count(1)
    if name == "launch":
        names = await page.locator("figure h2").all_inner_texts()
        assert names == ["Codes over time", "Delivery outcomes", "Latency", "Failures by cause"]
        await expect(page.locator("svg[role=img]")).to_have_count(3)


async def test_labels_do_not_overlap(opened):
    """Ticks, percentiles and names have space on narrow and wide screens."""
    for width in (360, 820, 1280):
        for name in ("launch", "kills", "months", "all-429"):
            page = await opened(name, width=width)
            covered = await page.evaluate(
                """() => [...document.querySelectorAll("svg[role=img]")].flatMap((drawing) => {
                  const boxes = [...drawing.querySelectorAll("text")]
                    .map((node) => [node.getBoundingClientRect(), node.textContent]).filter(([box]) => box.width);
                  return boxes.flatMap(([a, one], index) => boxes.slice(index + 1)
                    .filter(([b]) => a.left < b.right && b.left < a.right)
                    .filter(([b]) => a.top + 2 < b.bottom && b.top + 2 < a.bottom)
                    .map(([, other]) => `${one} / ${other}`));
                })"""
            )
            assert covered == [], (name, width)


async def test_pointing_at_the_chart_shows_the_numbers(opened):
    """The readout shows one point's numbers, and the hint again after the pointer leaves."""
    page = await opened("launch")
    figure = page.locator("figure").filter(has_text="Codes over time")
    readout = figure.locator(".readout")
    await expect(readout).to_have_text("Point at the chart for the numbers of one moment.")
    await figure.locator(".point").nth(20).hover()
    await expect(readout).to_have_text(re.compile(r"^2026-11-23 05:2\d:\d\d: \d+ codes a second, \d+ accepted.* 429$"))
    await page.mouse.move(2, 2)
    await expect(readout).to_have_text("Point at the chart for the numbers of one moment.")
    assert await figure.locator(".point.on").count() == 0
    answers = page.locator("figure").filter(has_text="Latency")
    await answers.locator(".point").nth(5).hover()
    await expect(answers.locator(".readout")).to_have_text(re.compile(r"^\d.* ms to \d.* ms: .* answers, .* %$"))


async def test_the_page_is_complete_without_its_script(opened):
    """Charts, tables and tooltips do not need the script."""
    page = await opened("launch", scripts=False)
    await expect(page.locator(".readout").first).to_be_hidden()
    await expect(page.locator("svg[role=img] .area").first).to_be_visible()
    await page.get_by_text("points as a table").click()
    await expect(page.get_by_role("table", name="Codes over time, in numbers")).to_be_visible()
    assert "accepted" in (await page.locator(".point title").first.text_content())


async def test_tables_open_and_scroll_with_the_keyboard(opened):
    """A table opens with Enter, and its scroll area takes the focus."""
    page = await opened("launch", width=360)
    for _ in range(3):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.textContent.includes('points as a table')"):
            break
    await page.keyboard.press("Enter")
    region = page.get_by_role("region", name="Codes over time, in numbers")
    await expect(region).to_be_visible()
    await page.keyboard.press("Tab")
    await expect(region).to_be_focused()


async def test_colours_follow_the_colour_scheme_and_print_is_white(opened):
    """The page is dark in a dark colour scheme, but never when printed."""
    page = await opened("launch", color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = await page.evaluate(background)
    await page.emulate_media(color_scheme="light")
    assert await page.evaluate(background) != dark
    await page.emulate_media(media="print", color_scheme="dark")
    assert await page.evaluate(background) == "rgb(255, 255, 255)"
    await expect(page.locator(".readout").first).to_be_hidden()
    assert len(await page.pdf(format="A4")) > 10_000


async def test_the_page_shows_the_contents_of_the_journal(opened):
    """The headline and state are at the top; positions and sessions follow."""
    page = await opened("kills")
    await expect(page.locator("h1")).to_have_text("400 of 469 codes were accepted")
    await expect(page.locator("header")).to_contain_text("The last run was killed.")
    await expect(page.locator(".positions").first).to_have_text(re.compile(r"^Unknown: 400, 401, .* and 40 more$"))
    await expect(page.locator(".positions").nth(1)).to_contain_text("In flight or interrupted: 460, 461")
    await expect(page.get_by_role("table", name="Sessions").locator("tbody tr")).to_have_count(20)
    evil = await opened("evil")
    assert await evil.title() == f"{EVIL}: No code was accepted"[: len(await evil.title())]
    assert await evil.locator("img").count() == 0
