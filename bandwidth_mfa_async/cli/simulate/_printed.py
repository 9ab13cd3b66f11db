"""What `simulate` prints at its start: addresses, variables to export, and a block for `.env` files."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ...simulator import Simulator

VARIABLES: Final = {
    "account_id": "BW_ACCOUNT_ID",
    "username": "BW_USERNAME",
    "password": "BW_PASSWORD",
    "client_id": "BW_CLIENT_ID",
    "client_secret": "BW_CLIENT_SECRET",
    "control_token": "BW_SIMULATOR_TOKEN",
}
"""The arguments of `Simulator` that the environment can set, each with its variable."""
_PAIRS: Final = (("username", "password"), ("client_id", "client_secret"), ("control_token",))


@frozen
class Start:
    """A simulator that has started, and what was given for it.

    Attributes:
        simulator: the running simulator.
        given: the arguments that came from the environment; their values are not printed.
        names: names of this machine for other machines.
        ca_file: the file with the certificate of the simulator's authority; None without TLS.
    """

    simulator: Simulator
    given: Collection[str]
    names: list[str]
    ca_file: str | None

    def lines(self) -> Iterator[str]:
        """Return the lines to print."""
        simulator = self.simulator
        yield f"simulating Bandwidth MFA at {simulator.base_url}; inbox at {self._page(simulator.page_url)}"
        for name in self.names:
            base, page = self._at(name, simulator.base_url), self._at(name, simulator.page_url)
            yield f"from other machines at {base}; inbox at {self._page(page)}"
        if self.names and self.ca_file is None:
            yield "note: this library sends credentials over plain http to this machine only; --tls is for others"
        yield "in another terminal:"
        yield f"  export BW_MFA_URL={simulator.base_url} BW_ACCOUNT_ID={simulator.account_id}"
        yield f"  export BW_TOKEN_URL={simulator.token_url}"
        for names in _PAIRS:
            if pair := [f"{VARIABLES[name]}={value}" for name in names if (value := self._made_up(name))]:
                yield f"  export {' '.join(pair)}"
        if self.ca_file is not None:
            file = shlex.quote(self.ca_file)
            yield f"  export SSL_CERT_FILE={file} NODE_EXTRA_CA_CERTS={file}"
        if self.given:
            yield f"  # from the environment of this simulator: {', '.join(VARIABLES[name] for name in self.given)}"
        yield "  bandwidth-mfa send +19195551234 --from +19195554321 --application-id any"
        yield f"  curl {self._curl_options()}{simulator.control_url}/messages"
        yield from self._env_file()
        yield "stop it with Ctrl-C"

    def _env_file(self) -> Iterator[str]:
        simulator = self.simulator
        name = self.names[0] if self.names else None
        yield f"for a .env file{f' of another machine ({name})' if name else ''}:"
        for variable, url in (("BW_MFA_URL", simulator.base_url), ("BW_TOKEN_URL", simulator.token_url)):
            yield f"{variable}={self._at(name, url) if name else url}"
        yield f"BW_ACCOUNT_ID={simulator.account_id}"
        for names in _PAIRS:
            for each in names:
                if each in self.given:
                    yield f"# {VARIABLES[each]} is set in the environment of this simulator"
                elif value := self._made_up(each):
                    yield f"{VARIABLES[each]}={value}"
        if self.ca_file is not None:
            yield f"{'# a copy of the file: ' if name else ''}SSL_CERT_FILE={self.ca_file}"

    def _made_up(self, name: str) -> str | None:
        value: str | None = None if name in self.given else getattr(self.simulator, name)
        return value

    def _page(self, url: str) -> str:
        if self.simulator.control_token is None:
            return url
        return f"{url}?token={self._made_up('control_token') or '$BW_SIMULATOR_TOKEN'}"

    def _curl_options(self) -> str:
        options = "" if self.ca_file is None else f"--cacert {shlex.quote(self.ca_file)} "
        if self.simulator.control_token is not None:
            options += '-H "Authorization: Bearer $BW_SIMULATOR_TOKEN" '
        return options

    @staticmethod
    def _at(name: str, url: str) -> str:
        parts = urlsplit(url)
        shown = f"[{name}]" if ":" in name else name
        return urlunsplit(parts._replace(netloc=f"{shown}:{parts.port}"))
