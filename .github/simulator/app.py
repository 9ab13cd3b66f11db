"""Signs a person in: sends a code, reads it in the simulator's inbox as a browser test does, and verifies it."""

import asyncio
import os
import ssl

import aiohttp

from bandwidth_mfa_async import CodeTemplate, MFAClient

login = CodeTemplate(from_="+19195554321", application_id="any", scope="login")


async def received_code(number: str) -> str:
    """Wait for the newest code to a number."""
    origin = os.environ["BW_MFA_URL"].removesuffix("/api/v1")
    headers = {"Authorization": f"Bearer {os.environ['BW_SIMULATOR_TOKEN']}"}
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())  # reads SSL_CERT_FILE
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers, raise_for_status=True) as session,
        session.get(f"{origin}/_simulator/messages/latest", params={"to": number, "wait": "10"}) as response,
    ):
        return (await response.json())["code"]


async def main() -> None:
    """Sign one person in."""
    number = "+19195551234"
    async with MFAClient.from_env() as mfa:
        await mfa.generate_messaging_code(login.to(number))
        check = await mfa.verify_code(to=number, code=await received_code(number), scope="login")
    print("signed in" if check.valid else "wrong code")


asyncio.run(main())
