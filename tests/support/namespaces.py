"""Two network namespaces with a cable between them: two machines, for tests that run as root on Linux."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING, Final

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

# Reserved for documentation (RFC 5737), and in namespaces of their own.
ADDRESSES: Final = ("192.0.2.1", "192.0.2.2")
_CONFIGURATION: Final = pathlib.Path("/etc/netns")


def _ip(*arguments: str) -> None:
    processes.run(["ip", *arguments], check=True, capture_output=True)


def are_available() -> bool:
    """Return whether this process may make network namespaces."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"mfa-probe-{os.getpid()}"
    if processes.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    _ip("netns", "del", name)
    return True


@contextlib.contextmanager
def two_machines(name: str) -> Iterator[tuple[list[str], list[str]]]:
    """Make two machines, and yield the two commands that run a program on them.

    Args:
        name: the name by which the second machine knows the first.
    """
    names = [f"mfa-{os.getpid()}-{index}" for index in (1, 2)]
    hosts = _CONFIGURATION / names[1]
    with contextlib.ExitStack() as stack:
        for each in names:
            _ip("netns", "add", each)
            stack.callback(_ip, "netns", "del", each)
        # `ip netns exec` shows this file as /etc/hosts.
        hosts.mkdir(parents=True)
        stack.callback(_remove, hosts)
        (hosts / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESSES[0]} {name}\n")
        _ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for each, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", each, "addr", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", each, "link", "set", device, "up")
        yield ["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]]


def _remove(hosts: pathlib.Path) -> None:
    shutil.rmtree(hosts)
    with contextlib.suppress(OSError):  # it has those of others
        _CONFIGURATION.rmdir()
