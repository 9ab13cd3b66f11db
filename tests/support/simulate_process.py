"""`bandwidth-mfa simulate` as a process, with what it prints."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import ssl
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import frozen

from tests.support import processes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence

COMMAND = [sys.executable, "-m", "bandwidth_mfa_async"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("BW_")} | {"NO_PROXY": "*"}


@frozen
class Simulate:
    """A running `simulate`: its process, its first lines, and the variables of its two blocks."""

    process: subprocess.Popen[str]
    lines: list[str]
    exported: dict[str, str]
    env_file: dict[str, str]

    @property
    def page(self) -> str:
        return self.lines[0].rpartition("; inbox at ")[2]

    @property
    def origin(self) -> str:
        return self.exported["BW_MFA_URL"].removesuffix("/api/v1")

    def request(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        """Return the status and the JSON answer of the control API, with the token if one was printed."""
        if token := self.exported.get("BW_SIMULATOR_TOKEN"):
            headers = {"Authorization": f"Bearer {token}"} | headers
        parts = urlsplit(self.origin)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
        if file := self.exported.get("SSL_CERT_FILE"):
            context = ssl.create_default_context(cafile=file)
            connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=20, context=context)
        with contextlib.closing(connection):
            connection.request(method, f"/_simulator/{path}", headers=headers)
            with connection.getresponse() as response:
                return response.status, json.loads(response.read() or "null")

    def control(self, path: str, method: str = "GET", **headers: str) -> Any:
        """Return the JSON answer of a request that must succeed."""
        status, body = self.request(path, method, **headers)
        assert status < 300, body
        return body


@contextlib.contextmanager
def simulating(
    *options: str,
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    port: int = 0,
    program: Sequence[str] = COMMAND,
) -> Iterator[Simulate]:
    """Run `simulate` until the block ends; `prefix` is a command that runs it, such as ``ip netns exec NAME``."""
    command = [*prefix, *program, "simulate", "--port", str(port), *options]
    with processes.running(
        command, stdout=processes.PIPE, text=True, env=CLEAN | {"PYTHONUNBUFFERED": "1"} | dict(env or {})
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("stop it")):
            line = process.stdout.readline()
            assert line, f"simulate ended early: {lines}"
            lines.append(line.rstrip("\n"))
        exported = dict(
            word.split("=", 1) for line in lines if line.startswith("  export ") for word in shlex.split(line)[1:]
        )
        start = next(index for index, line in enumerate(lines) if line.startswith("for a .env file"))
        block = dict(line.split("=", 1) for line in lines[start + 1 : -1] if not line.startswith("#"))
        yield Simulate(process, lines, exported, block)
