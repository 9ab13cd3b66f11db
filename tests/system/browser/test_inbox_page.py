"""The inbox page in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from bandwidth_mfa_async import CodeTemplate, RequestError, ServerError
from bandwidth_mfa_async.simulator import AccountLimits, Fault, ReceiptPolicy
from tests.support.fault_server import basic_auth
from tests.system.browser.conftest import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

TO = "+19195551234"
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


def messages(page):
    return page.locator("#messages > li")


async def focused(page):
    return await page.evaluate("document.activeElement.id || document.activeElement.className")


async def test_an_empty_inbox_shows_how_to_send_a_code_but_no_secret(page, sim):
    await expect(page.locator("#inbox-empty")).to_be_visible()
    await expect(page.locator("#env")).to_contain_text(f"BW_MFA_URL={sim.base_url}")
    await expect(page.locator("#curl")).to_contain_text(f"{sim.base_url}/accounts/9900000/code/messaging")
    content = await page.content()
    for secret in (sim.password, sim.client_secret, sim.username + ":"):
        assert secret not in content


async def test_a_message_appears_live_and_its_code_is_copied_with_one_click(page, sim, mfa):
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(messages(page)).to_have_count(1)
    row = messages(page).first
    await expect(row).to_contain_text(f"Your Simulator login code is {sim.last_code(TO)}")
    for shown in (TO, "+19195554321", "Text", "login", "not requested"):
        await expect(row).to_contain_text(shown)
    await expect(page.locator("#inbox-empty")).to_be_hidden()
    await expect(page.locator("#announcer")).to_have_text(f"New code {sim.last_code(TO)} to {TO}")
    await expect(
        page.get_by_role("button", name=re.compile(rf"^{sim.last_code(TO)}\s*Copy code sent to \{TO}$"))
    ).to_be_visible()
    button = row.locator("button.code")
    await button.click()
    await expect(button).to_contain_text("Copied")
    await expect(page.locator("#announcer")).to_have_text(f"Code {sim.last_code(TO)} copied")
    assert await page.evaluate("navigator.clipboard.readText()") == sim.last_code(TO)


async def test_the_newest_message_is_first_and_calls_are_marked(page, mfa):
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await mfa.generate_voice_code(LOGIN.to("+19195550000"))
    await expect(messages(page)).to_have_count(2)
    await expect(messages(page).first).to_contain_text("Call")
    await expect(messages(page).first).to_contain_text("+19195550000")
    await messages(page).first.get_by_text("Details").click()
    await expect(messages(page).first).to_contain_text("Call ID")


async def test_the_filter_matches_a_part_of_a_number_in_any_notation(page, mfa):
    for number in (TO, "+19195550000", "+447700900123"):
        await mfa.generate_messaging_code(LOGIN.to(number))
    await expect(messages(page)).to_have_count(3)
    await page.get_by_label("Filter by number").fill("(919) 555-00")
    await expect(messages(page)).to_have_count(1)
    await expect(page.locator("#inbox-summary")).to_have_text("1 of 3 messages")
    await mfa.generate_messaging_code(LOGIN.to("+447700900123"))
    await mfa.generate_messaging_code(LOGIN.to("+19195550000"))
    await expect(messages(page)).to_have_count(2)
    await expect(page.locator("#inbox-count")).to_have_text("5")
    await page.get_by_label("Filter by number").fill("no such number")
    await expect(page.locator("#inbox-none")).to_be_visible()
    await page.get_by_role("button", name="Show all messages").click()
    await expect(messages(page)).to_have_count(5)


async def test_the_receipt_state_is_updated(page, sim, mfa):
    """At a closed port a receipt is retried in North America, and given up elsewhere."""
    sim.set_receipts(ReceiptPolicy(failed_numbers={"+447700900123"}))
    template = CodeTemplate("+19195554321", "app", callback_url="http://127.0.0.1:9/hook")
    await mfa.generate_messaging_code(template.to(TO))
    await expect(messages(page).first.locator(".receipt")).to_have_text("not accepted yet, retrying (delivered)")
    await mfa.generate_messaging_code(template.to("+447700900123"))
    await expect(messages(page).first.locator(".receipt")).to_have_text("given up (failed)")


async def test_requests_that_were_not_accepted_are_listed_with_their_reason(page, sim, mfa):
    await page.get_by_role("link", name="Not accepted").click()
    await expect(page.locator("#refused-empty")).to_be_visible()
    await mfa.verify_code(to=TO, code="0000", scope="login")
    await page.request.post(f"{sim.base_url}/accounts/9900000/code/messaging", data={})
    rows = page.locator("#attempts > li")
    await expect(rows).to_have_count(2)
    await expect(rows.nth(0)).to_contain_text("no Authorization header")
    await expect(rows.nth(0)).to_contain_text("401")
    await expect(rows.nth(1)).to_contain_text("no such code in that window and scope")
    await page.get_by_role("button", name="Clear list").click()
    await page.locator("#confirm-yes").click()
    await expect(page.locator("#refused-empty")).to_be_visible()
    assert sim.requests == []


async def test_a_scripted_fault_applies_to_the_next_sends_only(page, sim, mfa):
    await page.get_by_label("Status", exact=True).fill("503")
    await page.get_by_label("How many answers").fill("2")
    await page.get_by_label("Which requests").select_option("messaging")
    await page.get_by_role("button", name="Add fault").click()
    rules = page.locator("#rules > li")
    await expect(rules).to_have_text(re.compile("Next 2 answers.*answer 503.*Text messages"))
    with pytest.raises(ServerError) as caught:
        await mfa.generate_messaging_code(LOGIN.to(TO))
    assert caught.value.status == 503
    await expect(rules).to_have_text(re.compile("Next answer.*answer 503"))
    await expect(page.locator("#attempts")).to_contain_text("Injected fault: answer 503")
    await page.get_by_role("button", name="Clear faults").click()
    await expect(page.locator("#rules-none")).to_be_visible()
    assert not sim.faults
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(messages(page)).to_have_count(1)


async def test_faults_are_removed_one_by_one(page, sim):
    sim.faults.script(*[Fault(status=500)] * 450, Fault(status=501))
    sim.faults.chance(Fault(status=502), 0.25)
    rules = page.locator("#rules > li")
    await expect(rules).to_have_count(3)
    await page.get_by_role("button", name="Remove Next 450 answers: answer 500").click()
    await expect(rules).to_have_count(2)
    await expect(page.locator("#announcer")).to_have_text("Removed: Next 450 answers: answer 500")
    assert [rule.fault.status for rule in sim.faults.rules] == [501, 502]
    await page.get_by_role("button", name="Remove 25 % of answers").click()
    await expect(rules).to_have_count(1)  # to_have_text fails at once while there are two
    await expect(rules).to_have_text(re.compile("Next answer.*answer 501"))
    await expect(page.locator("#clear-faults")).to_be_visible()
    assert len(sim.faults.rules) == 1


async def test_a_message_shows_its_verification_and_a_sender_without_an_answer(page, sim, mfa):
    row = messages(page).first
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(row.locator(".verified")).to_have_text("not yet")
    await expect(row.locator(".answer")).to_be_hidden()
    await mfa.verify_code(to=TO, code=sim.last_code(TO), scope="login")
    await expect(row.locator(".verified time")).to_be_visible()
    sim.faults.script(Fault(drop="after_read"), Fault(status=503, accepted=True))
    for shown in ("got no answer", "got 503"):
        with pytest.raises(RequestError):
            await mfa.generate_messaging_code(LOGIN.to(TO))
        await expect(row.locator(".answer")).to_have_text(shown)
    # They were accepted, so they are not among those that were not.
    await expect(page.locator("#refused-count")).to_have_text("0")
    await page.reload()
    await expect(row.locator(".answer")).to_have_text("got 503")


async def test_a_receipt_is_posted_again_from_the_page(page, sim, mfa):
    template = CodeTemplate("+19195554321", "app", callback_url="http://127.0.0.1:9/hook")
    await mfa.generate_messaging_code(template.to("+447700900123"))
    row = messages(page).first
    await expect(row.locator(".receipt")).to_have_text("given up (delivered)")
    await row.get_by_text("Details").click()
    changes = []
    sim._inbox.change_listeners.append(lambda message: changes.append(str(message.receipt)))
    await row.get_by_role("button", name="Post the receipt again").click()
    await until(page, lambda: changes == ["pending", "given_up"])
    await expect(page.locator("#announcer")).to_have_text("The receipt is posted again")
    template = CodeTemplate("+19195554321", "app", callback_url="http://example.com/hook")
    await mfa.generate_messaging_code(template.to(TO))
    await expect(messages(page)).to_have_count(2)
    await row.get_by_text("Details").click()
    await row.get_by_role("button", name="Post the receipt again").click()
    await expect(page.locator("#announcer")).to_contain_text("not posted to other machines")


@pytest.mark.parametrize("width", [320, 390])
async def test_an_offline_page_fits_and_does_not_say_that_there_are_no_codes(chromium, sim, width):
    context = await chromium.new_context(viewport={"width": width, "height": 800}, locale="en-GB")
    try:
        page = await context.new_page()
        await page.goto(sim.page_url)
        await expect(page.locator("#inbox-empty")).to_be_visible()
        await page.evaluate("document.querySelector('#curl').textContent.length > 200 || Promise.reject()")
        assert await page.evaluate(CLIPPED) == []
        await sim.refuse_connections()
        await expect(page.locator("#status")).to_have_text("Offline, retrying")
        await expect(page.locator("#inbox-empty")).to_be_hidden()
        await expect(page.locator("#inbox-offline")).to_contain_text("does not answer")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(TOO_WIDE) == []
        await page.get_by_role("link", name="Not accepted").click()
        await expect(page.locator("#refused-empty")).to_be_hidden()
        await page.get_by_role("link", name="Controls").click()
        await page.get_by_role("button", name="Add fault").click()
        await sim.accept_connections()
        await page.get_by_role("link", name="Inbox").click()
        await expect(page.locator("#inbox-empty")).to_be_visible(timeout=10_000)
        await expect(page.locator("#inbox-offline")).to_be_hidden()
    finally:
        await context.close()


async def test_drops_delays_and_random_faults_can_be_added(page, sim):
    kind, add = page.get_by_label("What happens"), page.get_by_role("button", name="Add fault")
    await kind.select_option("after_read")
    await page.get_by_label("Only to the number").fill("+1 (919) 555-1234")
    await add.click()
    await until(page, lambda: sim.faults.rules)
    assert sim.faults.rules[0].fault == Fault(drop="after_read", accepted=True)
    assert sim.faults.rules[0].to == TO
    await page.get_by_label("Only to the number").fill("")
    await kind.select_option("forever")
    await page.get_by_label("Share of answers in percent").fill("12.5")
    await add.click()
    await until(page, lambda: len(sim.faults.rules) == 2)
    assert sim.faults.rules[1].probability == 0.125
    assert sim.faults.rules[1].fault == Fault(delay=float("inf"))
    await page.get_by_label("Share of answers in percent").fill("90")
    await add.click()
    await expect(page.locator("#fault-problem")).to_contain_text("more than 1")
    await page.get_by_label("Share of answers in percent").fill("")
    await add.click()
    await expect(page.locator("#fault-problem")).to_have_text("the share must be a number from 0 to 100")


async def test_the_limit_can_be_changed_and_shows_other_changes(page, sim):
    await page.get_by_label("Model").select_option("token_bucket")
    await page.get_by_label("Messages", exact=True).fill("5")
    await page.get_by_label("per seconds").fill("1")
    await page.get_by_label("Burst").fill("10")
    await page.get_by_role("button", name="Apply limit").click()
    await expect(page.locator("#limit-now")).to_have_text("5 per 1 s, bucket of 10")
    assert sim.limits["messaging"] == AccountLimits(rate=5, per=1, model="token_bucket", burst=10)
    sim.set_limits(messaging=AccountLimits(rate=60, per=60))
    await expect(page.locator("#limit-now")).to_have_text("60 per 60 s, queue of 900 s")
    await expect(page.get_by_label("Model")).to_have_value("queue")
    await page.get_by_label("Messages", exact=True).fill("0")
    await page.get_by_role("button", name="Apply limit").click()
    await expect(page.locator("#limit-problem")).to_have_text("messages must be a number above 0")
    await page.get_by_label("Channel").select_option("voice")
    await expect(page.locator("#limit-now")).to_have_text("no limit")
    await expect(page.get_by_label("Messages", exact=True)).to_be_hidden()
    sim.set_limits(messaging=None)


async def test_clearing_needs_confirmation_and_updates_all_tabs(page, context, sim, mfa):
    other = await context.new_page()
    await other.goto(sim.page_url)
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(messages(other)).to_have_count(1)
    await page.bring_to_front()
    await page.get_by_role("button", name="Clear inbox").click()
    await page.keyboard.press("Escape")
    assert len(sim.inbox) == 1
    await page.get_by_role("button", name="Clear inbox").click()
    await page.locator("#confirm-yes").click()
    for each in (page, other):
        await expect(messages(each)).to_have_count(0)
        await expect(each.locator("#inbox-empty")).to_be_visible()
    assert sim.inbox == []
    await other.close()


async def test_the_page_is_usable_with_the_keyboard(page, sim, mfa):
    """Skip link, copy a code, add a fault and clear the inbox without a pointer."""
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(messages(page)).to_have_count(1)
    press = page.keyboard.press
    await press("Tab")
    assert await focused(page) == "skip"
    await press("Enter")
    assert await focused(page) == "main"
    for stop in ("filter", "clear-inbox", "code"):
        await press("Tab")
        assert await focused(page) == stop
        style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", f"no visible focus on {stop}"
    await press("Enter")
    await expect(page.locator("#announcer")).to_have_text(f"Code {sim.last_code(TO)} copied")
    await press("Tab")
    await press("Enter")
    await expect(messages(page).locator("details")).to_have_attribute("open", "")
    await page.locator("#fault-status").focus()
    await press("Enter")
    await until(page, lambda: sim.faults)
    await page.locator("#clear-inbox").focus()
    await press("Enter")
    assert await focused(page) == "confirm-no"
    await press("Tab")
    assert await focused(page) == "confirm-yes"
    await press("Enter")
    await expect(messages(page)).to_have_count(0)
    await expect(page.locator("#inbox-title")).to_be_focused()


async def test_5000_messages_are_shown_in_pages(page, sim, mfa):
    body = b'{"to":"+1919555%04d","from":"+19195554321","applicationId":"a"}'
    login = basic_auth(sim.username, sim.password)
    for index in range(5000):
        sim._service.handle("messaging", "9900000", login, body % index)
    await expect(page.locator("#inbox-summary")).to_have_text("The newest 100 of 5,000")
    await expect(messages(page)).to_have_count(100)
    await page.get_by_role("button", name="Show older messages").click()
    await expect(messages(page)).to_have_count(200)
    assert await focused(page) == "message"
    await page.get_by_label("Filter by number").fill("5550017")
    await expect(messages(page)).to_have_count(1)
    await page.get_by_label("Filter by number").fill("")
    await expect(messages(page)).to_have_count(100)
    # A new message is added at the top; the other entries stay.
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(messages(page).first).to_contain_text(TO)
    await expect(page.locator("#inbox-count")).to_have_text("5,001")
    assert await page.evaluate("document.getElementsByTagName('*').length") < 6000


async def test_100000_messages_take_no_more_of_the_tab_than_1000(chromium, sim):
    """Those that were there, and those that arrive while the page is open."""
    body = b'{"to":"+1919%07d","from":"+19195554321","applicationId":"a"}'
    login = basic_auth(sim.username, sim.password)
    context = await chromium.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = await context.new_page()
        page.set_default_timeout(30_000)
        session = await context.new_cdp_session(page)

        async def memory() -> float:
            await session.send("HeapProfiler.collectGarbage")
            found = await session.send("Runtime.getHeapUsage")
            return float(found["usedSize"])

        async def send(first: int, last: int) -> None:
            for index in range(first, last):
                sim._service.handle("messaging", "9900000", login, body % index)
                if index % 500 == 0:
                    await asyncio.sleep(0)
            await expect(page.locator("#inbox-count")).to_have_text(f"{last:,}", timeout=30_000)

        await page.goto(sim.page_url)
        await send(0, 1_000)
        few = await memory()
        await send(1_000, 100_000)
        assert await memory() < 2 * few
        await page.reload()
        await expect(page.locator("#inbox-summary")).to_have_text("The newest 100 of 100,000")
        assert await memory() < 2 * few
        assert await page.evaluate("document.getElementsByTagName('*').length") < 6000
        await page.get_by_label("Filter by number").fill("19 009 9999")
        await expect(messages(page)).to_have_count(1)
    finally:
        await context.close()


async def test_the_page_reconnects_to_the_simulator(page, sim, mfa):
    await sim.refuse_connections()
    await expect(page.locator("#status")).to_have_text("Offline, retrying")
    await sim.accept_connections()
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await expect(page.locator("#status")).to_have_text("Live", timeout=10_000)
    await expect(messages(page)).to_have_count(1)


async def test_a_link_from_another_site_opens_the_page(tab, sim):
    page = tab
    await page.goto(f"http://localhost:{sim.port}/")
    await page.evaluate(
        "url => document.body.append(Object.assign(document.createElement('a'),"
        " {href: url, textContent: 'the inbox'}))",
        sim.page_url,
    )
    await page.get_by_text("the inbox").click()
    await page.wait_for_url(sim.page_url)
    await expect(page.locator("h1")).to_have_text("MFA simulator")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_the_page_fits_and_has_contrast_in_all_widths_and_colour_schemes(
    chromium, sim, mfa, width, scheme, tmp_path
):
    """No element is wider than the window, and every text has the contrast that WCAG AA requires."""
    folder = Path(os.environ.get("SHOTS", tmp_path))
    await mfa.generate_messaging_code(LOGIN.to(TO))
    await mfa.generate_voice_code(LOGIN.to("+447700900123"))
    await mfa.verify_code(to=TO, code="0000", scope="login")
    sim.faults.script(Fault(status=503))
    context = await chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce", locale="en-GB"
    )
    try:
        page = await context.new_page()
        for view in ("inbox", "refused", "controls"):
            await page.goto(f"{sim.page_url}#{view}")
            await expect(page.locator("#status")).to_have_text("Live")
            await expect(page.locator("body")).to_have_attribute("data-view", view)
            await expect(page.locator(f"#view-{view} h2").first).to_be_visible()
            await page.screenshot(path=folder / f"{view}-{width}-{scheme}.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await page.evaluate(TOO_WIDE) == []
            assert await page.evaluate(TOO_FAINT) == []
        assert await page.evaluate("document.getAnimations().length") == 0
    finally:
        await context.close()


# Text that ends at an edge without a sign that there is more.
CLIPPED = """() => [...document.querySelectorAll("pre, code")].filter((element) =>
  element.checkVisibility() && element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0
).map((element) => element.outerHTML.slice(0, 120))"""

TOO_WIDE = """() => [...document.querySelectorAll("body *")].filter((element) => {
  if (!element.checkVisibility({visibilityProperty: true}) || element.closest("pre, .hidden, .skip, svg")) return false;
  const box = element.getBoundingClientRect();
  return box.right > innerWidth + 0.5 || box.left < -0.5;
}).map((element) => element.outerHTML.slice(0, 120))"""

TOO_FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = rgb(getComputedStyle(each).backgroundColor);
      if (color[3] === 255) return color;
    }
    return [255, 255, 255, 255];
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest(":disabled, .hidden, noscript")) continue;
    const [one, two] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (two + 0.05) < 4.5) faint.push(`${element.tagName}.${element.className} ${element.textContent}`);
  }
  return faint;
}"""
