"""The inbox page behind nginx under a prefix: the live stream, the buttons and the links work."""

from __future__ import annotations

import pytest
import yarl
from playwright.async_api import expect

from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.simulator import Simulator, wait_until_ready
from tests.support.nginx import NGINX, reverse_proxy
from tests.system.browser.conftest import until
from tests.system.browser.test_inbox_page import LOGIN, TO, messages

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(NGINX is None, reason="there is no nginx"),
]


@pytest.mark.parametrize("directives", [(), ("proxy_set_header Host $http_host;",), ("proxy_set_header Host $host;",)])
@pytest.mark.parametrize("token", [False, True])
async def test_stream_buttons_and_links_work_under_a_prefix(chromium, tmp_path, token, directives):
    async with Simulator(control_token=token) as sim, MFAClient(**sim.client_kwargs()) as direct:
        target = f"proxy_pass {sim.page_url};"
        with reverse_proxy(tmp_path, "/team/mfa/", target, *directives) as address:
            await wait_until_ready(address, 20)
            context = await chromium.new_context(viewport={"width": 1280, "height": 900})
            try:
                page = await context.new_page()
                page.set_default_timeout(5_000)
                await page.goto(address + (f"?token={sim.control_token}" if token else ""))
                await expect(page.locator("#status")).to_have_text("Live")
                assert page.url == address
                await expect(page.locator("#base-url")).to_have_text(f"{address}api/v1")
                # The address that the page shows is that of the service behind the proxy.
                async with MFAClient(**{**sim.client_kwargs(), "base_url": f"{address}api/v1"}) as proxied:
                    await proxied.generate_messaging_code(LOGIN.to(TO))
                await expect(messages(page)).to_have_count(1)
                await direct.generate_messaging_code(LOGIN.to(TO))
                await expect(messages(page)).to_have_count(2)
                await page.get_by_role("button", name="Add fault").click()
                await until(page, lambda: sim.faults.rules)
                await page.get_by_role("button", name="Remove Next answer").click()
                await until(page, lambda: not sim.faults)
                await page.get_by_label("Model").select_option("sliding_log")
                await page.get_by_role("button", name="Apply limit").click()
                await until(page, lambda: sim.limits["messaging"])
                await page.get_by_role("link", name="Not accepted").click()
                assert page.url == f"{address}#refused"
                await page.get_by_role("link", name="Inbox").click()
                await page.get_by_role("button", name="Clear inbox").click()
                await page.locator("#confirm-yes").click()
                await expect(page.locator("#inbox-empty")).to_be_visible()
                assert not sim.inbox
                document = await page.request.get(f"{address}_simulator/openapi.json")
                server = (await document.json())["servers"][0]["url"]
                base = yarl.URL(document.url).join(yarl.URL(server + "/"))
                assert str(base / "messages") == f"{address}_simulator/messages"
            finally:
                await context.close()
