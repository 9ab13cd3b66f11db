"""Bandwidth's own clients, of 2020 and of today, send, call and verify against `simulate` with each credential.

Without Basic credentials this is the rehearsal of 2 December 2026, the announced end of API users.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import shutil
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.conftest import APPLICATION, FROM, TO
from tests.support import processes
from tests.support.simulate_process import simulating

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping

NODE_TODAY: Final = "bandwidth-sdk@8.1.4"
NODE_2020: Final = "@bandwidth/mfa@2.0.0"
# What their metadata asks for, without enum34, which replaces Python's own enum.
DEPENDENCIES: Final = ("cachecontrol", "jsonpickle<1", "python-dateutil", "requests")
FOUR_KEYS: Final = {"to": TO, "from": FROM, "applicationId": APPLICATION, "scope": "login"}
FIELDS: Final = FOUR_KEYS | {"message": "Your code is {CODE}", "digits": 6}

# Each program prints what it did as JSON: the number of ids that it got and the outcomes of a wrong and of the right
# code, or the status of an error.
PYTHON_TODAY = """
import json, os, urllib.request
import bandwidth
from bandwidth.models.code_request import CodeRequest
from bandwidth.models.verify_code_request import VerifyCodeRequest

env = os.environ
if env["KIND"] == "oauth2":
    options = {"client_id": env["BW_CLIENT_ID"], "client_secret": env["BW_CLIENT_SECRET"]}
    options["access_token_url"] = env["BW_TOKEN_URL"]
else:
    options = {"username": env["BW_USERNAME"], "password": env["BW_PASSWORD"]}
configuration = bandwidth.Configuration(host=env["BW_MFA_URL"], ignore_operation_servers=True, **options)
api = bandwidth.MFAApi(bandwidth.ApiClient(configuration))
account, fields = env["BW_ACCOUNT_ID"], json.loads(env["FIELDS"])

def verify(code):
    request = {"to": fields["to"], "scope": "login", "expirationTimeInMinutes": 3, "code": code}
    return api.verify_code(account, VerifyCodeRequest.from_dict(request)).valid

try:
    sent = api.generate_messaging_code(account, CodeRequest.from_dict(fields)).message_id
except bandwidth.ApiException as error:
    print(json.dumps({"status": error.status}))
else:
    called = api.generate_voice_code(account, CodeRequest.from_dict(fields)).call_id
    code = json.load(urllib.request.urlopen(env["LATEST"]))["code"]
    print(json.dumps({"ids": len({sent, called} - {None}), "valid": [verify("1" + code[:-1]), verify(code)]}))
"""
# 6.x calls it two-factor authentication, 10.x multi-factor authentication. Their host is fixed.
PYTHON_2020 = """
import importlib, json, os, urllib.request
from bandwidth.bandwidth_client import BandwidthClient
from bandwidth.exceptions.api_exception import APIException
try:
    import bandwidth.multifactorauth as package
    name = "multi_factor_auth"
except ImportError:
    import bandwidth.twofactorauth as package
    name = "two_factor_auth"
schema = package.__name__ + ".models.two_factor_{}_request_schema"
code, check = (importlib.import_module(schema.format(kind)) for kind in ("code", "verify"))

env = os.environ
basic = {f"{name}_basic_auth_user_name": env["BW_USERNAME"], f"{name}_basic_auth_password": env["BW_PASSWORD"]}
client = getattr(BandwidthClient(**basic), f"{name}_client")
client.config.get_base_uri = lambda *_: env["BW_MFA_URL"]
api = client.mfa if name == "multi_factor_auth" else client.client
account, fields = env["BW_ACCOUNT_ID"], json.loads(env["FOUR_KEYS"])

def made(schema, **more):
    known = schema._names.values()
    return schema.from_dictionary({key: value for key, value in (fields | more).items() if key in known})

def verify(value):
    request = made(check.TwoFactorVerifyRequestSchema, code=value, expirationTimeInMinutes=3)
    return api.create_verify_two_factor(account, request).body.valid

# 10.x requires both; they are no keys of the earliest ones.
request = made(code.TwoFactorCodeRequestSchema, message="Your code is {CODE}", digits=6)
try:
    sent = api.create_messaging_two_factor(account, request).body.message_id
except APIException as error:
    print(json.dumps({"status": error.response_code}))
else:
    called = api.create_voice_two_factor(account, request).body.call_id
    latest = json.load(urllib.request.urlopen(env["LATEST"]))["code"]
    print(json.dumps({"ids": len({sent, called} - {None}), "valid": [verify("1" + latest[:-1]), verify(latest)]}))
"""
JS_TODAY = """
const { Configuration, MFAApi } = require("bandwidth-sdk");
const env = process.env;
const credentials = env.KIND === "oauth2"
  ? { accessToken: env.TOKEN }
  : { username: env.BW_USERNAME, password: env.BW_PASSWORD, accessToken: "" };
const api = new MFAApi(new Configuration({ basePath: env.BW_MFA_URL, ...credentials }));
const account = env.BW_ACCOUNT_ID, fields = JSON.parse(env.FIELDS), to = fields.to;

async function verify(code) {
  return (await api.verifyCode(account, { to, scope: "login", expirationTimeInMinutes: 3, code })).data.valid;
}
async function main() {
  let sent;
  try {
    sent = (await api.generateMessagingCode(account, fields)).data.messageId;
  } catch (error) {
    if (!error.response) throw error;
    return { status: error.response.status };
  }
  const called = (await api.generateVoiceCode(account, fields)).data.callId;
  const { code } = await (await fetch(env.LATEST)).json();
  const ids = [sent, called].filter(Boolean).length;
  return { ids, valid: [await verify("1" + code.slice(0, -1)), await verify(code)] };
}
main().then((outcome) => console.log(JSON.stringify(outcome)));
"""
JS_2020 = """
const mfa = require("@bandwidth/mfa");
const env = process.env;
const credentials = { basicAuthUserName: env.BW_USERNAME, basicAuthPassword: env.BW_PASSWORD };
Object.assign(mfa.Configuration, { BASEURI: env.BW_MFA_URL, ...credentials });
const account = env.BW_ACCOUNT_ID, fields = JSON.parse(env.FOUR_KEYS);
const request = new mfa.TwoFactorCodeRequestSchema({ ...fields, message: "Your code is {CODE}", digits: 6 });

async function verify(code) {
  const body = new mfa.TwoFactorVerifyRequestSchema({ ...fields, code, expirationTimeInMinutes: 3 });
  return (await mfa.APIController.createVerifyTwoFactor(account, body)).valid;
}
async function main() {
  let sent;
  try {
    sent = (await mfa.APIController.createMessagingTwoFactor(account, request)).messageId;
  } catch (error) {
    if (!error.errorCode) throw error;
    return { status: error.errorCode };
  }
  const called = (await mfa.APIController.createVoiceTwoFactor(account, request)).callId;
  const { code } = await (await fetch(env.LATEST)).json();
  const ids = [sent, called].filter(Boolean).length;
  return { ids, valid: [await verify("1" + code.slice(0, -1)), await verify(code)] };
}
main().then((outcome) => console.log(JSON.stringify(outcome)));
"""

Environment = dict[str, str]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Install a package of PyPI or npm into a folder of its own, and return the folder."""
    root = tmp_path_factory.mktemp("packages")
    installed: dict[str, pathlib.Path] = {}

    def run(*command: Any) -> None:
        done = processes.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{command[-1]} cannot be installed: {done.stderr[-300:]}")

    def pip() -> pathlib.Path:
        if "pip" not in installed:
            run(sys.executable, "-m", "venv", root / "pip")
            installed["pip"] = root / "pip" / "bin" / "python"
        return installed["pip"]

    def install(name: str) -> pathlib.Path:
        if name not in installed:
            folder = root / str(len(installed))
            if name.startswith("npm:"):
                if not shutil.which("npm"):
                    pytest.skip("there is no Node")
                options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder]
                run("npm", "install", *options, name.removeprefix("npm:"))
            else:
                command = [pip(), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", folder]
                run(*command, *DEPENDENCIES)
                run(*command, "--no-deps", name)
            installed[name] = folder
        return installed[name]

    return install


def outcome(command: list[Any], env: Mapping[str, str], cwd: pathlib.Path) -> dict[str, Any]:
    done = processes.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=cwd, env=dict(env))
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def token(env: Mapping[str, str]) -> str:
    """Fetch a token as Node's SDK does; its own URL for this is fixed to Bandwidth's."""
    client = f"{env['BW_CLIENT_ID']}:{env['BW_CLIENT_SECRET']}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(client).decode()}"}
    request = urllib.request.Request(env["BW_TOKEN_URL"], b"grant_type=client_credentials", headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        value: str = json.load(response)["access_token"]
    return value


def with_curl(env: Environment, cwd: pathlib.Path) -> dict[str, Any]:
    """Use the commands of the seed page: four keys, and curl's own content type."""

    def post(name: str, body: Mapping[str, object]) -> tuple[int, dict[str, Any]]:
        url = f"{env['BW_MFA_URL']}/accounts/{env['BW_ACCOUNT_ID']}/code/{name}"
        login = f"{env['BW_USERNAME']}:{env['BW_PASSWORD']}"
        command = ["curl", "-s", "-w", "\n%{http_code}", "-X", "POST", "-u", login, "-d", json.dumps(body), url]
        done = processes.run(command, capture_output=True, text=True, check=True, env=env, cwd=cwd)
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)

    status, sent = post("messaging", FOUR_KEYS)
    if status != 200:
        return {"status": status}
    called = post("voice", FOUR_KEYS)[1]
    with urllib.request.urlopen(env["LATEST"], timeout=10) as response:
        code = json.load(response)["code"]
    valid = [post("verify", FOUR_KEYS | {"code": each})[1]["valid"] for each in ("1" + code[:-1], code)]
    return {"ids": len({sent["messageId"], called["callId"]}), "valid": valid}


CLIENTS = {
    "curl 2020": ("curl", "", ""),
    "Python 6.2.0": ("python", PYTHON_2020, "bandwidth-sdk==6.2.0"),
    "Python 6.5.0": ("python", PYTHON_2020, "bandwidth-sdk==6.5.0"),
    "Python 6.6.0": ("python", PYTHON_2020, "bandwidth-sdk==6.6.0"),
    "Python 10.1.0": ("python", PYTHON_2020, "bandwidth-sdk==10.1.0"),
    "Python today": ("python", PYTHON_TODAY, ""),
    "JS 2020": ("node", JS_2020, f"npm:{NODE_2020}"),
    "JS today": ("node", JS_TODAY, f"npm:{NODE_TODAY}"),
}
# What today's SDKs can do with OAuth2, and what happens to Basic credentials when API users have ended.
ALL: Final = {"ids": 2, "valid": [False, True]}
WAYS: Final = [("basic", True, ALL), ("basic", False, {"status": 403}), ("oauth2", True, ALL), ("oauth2", False, ALL)]
TABLE = [
    pytest.param(name, *way, id=f"{name}, {way[0]}{'' if way[1] else ' with --no-basic'}")
    for name in CLIENTS
    for way in WAYS
    if way[0] == "basic" or "today" in name
]


@pytest.mark.parametrize(("name", "kind", "basic", "expected"), TABLE)
def test_a_client_of_bandwidth_sends_calls_and_verifies(
    name: str,
    kind: str,
    basic: bool,
    expected: dict[str, Any],
    packages: Callable[[str], pathlib.Path],
    tmp_path: pathlib.Path,
) -> None:
    program, source, package = CLIENTS[name]
    if not package and program == "python" and importlib.util.find_spec("bandwidth") is None:
        pytest.skip("bandwidth-sdk is not installed")
    if not shutil.which(program) and program != "python":
        pytest.skip(f"there is no {program}")
    cwd = tmp_path
    env = {name: value for name, value in os.environ.items() if not name.startswith("BW_")} | {"NO_PROXY": "*"}
    command: list[Any] = [sys.executable, "-W", "ignore", "-c", source]
    if package:
        folder = packages(package)
        if program == "node":
            cwd, command = folder, ["node", "-e", source]
        else:
            env["PYTHONPATH"] = str(folder)
    with simulating("--seed", "1", *([] if basic else ["--no-basic"])) as simulator:
        env |= simulator.exported | {
            "KIND": kind,
            "FIELDS": json.dumps(FIELDS),
            "FOUR_KEYS": json.dumps(FOUR_KEYS),
            "LATEST": f"{simulator.origin}/_simulator/messages/latest?to=%2B{TO[1:]}",
        }
        if kind == "oauth2" and program == "node":
            env["TOKEN"] = token(env)
        found = with_curl(env, cwd) if program == "curl" else outcome(command, env, cwd)
    assert found == expected
