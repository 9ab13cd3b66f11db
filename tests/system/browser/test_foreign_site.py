"""A foreign web site in the same browser reads no code and changes nothing, with and without a token."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async import MFAClient
from bandwidth_mfa_async.simulator import AccountLimits, Fault, Simulator
from tests.support.foreign_site import attack, foreign_site
from tests.system.browser.test_inbox_page import LOGIN, TO, messages

pytestmark = pytest.mark.asyncio(loop_scope="session")


# By the address the site is "same-site": ports do not count, and so a cookie without protection would be sent.
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("token", [False, True])
async def test_a_foreign_site_reads_nothing_and_changes_nothing(chromium, host, token):
    async with (
        Simulator(control_token=token) as sim,
        MFAClient(**sim.client_kwargs()) as mfa,
        foreign_site(host) as site,
    ):
        await mfa.generate_messaging_code(LOGIN.to(TO))
        sim.faults.script(Fault(status=503))
        sim.set_limits(voice=AccountLimits(rate=7))
        context = await chromium.new_context()
        try:
            own = await context.new_page()
            await own.goto(f"{sim.page_url}?token={sim.control_token}" if token else sim.page_url)
            await own.locator("#status[data-state=live]").wait_for()
            assert await messages(own).count() == 1
            assert own.url == sim.page_url
            page = await context.new_page()
            assert await attack(page, site, sim.page_url) == []
        finally:
            await context.close()
        assert [message.to for message in sim.inbox] == [TO]
        assert [rule.fault.status for rule in sim.faults.rules] == [503]
        assert sim.limits == {"messaging": None, "voice": AccountLimits(rate=7)}
        assert len(sim.requests) == 1
