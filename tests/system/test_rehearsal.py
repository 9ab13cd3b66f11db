"""The rehearsal of 2 December 2026: Bandwidth's own SDKs of today against `simulate --no-basic`."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import APPLICATION, FROM, TO
from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE_SDK = "bandwidth-sdk@8.1.4"
FIELDS = {"from": FROM, "applicationId": APPLICATION, "scope": "login", "message": "Your code is {CODE}", "digits": 6}

# Both programs print what they did as JSON: the status of an error, or the outcome of a wrong and of the right code.
PYTHON = """
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
account, to = env["BW_ACCOUNT_ID"], env["TO"]

def verify(code):
    request = {"to": to, "scope": "login", "expirationTimeInMinutes": 3, "code": code}
    return api.verify_code(account, VerifyCodeRequest.from_dict(request)).valid

try:
    api.generate_messaging_code(account, CodeRequest.from_dict({"to": to, **json.loads(env["FIELDS"])}))
except bandwidth.ApiException as error:
    print(json.dumps({"status": error.status}))
else:
    (message,) = json.load(urllib.request.urlopen(env["MESSAGES"]))["messages"]
    code = message["code"]
    print(json.dumps({"valid": [verify("1" + code[:-1]), verify(code)]}))
"""
NODE = """
const { Configuration, MFAApi } = require("bandwidth-sdk");
const env = process.env;
const credentials = env.KIND === "oauth2"
  ? { accessToken: env.TOKEN }
  : { username: env.BW_USERNAME, password: env.BW_PASSWORD, accessToken: "" };
const api = new MFAApi(new Configuration({ basePath: env.BW_MFA_URL, ...credentials }));
const account = env.BW_ACCOUNT_ID, to = env.TO;

async function verify(code) {
  return (await api.verifyCode(account, { to, scope: "login", expirationTimeInMinutes: 3, code })).data.valid;
}
async function main() {
  try {
    await api.generateMessagingCode(account, { to, ...JSON.parse(env.FIELDS) });
  } catch (error) {
    if (!error.response) throw error;
    return { status: error.response.status };
  }
  const [message] = (await (await fetch(env.MESSAGES)).json()).messages;
  return { valid: [await verify("1" + message.code.slice(0, -1)), await verify(message.code)] };
}
main().then((outcome) => console.log(JSON.stringify(outcome)));
"""


@pytest.fixture
def rehearsal() -> Iterator[dict[str, str]]:
    """The simulator of the day, as the command line starts it; the variables that it prints for other programs."""
    command = [sys.executable, "-m", "bandwidth_mfa_async", "simulate", "--port", "0", "--seed", "1", "--no-basic"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BW_")}
    with processes.running(command, stdout=processes.PIPE, text=True, env=clean) as process:
        assert process.stdout is not None
        printed: list[str] = []
        while not (printed and printed[-1].endswith("/messages")):
            line = process.stdout.readline()
            assert line, "simulate ended early"
            printed += line.split()
        variables = dict(word.split("=", 1) for word in printed if word.startswith("BW_"))
        yield clean | variables | {"MESSAGES": printed[-1], "TO": TO, "FIELDS": json.dumps(FIELDS), "NO_PROXY": "*"}


def outcome(command: list[Any], env: dict[str, str], kind: str, cwd: pathlib.Path) -> dict[str, Any]:
    done = processes.run(
        command, capture_output=True, text=True, check=True, timeout=60, cwd=cwd, env=env | {"KIND": kind}
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


EXPECTED = [("basic", {"status": 403}), ("oauth2", {"valid": [False, True]})]


@pytest.mark.skipif(importlib.util.find_spec("bandwidth") is None, reason="bandwidth-sdk is not installed")
def test_the_python_sdk_signs_in_with_oauth2_and_not_with_basic(
    rehearsal: dict[str, str], tmp_path: pathlib.Path
) -> None:
    for kind, expected in EXPECTED:
        assert outcome([sys.executable, "-c", PYTHON], rehearsal, kind, tmp_path) == expected


def token(env: dict[str, str]) -> str:
    """Fetch a token as the SDK does; its own URL for this is fixed to Bandwidth's."""
    client = f"{env['BW_CLIENT_ID']}:{env['BW_CLIENT_SECRET']}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(client).decode()}"}
    request = urllib.request.Request(env["BW_TOKEN_URL"], b"grant_type=client_credentials", headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
        value: str = json.load(response)["access_token"]
    return value


@pytest.mark.skipif(not shutil.which("npm"), reason="there is no Node")
def test_the_node_sdk_signs_in_with_oauth2_and_not_with_basic(
    rehearsal: dict[str, str], tmp_path: pathlib.Path
) -> None:
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tmp_path, NODE_SDK]
    installed = processes.run(install, capture_output=True, text=True, timeout=60)
    if installed.returncode:
        pytest.skip(f"{NODE_SDK} cannot be installed: {installed.stderr[-300:]}")
    env = rehearsal | {"TOKEN": token(rehearsal)}
    for kind, expected in EXPECTED:
        assert outcome(["node", "-e", NODE], env, kind, tmp_path) == expected
