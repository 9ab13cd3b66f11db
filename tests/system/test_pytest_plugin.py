"""The fixtures of the pytest plugin, in test files like those of users; each file runs in its own pytest process."""

from __future__ import annotations

import pathlib
import sys

import pytest

import bandwidth_mfa_async
from tests.support import processes

pytest_plugins = ["pytester"]

ROOT = pathlib.Path(bandwidth_mfa_async.__file__).parent.parent

IMPORTS = """
import pytest
from bandwidth_mfa_async import CodeRequest

TO = "+19195551234"
REQUEST = CodeRequest(TO, "+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")
"""

SIGN_IN = """
async def test_sign_in(mfa_client, mfa_simulator):
    sent = await mfa_client.generate_messaging_code(REQUEST)
    assert mfa_simulator.inbox[-1].message_id == sent.message_id
    check = await mfa_client.verify_code(to=TO, code=mfa_simulator.last_code(TO), scope="login")
    assert check.valid
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run a test file in another process; the only plugins are pytest-asyncio and ours."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run(code, *arguments, asyncio_mode="strict", **files):
        pytester.makepyfile(test_theirs=IMPORTS + code, **files)
        plugins = ["-p", "bandwidth_mfa_async.pytest_plugin"]
        if asyncio_mode is not None:
            # Loaded after ours: the order must not matter.
            plugins += ["-p", "pytest_asyncio.plugin", "-o", f"asyncio_mode={asyncio_mode}"]
            plugins += ["-o", "asyncio_default_fixture_loop_scope=function"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugins, *arguments]
        with processes.running(command, stdout=processes.PIPE, stderr=processes.STDOUT, text=True) as process:
            said, _ = process.communicate(timeout=60)
        return pytest.RunResult(process.returncode, said.splitlines(), [], duration=0.0)

    return run


def test_the_client_works_in_auto_mode(run):
    """Tests need neither marks nor decorators."""
    run(SIGN_IN, asyncio_mode="auto").assert_outcomes(passed=1)


def test_sign_ins_have_their_own_store(run):
    """Their template and store can be replaced."""
    code = """
from bandwidth_mfa_async import MemoryStore
from bandwidth_mfa_async.testing import ManualClock

async def test_sign_in(mfa_signins, mfa_simulator):
    flow = await mfa_signins.start(TO)
    assert (await mfa_signins.check(flow.id, mfa_simulator.inbox[-1].code)).valid

class TestAged:
    clock = ManualClock()

    @pytest.fixture
    def mfa_signins_options(self):
        return {"store": MemoryStore(clock=self.clock), "lifetime": 60}

    async def test_too_late(self, mfa_signins, mfa_simulator):
        flow = await mfa_signins.start(TO)
        self.clock.tick(60)
        assert (await mfa_signins.check(flow.id, mfa_simulator.inbox[-1].code)).reason == "expired"
"""
    run(code, asyncio_mode="auto").assert_outcomes(passed=2)


def test_the_client_works_in_strict_mode(run):
    """Tests need the mark of pytest-asyncio."""
    run("@pytest.mark.asyncio" + SIGN_IN).assert_outcomes(passed=1)


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_the_client_follows_the_loop_scope_of_the_mark(run, scope):
    """It is made and closed in the event loop of the test."""
    code = f'class TestIt:\n    pytestmark = pytest.mark.asyncio(loop_scope="{scope}")\n'
    code += SIGN_IN.replace("(mfa_client", "(self, mfa_client").replace("\n", "\n    ")
    code += "\n" + code.partition("pytestmark")[2].partition("\n")[2].replace("test_sign_in", "test_again")
    run(code).assert_outcomes(passed=2)


def test_mfa_environ_sets_the_variables_until_the_test_ends(run, monkeypatch):
    """An application's own client uses the simulator, also if the environment had other values."""
    monkeypatch.setenv("BW_AUTH", "oauth2")
    monkeypatch.setenv("BW_ACCOUNT_ID", "theirs")
    code = """
import asyncio, os
from bandwidth_mfa_async import MFAClient

def test_sign_in(mfa_environ, mfa_simulator):
    async def main():
        async with MFAClient.from_env() as mfa:
            await mfa.generate_messaging_code(REQUEST)
    asyncio.run(main())
    assert mfa_simulator.last_code(TO)
    assert mfa_environ == mfa_simulator.environ()

def test_afterwards():
    assert (os.environ["BW_AUTH"], os.environ["BW_ACCOUNT_ID"]) == ("oauth2", "theirs")
    assert "BW_MFA_URL" not in os.environ
"""
    run(code, asyncio_mode=None).assert_outcomes(passed=2)


def test_the_client_follows_the_default_loop_scope(run):
    """`asyncio_default_test_loop_scope` applies to tests without a mark."""
    result = run(SIGN_IN, "-o", "asyncio_default_test_loop_scope=session", asyncio_mode="auto")
    result.assert_outcomes(passed=1)


def test_the_simulator_is_reset_for_each_test(run):
    """The port stays the same; messages, faults and refused connections are reset."""
    result = run(
        """
import asyncio
from bandwidth_mfa_async.simulator import Fault

ports = []

@pytest.mark.parametrize("round", range(3))
async def test_new(mfa_client, mfa_simulator, round):
    assert mfa_simulator.inbox == [] and mfa_simulator.requests == []
    await mfa_client.generate_messaging_code(REQUEST)
    mfa_simulator.faults.script(*[Fault(status=500)] * 100)
    await mfa_simulator.refuse_connections()
    ports.append(mfa_simulator.port)
    assert len(set(ports)) == 1
""",
        asyncio_mode="auto",
    )
    result.assert_outcomes(passed=3)


def test_the_simulator_works_in_sync_tests(run):
    """With and without pytest-asyncio."""
    code = """
import asyncio
from bandwidth_mfa_async import MFAClient

def test_it(mfa_simulator):
    async def main():
        async with MFAClient(**mfa_simulator.client_kwargs()) as mfa:
            await mfa.generate_messaging_code(REQUEST)
    asyncio.run(main())
    assert mfa_simulator.last_code(TO)
    mfa_simulator.set_limits(messaging=None)
"""
    run(code).assert_outcomes(passed=1)
    run(code, asyncio_mode=None).assert_outcomes(passed=1)


def test_the_client_is_closed_after_the_test(run):
    """A fixture that depends on it can use it in its own teardown; no session stays open."""
    result = run(
        """
import pytest_asyncio
from bandwidth_mfa_async import ClientStateError

kept = []

@pytest_asyncio.fixture
async def app(mfa_client):
    yield mfa_client
    await mfa_client.generate_messaging_code(REQUEST)

@pytest.mark.asyncio
async def test_one(app):
    await app.generate_messaging_code(REQUEST)
    kept.append(app)

@pytest.mark.asyncio
async def test_two():
    with pytest.raises(ClientStateError, match="closed"):
        await kept[0].generate_messaging_code(REQUEST)
"""
    )
    result.assert_outcomes(passed=2)


def test_options_can_be_overridden_in_a_conftest_and_a_class(run):
    """The options of a class do not affect tests outside it."""
    result = run(
        """
class TestTwo:
    @pytest.fixture
    def mfa_simulator_options(self):
        return {"account_id": "222"}

    @pytest.fixture
    def mfa_client_options(self):
        from bandwidth_mfa_async import RetryPolicy
        return {"retry": RetryPolicy(max_attempts=1)}

    async def test_it(self, mfa_client, mfa_simulator):
        assert mfa_simulator.account_id == "222"
        assert (await mfa_client.generate_messaging_code(REQUEST)).message_id
        assert mfa_client._executor.policy.max_attempts == 1

async def test_one(mfa_client, mfa_simulator):
    assert mfa_simulator.account_id == "111"
    assert mfa_client._executor.policy.max_attempts == 3
""",
        asyncio_mode="auto",
        conftest="""
import pytest

@pytest.fixture(scope="session")
def mfa_simulator_options():
    return {"account_id": "111"}
""",
    )
    result.assert_outcomes(passed=2)


def test_the_number_of_running_simulators_is_bounded(run):
    """Also if the options differ from test to test."""
    result = run(
        """
import threading

@pytest.fixture
def mfa_simulator_options(request):
    return {"account_id": str(request.param)}

@pytest.mark.parametrize("mfa_simulator_options", range(12), indirect=True)
def test_it(mfa_simulator):
    names = [thread.name for thread in threading.enumerate()]
    assert 1 <= names.count("bandwidth-mfa-simulator") <= 4
    assert mfa_simulator.port
"""
    )
    result.assert_outcomes(passed=12)


def test_a_manual_clock_can_be_an_option(run):
    """A code expires without waiting."""
    result = run(
        """
from bandwidth_mfa_async.testing import ManualClock

@pytest.fixture
def clock():
    return ManualClock()

@pytest.fixture
def mfa_simulator_options(clock):
    return {"clock": clock}

async def test_it(mfa_client, mfa_simulator, clock):
    await mfa_client.generate_messaging_code(REQUEST)
    clock.tick(4 * 60)
    check = await mfa_client.verify_code(to=TO, code=mfa_simulator.last_code(TO), scope="login")
    assert not check.valid
""",
        asyncio_mode="auto",
    )
    result.assert_outcomes(passed=1)


def test_without_an_async_plugin_the_client_fixture_fails_with_a_reason(run):
    """The error names the missing plugin."""
    result = run("def test_it(mfa_client):\n    pass\n", asyncio_mode=None)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mfa_client needs pytest-asyncio, or an anyio test*"])


@pytest.mark.parametrize("asyncio_mode", [None, "strict"])
def test_the_client_works_with_the_anyio_plugin(run, asyncio_mode):
    """With and without pytest-asyncio."""
    code = "pytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    run(code + SIGN_IN, "-p", "anyio", asyncio_mode=asyncio_mode).assert_outcomes(passed=1)


def test_pytest_lists_the_public_fixtures_with_their_docstrings(run):
    """`pytest --fixtures` shows the public fixtures and no private one."""
    result = run("", "--fixtures")
    result.stdout.fnmatch_lines(["mfa_simulator_options*", "*override*"])
    shown = result.stdout.str()
    assert all(f"\n{name}" in shown for name in ("mfa_client ", "mfa_simulator ", "mfa_client_options"))
    assert "_mfa_client" not in shown
    # Where a tester looks who has frozen the system's time in vain.
    shown = run("", "--fixtures", "-v").stdout.str()
    assert "freezegun" in shown
    assert "ManualClock" in shown


_MODULES = """
import sys, types
{stub}
import pytest, pytest_asyncio.plugin
before = set(sys.modules)
import bandwidth_mfa_async.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""


def _imported(stub: str = "") -> set[str]:
    result = processes.run(
        [sys.executable, "-c", _MODULES.format(stub=stub)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_the_plugin_imports_no_other_module():
    """Test runs that use no fixture pay for one small module, besides the `__init__` of the package."""
    stub = f"""
package = types.ModuleType("bandwidth_mfa_async")
package.__path__ = [{str(ROOT / "bandwidth_mfa_async")!r}]
sys.modules["bandwidth_mfa_async"] = package
"""
    assert _imported(stub) == {"bandwidth_mfa_async.pytest_plugin"}


def test_the_plugin_and_its_package_import_only_the_version():
    """They import no third-party library."""
    ours = {"", ".pytest_plugin", "._version"}
    assert _imported() <= {f"bandwidth_mfa_async{name}" for name in ours}
