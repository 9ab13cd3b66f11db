"""Unit tests stay inside their process: a test that uses the network or starts a process fails."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK = {socket.AF_INET, socket.AF_INET6}


@pytest.fixture(autouse=True)
def _stays_in_its_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse connections, bound sockets and processes; the socket pair of an event loop is neither of these."""
    refused: list[str] = []

    def refuse(use: str) -> None:
        refused.append(use)
        raise AssertionError(f"a unit test must not {use}")

    def guard(name: str) -> None:
        original = getattr(socket.socket, name)

        def guarded(sock: socket.socket, address: Any) -> Any:
            if sock.family in NETWORK:
                refuse(f"{name} a socket")
            return original(sock, address)

        monkeypatch.setattr(socket.socket, name, guarded)

    for name in ("bind", "connect", "connect_ex"):
        guard(name)
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_args, **_options: refuse("start a process"))
    yield
    # The code under test may have caught the error.
    assert not refused, f"a unit test must not {', '.join(refused)}"
