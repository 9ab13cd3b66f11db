"""What must work once installed, with the core or one extra alone; .ci/run runs it outside of the checkout."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import sys
import urllib.request
from importlib import import_module
from importlib.metadata import distributions, requires
from importlib.util import find_spec

import bandwidth_mfa_async
from bandwidth_mfa_async import CodeTemplate, ConfigurationError, MFAClient, RedisLimits
from bandwidth_mfa_async.simulator import Simulator
from bandwidth_mfa_async.telemetry import OpenTelemetryHook

# What each extra is for, by the module that it brings.
EXTRAS = {"cli": "rich", "speed": "uvloop", "redis": "redis", "worker": "taskiq", "otel": "opentelemetry"}
# What an extra brings of another: the workers' ledger is in Redis.
BROUGHT = {"worker": {"redis"}}


async def sign_in(*hooks: OpenTelemetryHook) -> None:
    template = CodeTemplate("+19195554321", "any", scope="smoke")
    async with Simulator() as sim, MFAClient(**sim.client_kwargs(), hooks=hooks) as mfa:
        sent = await mfa.generate_messaging_code(template.to("+19195551234"))
        assert sent.message_id == sim.inbox[-1].message_id
        check = await mfa.verify_code(to="+19195551234", code=sim.inbox[-1].code, scope="smoke")
        assert check.valid
        called = await mfa.generate_voice_code(template.to("+19195551234"))
        assert called.call_id
        # The files of the inbox page came along.
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(sim.page_url).read())
        assert b"<html" in page


def command(*words: str) -> subprocess.CompletedProcess[str]:
    program = pathlib.Path(sys.executable).with_name("bandwidth-mfa")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False)


def without(extra: str) -> None:
    """What is missing says how to get it."""
    if extra == "cli":
        done = command("demo")
        assert (done.returncode, done.stdout) == (2, "")
        assert "pip install 'bandwidth-mfa-async[cli]'" in done.stderr, done.stderr
    elif extra == "otel":
        said = ""
        try:
            OpenTelemetryHook()
        except ConfigurationError as error:
            said = str(error)
        assert "pip install 'bandwidth-mfa-async[otel]'" in said
    elif extra == "redis":
        said = ""
        try:
            RedisLimits("redis://127.0.0.1", key="9900000")
        except ConfigurationError as error:
            said = str(error)
        assert "pip install 'bandwidth-mfa-async[redis]'" in said
    elif extra == "worker":
        said = ""
        try:
            from bandwidth_mfa_async.worker import MFAWorker

            assert MFAWorker
        except ImportError as error:
            said = str(error)
        assert "pip install 'bandwidth-mfa-async[worker]'" in said


def with_extra(extra: str) -> None:
    """It does what it is for."""
    import_module(EXTRAS[extra])
    if extra == "cli":
        done = command("demo", "--count", "50", "--json")
        assert done.returncode == 0, done.stderr
        assert command("doctor", "--help").returncode == 0
    elif extra == "otel":
        asyncio.run(sign_in(OpenTelemetryHook()))
    elif extra == "redis":
        RedisLimits("redis://127.0.0.1", key="9900000")
    elif extra == "worker":
        from bandwidth_mfa_async.worker import MFAWorker

        assert MFAWorker
    elif extra == "speed":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(sign_in())


installed = set(sys.argv[1:])
package = pathlib.Path(bandwidth_mfa_async.__file__).parent
assert "site-packages" in str(package), f"not the installed package: {package}"
assert (package / "py.typed").exists()
assert find_spec("tests") is None, "the tests were installed too"
core = [line for line in requires("bandwidth-mfa-async") or () if "extra ==" not in line]
assert sorted(re.split(r"[^a-z]", line)[0] for line in core) == ["aiohttp", "attrs", "cattrs", "tenacity"], core
asyncio.run(sign_in())
brought = set().union(*(BROUGHT.get(extra, set()) for extra in installed))
for extra, module in EXTRAS.items():
    if extra in installed:
        with_extra(extra)
    elif extra not in brought:
        assert find_spec(module) is None, f"{module} came along, and belongs to [{extra}]"
        without(extra)
count = sum(1 for _ in distributions())
print(
    f"{bandwidth_mfa_async.__version__} with [{','.join(sorted(installed))}] works; {count} distributions are installed"
)
