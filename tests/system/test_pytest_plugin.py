"""The fixtures for users' tests, used in test files as users would write them, each run by a pytest of its own."""

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
    """Run a test file in another process, with pytest-asyncio and the plugin and nothing else from entry points."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")

    def run(code, *arguments, asyncio_mode="strict", **files):
        pytester.makepyfile(test_theirs=IMPORTS + code, **files)
        plugins = ["-p", "bandwidth_mfa_async.pytest_plugin"]
        if asyncio_mode is not None:
            # Loaded after ours, which must not matter.
            plugins += ["-p", "pytest_asyncio.plugin", "-o", f"asyncio_mode={asyncio_mode}"]
            plugins += ["-o", "asyncio_default_fixture_loop_scope=function"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugins, *arguments]
        with processes.running(command, stdout=processes.PIPE, stderr=processes.STDOUT, text=True) as process:
            said, _ = process.communicate(timeout=60)
        return pytest.RunResult(process.returncode, said.splitlines(), [], duration=0.0)

    return run


def test_auto_mode(run):
    """No marks, no decorators: ask for the fixtures."""
    run(SIGN_IN, asyncio_mode="auto").assert_outcomes(passed=1)


def test_strict_mode(run):
    """With pytest-asyncio's mark."""
    run("@pytest.mark.asyncio" + SIGN_IN).assert_outcomes(passed=1)


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_other_loop_scopes(run, scope):
    """The client is made in, and closed in, the loop that the test runs in."""
    code = f'class TestIt:\n    pytestmark = pytest.mark.asyncio(loop_scope="{scope}")\n'
    code += SIGN_IN.replace("(mfa_client", "(self, mfa_client").replace("\n", "\n    ")
    code += "\n" + code.partition("pytestmark")[2].partition("\n")[2].replace("test_sign_in", "test_again")
    run(code).assert_outcomes(passed=2)


def test_an_application_that_makes_its_own_client(run, monkeypatch):
    """It finds the simulator in the environment, whatever that held, for one test and no longer."""
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


def test_the_default_loop_scope_of_the_ini_file(run):
    """`asyncio_default_test_loop_scope` is followed where no mark says otherwise."""
    result = run(SIGN_IN, "-o", "asyncio_default_test_loop_scope=session", asyncio_mode="auto")
    result.assert_outcomes(passed=1)


def test_one_server_cleared_for_each_test(run):
    """The port stays, the messages, faults and refusals of the test before do not."""
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


def test_tests_that_are_not_async(run):
    """The simulator serves them too, with pytest-asyncio or without."""
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
    """No warning of an open session, and no call afterwards; a fixture of theirs may use it till its own end."""
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


def test_options_are_overridden_where_they_are_needed(run):
    """By conftest, module or class; equal options share a server, and a module's do not leak into the next."""
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
        assert mfa_client._caller.policy.max_attempts == 1

async def test_one(mfa_client, mfa_simulator):
    assert mfa_simulator.account_id == "111"
    assert mfa_client._caller.policy.max_attempts == 3
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


def test_servers_do_not_pile_up(run):
    """Options that differ from test to test keep a few servers running, not one for each test."""
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


def test_a_manual_clock_as_an_option(run):
    """Codes grow old without waiting."""
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


def test_without_an_async_plugin_the_client_says_what_is_missing(run):
    """A sentence, not a client that cannot be closed."""
    result = run("def test_it(mfa_client):\n    pass\n", asyncio_mode=None)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mfa_client needs pytest-asyncio, or an anyio test*"])


@pytest.mark.parametrize("asyncio_mode", [None, "strict"])
def test_anyio(run, asyncio_mode):
    """anyio's own plugin runs the test and the fixture, with pytest-asyncio beside it or not."""
    code = "pytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    run(code + SIGN_IN, "-p", "anyio", asyncio_mode=asyncio_mode).assert_outcomes(passed=1)


def test_the_fixtures_are_described(run):
    """`pytest --fixtures` shows the four public ones with their sentences."""
    result = run("", "--fixtures")
    result.stdout.fnmatch_lines(["mfa_simulator_options*", "*override*"])
    shown = result.stdout.str()
    assert all(f"\n{name}" in shown for name in ("mfa_client ", "mfa_simulator ", "mfa_client_options"))
    assert "_mfa_client" not in shown


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


def test_the_plugin_itself_imports_nothing():
    """A user who has the library and asks for no fixture pays for one small module (the package's __init__ aside)."""
    stub = f"""
package = types.ModuleType("bandwidth_mfa_async")
package.__path__ = [{str(ROOT / "bandwidth_mfa_async")!r}]
sys.modules["bandwidth_mfa_async"] = package
"""
    assert _imported(stub) == {"bandwidth_mfa_async.pytest_plugin"}


def test_the_plugin_and_its_package_import_next_to_nothing():
    """The package's __init__ included: its version, and no library."""
    ours = {"", ".pytest_plugin", "._version"}
    assert _imported() <= {f"bandwidth_mfa_async{name}" for name in ours}
