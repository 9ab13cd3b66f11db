"""What an installed wheel must be able to do, with nothing but the core; run by .ci/run outside of the checkout."""

from __future__ import annotations

import asyncio
import pathlib

import bandwidth_mfa_async
from bandwidth_mfa_async import CodeTemplate, MFAClient
from bandwidth_mfa_async.simulator import Simulator


async def main() -> None:
    template = CodeTemplate("+19195554321", "any", scope="smoke")
    async with Simulator() as sim, MFAClient(**sim.client_kwargs()) as mfa:
        sent = await mfa.generate_messaging_code(template.to("+19195551234"))
        assert sent.message_id == sim.inbox[-1].message_id
        check = await mfa.verify_code(to="+19195551234", code=sim.inbox[-1].code, scope="smoke")
        assert check.valid
        called = await mfa.generate_voice_code(template.to("+19195551234"))
        assert called.call_id


package = pathlib.Path(bandwidth_mfa_async.__file__).parent
assert "site-packages" in str(package), f"not the installed package: {package}"
assert (package / "py.typed").exists()
asyncio.run(main())
print(f"wheel {bandwidth_mfa_async.__version__} works")
