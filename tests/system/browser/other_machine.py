"""A program on another machine than the simulator: an app that signs a person in, and a browser on the inbox page.

It prints what it saw as JSON. Its environment has the variables of the simulator's .env block, and `PAGE`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from playwright.async_api import async_playwright

from bandwidth_mfa_async import CodeRequest, CodeTemplate, MessagingCodeResponse, MFAClient, VerifyCodeResponse
from tests.support.fault_server import basic_auth
from tests.support.foreign_site import attack, foreign_site

TO = "+19195551234"
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")


async def latest(origin: str, after: str, token: str | None) -> dict[str, str]:
    """Wait for the next code as a browser test does."""
    url = f"{origin}/_simulator/messages/latest"
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    query = {"to": TO, "after": after, "wait": "20"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params=query, headers=headers) as response,
    ):
        found: dict[str, str] = await response.json()
        return found


class PlainClient:
    """An app that uses aiohttp alone."""

    def __init__(self) -> None:
        env = os.environ
        self._url = f"{env['BW_MFA_URL']}/accounts/{env['BW_ACCOUNT_ID']}/code"
        self._headers = {"Authorization": basic_auth(env["BW_USERNAME"], env["BW_PASSWORD"])}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(headers=self._headers, raise_for_status=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def _post(self, name: str, body: dict[str, object]) -> dict[str, Any]:
        async with self._session.post(f"{self._url}/{name}", json=body) as response:
            found: dict[str, Any] = await response.json()
            return found

    async def generate_messaging_code(self, request: CodeRequest) -> MessagingCodeResponse:
        sent = await self._post("messaging", self._body(request))
        return MessagingCodeResponse(message_id=sent["messageId"])

    async def generate_voice_code(self, request: CodeRequest) -> None:
        await self._post("voice", self._body(request))

    async def verify_code(self, *, to: str, code: str, scope: str) -> VerifyCodeResponse:
        body: dict[str, object] = {"to": to, "code": code, "scope": scope, "expirationTimeInMinutes": 3}
        return VerifyCodeResponse(valid=(await self._post("verify", body))["valid"])

    @staticmethod
    def _body(request: CodeRequest) -> dict[str, object]:
        return {
            "to": request.to,
            "from": request.from_,
            "applicationId": request.application_id,
            "scope": request.scope,
            "message": request.message,
            "digits": request.digits,
        }


async def main(chromium: str) -> None:
    page_url, token = os.environ["PAGE"], os.environ["BW_SIMULATOR_TOKEN"]
    parts = urlsplit(page_url)
    origin = f"{parts.scheme}://{parts.netloc}"
    seen: dict[str, object] = {}
    # Over plain http this library sends no credentials to another machine, but other programs do.
    app = MFAClient.from_env if parts.scheme == "https" else PlainClient
    async with async_playwright() as playwright, app() as mfa:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        context = await browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 900})
        page = await context.new_page()
        await page.goto(page_url)
        await page.locator("#status[data-state=live]").wait_for()
        seen["page"] = page.url == f"{origin}/"
        first = await mfa.generate_messaging_code(LOGIN.to(TO))
        await page.locator("#messages > li").first.wait_for()
        waiting = asyncio.create_task(latest(origin, first.message_id, token))
        await mfa.generate_voice_code(LOGIN.to(TO))
        message = await waiting
        seen["channel"] = message["channel"]
        seen["valid"] = (await mfa.verify_code(to=TO, code=message["code"], scope="login")).valid
        await page.locator("#messages > li").first.locator(".verified time").wait_for()
        seen["messages"] = await page.locator("#messages > li").count()
        await page.get_by_role("button", name="Add fault").click()
        await page.locator("#rules > li").first.wait_for()
        async with aiohttp.ClientSession() as session:
            for path in ("", "_simulator/messages", "_simulator/ready"):
                async with session.get(f"{origin}/{path}") as response:
                    seen[f"/{path} without the token"] = response.status
        async with foreign_site() as site:
            seen["foreign site"] = await attack(page, site, f"{origin}/")
        await page.goto(f"{origin}/")
        await page.locator("#rules > li").first.wait_for()
        seen["afterwards"] = await page.locator("#messages > li").count()
        await browser.close()
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
