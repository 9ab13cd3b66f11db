"""The names and addresses by which other machines reach a simulator."""

from __future__ import annotations

import socket
from typing import Final

from ..._validation import is_loopback

_ALL: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
# Reserved for documentation (RFC 5737): choosing the way there sends nothing.
_ANYWHERE: Final = ("192.0.2.1", 9)


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    return is_loopback(host)


def other_names(host: str, control_hosts: tuple[str, ...]) -> list[str]:
    """Return the names for other machines: those that the user gave, else this machine's own.

    Args:
        host: the address that the simulator listens on.
        control_hosts: the names of ``--control-host``.
    """
    if control_hosts:
        return list(control_hosts)
    if is_local(host):
        return []
    if host not in _ALL:
        return [host]
    return list(dict.fromkeys([_own_address(), socket.gethostname()]))


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANYWHERE)
        except OSError:  # no network
            return socket.gethostname()
        address: str = probe.getsockname()[0]
        return address
