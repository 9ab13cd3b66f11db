"""The web recipes of README and the guide, each on its real server in a separate process, against the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest
from fastapi.encoders import jsonable_encoder

from bandwidth_mfa_async import VerifyCodeResponse
from bandwidth_mfa_async.simulator import Fault, Simulator
from bandwidth_mfa_async.testing import ManualClock
from tests.support import processes
from tests.support.fault_server import environment, refused_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE = pathlib.Path(__file__).parent
README = (HERE.parents[2] / "README.md").read_text()
GUIDE = (HERE.parents[2] / ".github" / "guides" / "web-apps.md").read_text()
RUN_AIOHTTP = (
    "import sys; from aiohttp import web; from with_aiohttp import app; "
    "web.run_app(app, host=sys.argv[1], port=int(sys.argv[2]))"
)
SERVERS = {
    "with_fastapi": ["-m", "uvicorn", "with_fastapi:app", "--host", "{host}", "--port", "{port}"],
    "with_starlette": ["-m", "uvicorn", "with_starlette:app", "--host", "{host}", "--port", "{port}"],
    "with_aiohttp": ["-c", RUN_AIOHTTP, "{host}", "{port}"],
    # Worker processes share a socket that stays open while they drain, so use a single process.
    "with_quart": ["-m", "hypercorn", "with_quart:app", "--bind", "{host}:{port}", "--workers", "0"],
}
TIMEOUT = 30.0
# The request is processed, but the response is delayed until the test advances the simulator's clock.
DELAYED = Fault(delay=1.0)


class App:
    """A recipe on its server, and a simulator with a manual clock."""

    def __init__(self, sim: Simulator, clock: ManualClock, process: asyncio.subprocess.Process, port: int) -> None:
        self.sim, self.clock, self.process, self.port = sim, clock, process, port
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    async def post(self, path: str, **form: str) -> tuple[int, Any, str | None]:
        async with self.session.post(path, json=form) as response:
            return response.status, await response.json(), response.headers.get("Retry-After")

    async def received(self, count: int) -> None:
        """Wait until the service has received `count` requests."""
        async with asyncio.timeout(TIMEOUT):
            while len(self.sim.requests) < count:
                await asyncio.sleep(0.005)

    async def is_listening(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionError:
            return False
        # A socket that connects to a free port of its own range may connect to itself.
        itself = writer.get_extra_info("sockname") == writer.get_extra_info("peername")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return not itself

    async def until_listening(self, wanted: bool) -> None:
        async with asyncio.timeout(TIMEOUT):
            while await self.is_listening() is not wanted:
                assert self.process.returncode is None or not wanted, "the server ended"
                await asyncio.sleep(0.02)

    async def wait_ended(self) -> None:
        """Wait until the server has ended after SIGTERM, and check its exit code."""
        async with asyncio.timeout(TIMEOUT):
            await self.process.wait()
        # uvicorn raises the signal again after its shutdown.
        assert self.process.returncode in {0, -signal.SIGTERM}


@pytest.fixture(params=SERVERS)
async def app(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> AsyncIterator[App]:
    clock, port = ManualClock(), refused_port()
    arguments = [part.format(host="127.0.0.1", port=port) for part in SERVERS[request.param]]
    log = tmp_path / "server.log"
    async with Simulator(clock=clock) as sim:
        with log.open("wb") as output:
            process = await processes.start_async(
                sys.executable,
                *arguments,
                cwd=HERE,
                env=os.environ | environment(sim),
                stdout=output,
                stderr=processes.STDOUT,
            )
        running = App(sim, clock, process, port)
        try:
            await running.until_listening(True)
            yield running
        finally:
            await running.session.close()
            await processes.end_async(process)
    assert "Traceback" not in log.read_text()


async def test_concurrent_sign_ins_each_get_their_own_code(app: App) -> None:
    """Each number gets its own code; only that code signs in."""

    async def sign_in(number: str) -> None:
        assert await app.post("/code", number=number) == (200, {"status": "sent"}, None)
        code = app.sim.last_code(number)
        wrong = code[:-1] + str((int(code[-1]) + 1) % 10)
        assert await app.post("/check", number=number, code=wrong) == (200, {"valid": False}, None)
        assert await app.post("/check", number=number, code=code) == (200, {"valid": True}, None)

    await asyncio.gather(*(sign_in(f"+1919555{n:04}") for n in range(100, 130)))
    assert len(app.sim.inbox) == 30


async def test_a_code_is_accepted_as_a_person_types_it(app: App) -> None:
    """With blanks, dashes and a line break, and from another keyboard."""
    number = "+19195550177"
    assert await app.post("/code", number=number) == (200, {"status": "sent"}, None)
    code = app.sim.last_code(number)
    foreign = "".join(chr(0x0660 + int(digit)) for digit in code)
    for typed in (f" {code[:3]} {code[3:]}\n", f"{code[:3]}-{code[3:]}", f"\u200e{foreign}"):
        assert await app.post("/check", number=number, code=typed) == (200, {"valid": True}, None)


def test_fastapi_returns_a_response_as_a_dict() -> None:
    """FastAPI cannot encode a class with slots; `attrs.asdict` converts it, as the guide says."""
    assert "`attrs.asdict(check)`" in GUIDE
    check = VerifyCodeResponse(valid=True)
    assert jsonable_encoder(attrs.asdict(check))["valid"] is True
    with pytest.raises(ValueError, match="vars"):
        jsonable_encoder(check)


async def test_errors_become_statuses(app: App) -> None:
    """Invalid requests get 400 with the reason, a 429 of the service gets 503 with Retry-After; no number is shown."""
    number = "+19195550100"
    status, document, _ = await app.post("/code", number="no-number")
    assert (status, "E.164" in document["error"], "no-number" in str(document)) == (400, True, False)
    status, document, _ = await app.post("/check", number=number, code="x")
    assert (status, "code" in document["error"]) == (400, True)

    app.sim.faults.script(Fault(status=429, headers={"Retry-After": "90"}), operation="messaging")
    status, _, wait = await app.post("/code", number=number)
    assert status == 503
    assert wait is not None
    assert 90 <= int(wait) <= 100
    assert not app.sim.inbox


async def test_an_unknown_delivery_gets_202(app: App) -> None:
    """After a dropped connection the delivery is unknown, and the call is not retried."""
    app.sim.faults.script(Fault(drop="after_read"), operation="messaging")
    status, document, _ = await app.post("/code", number="+19195550100")
    assert (status, "perhaps sent" in document["status"]) == (202, True)
    app.sim.faults.script(Fault(drop="after_read"), operation="verify")
    assert (await app.post("/check", number="+19195550100", code="123456"))[0] == 503
    assert len(app.sim.inbox) == 1


async def test_a_lock_out_gets_429_with_retry_after(app: App) -> None:
    """After five wrong codes the response says how long to wait; other numbers are not affected."""
    number = "+19195550100"
    await app.post("/code", number=number)
    wrong = "000000" if app.sim.last_code(number) != "000000" else "111111"
    statuses = [(await app.post("/check", number=number, code=wrong))[0] for _ in range(5)]
    assert statuses == [200] * 5
    assert await app.post("/check", number=number, code=wrong) == (429, {"error": "too many wrong codes"}, "120")
    assert (await app.post("/check", number="+19195550101", code=wrong))[0] == 200


async def test_a_disconnected_browser_does_not_affect_others(app: App) -> None:
    """Its code is sent once, and the next requests are served."""
    app.sim.faults.script(DELAYED, operation="messaging")
    body = json.dumps({"number": "+19195550100"}).encode()
    head = f"POST /code HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", app.port)
    writer.write(head.encode() + body)
    await app.received(1)
    writer.transport.abort()
    assert (await app.post("/code", number="+19195550101"))[0] == 200
    app.clock.tick(1.0)
    assert (await app.post("/code", number="+19195550102"))[0] == 200
    assert sorted(message.to for message in app.sim.inbox) == [f"+1919555010{n}" for n in range(3)]
    app.process.send_signal(signal.SIGTERM)
    await app.wait_ended()


async def test_sigterm_finishes_requests_in_flight_and_accepts_no_more(app: App) -> None:
    """After SIGTERM during five requests it accepts no more, responds to all five, and ends."""
    app.sim.faults.script(*[DELAYED] * 5, operation="messaging")
    in_flight = [asyncio.ensure_future(app.post("/code", number=f"+1919555010{n}")) for n in range(5)]
    await app.received(5)
    app.process.send_signal(signal.SIGTERM)
    await app.until_listening(False)
    assert not any(call.done() for call in in_flight)
    app.clock.tick(1.0)
    assert await asyncio.gather(*in_flight) == [(200, {"status": "sent"}, None)] * 5
    await app.session.close()
    await app.wait_ended()
    assert len(app.sim.inbox) == 5


def test_the_readme_quotes_the_fastapi_recipe() -> None:
    """README shows the file that is tested here."""
    assert f"```python\n{(HERE / 'with_fastapi.py').read_text()}```" in README


@pytest.mark.parametrize("name", sorted(SERVERS.keys() - {"with_fastapi"}))
def test_the_guide_describes_the_other_recipes(name: str) -> None:
    """It links the file, and all code that it quotes is in the file."""
    (row,) = (line for line in GUIDE.splitlines() if f"(../../tests/system/recipes/{name}.py)" in line)
    recipe = (HERE / f"{name}.py").read_text()
    code = re.findall(r"`([^`]+)`", row)
    assert len(code) >= 2
    for piece in (piece for each in code for piece in re.split(r"(?<=:) (?=yield)", each)):
        assert piece in recipe, piece
