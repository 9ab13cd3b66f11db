"""The addresses and credentials of a simulator, and the arguments of a client for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, TypedDict

from ._http import BASE_PATH, TOKEN_PATH
from ._page import PAGE_PATH

if TYPE_CHECKING:
    from ssl import SSLContext

    from bandwidth_mfa_async._credentials import BasicAuth

    from ._listener import Listener
    from ._settings import Settings


class ClientArguments(TypedDict):
    """The arguments of `MFAClient` for a simulator."""

    account_id: str
    auth: BasicAuth
    base_url: str
    ssl: NotRequired[SSLContext]


class Endpoint:
    """Where a simulator can be reached, and the credentials that it accepts; the base class of `Simulator`.

    Args:
        settings: the account and its credentials.
        listener: knows the address.
        control_token: what the page and the control API require; None for nothing.
    """

    def __init__(self, settings: Settings, listener: Listener, control_token: str | None) -> None:
        self._settings = settings
        self._listener = listener
        self._control_token = control_token

    @property
    def base_url(self) -> str:
        """The API's address, ending in ``/api/v1``.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        return self._listener.origin + BASE_PATH

    @property
    def token_url(self) -> str:
        """The address of the OAuth2 token endpoint; raises `SimulatorStateError` if it is not running."""
        return self._listener.origin + TOKEN_PATH

    @property
    def page_url(self) -> str:
        """The address of the inbox page; raises `SimulatorStateError` if it is not running."""
        return self._listener.origin + PAGE_PATH

    @property
    def control_url(self) -> str:
        """The address of the JSON control API; raises `SimulatorStateError` if it is not running."""
        return self._listener.origin + "/_simulator"

    @property
    def control_token(self) -> str | None:
        """What the page and the control API require, except ``/_simulator/ready``; None for nothing."""
        return self._control_token

    @property
    def port(self) -> int:
        """The port; raises `SimulatorStateError` if it is not running."""
        return self._listener.address[1]

    @property
    def account_id(self) -> str:
        """The account's id."""
        return self._settings.account_id

    @property
    def username(self) -> str:
        """The API user's name."""
        return self._settings.username

    @property
    def password(self) -> str:
        """The API user's password."""
        return self._settings.password

    @property
    def client_id(self) -> str:
        """The OAuth2 client's id."""
        return self._settings.client_id

    @property
    def client_secret(self) -> str:
        """The OAuth2 client's secret."""
        return self._settings.client_secret

    @property
    def ssl_context(self) -> SSLContext | None:
        """A client context that trusts the simulator's certificate authority; None without `tls`."""
        return None if self._listener.tls is None else self._listener.tls.client

    @property
    def ca_pem(self) -> bytes | None:
        """The certificate authority's certificate as PEM, for clients in other programs; None without `tls`."""
        return None if self._listener.tls is None else self._listener.tls.ca_pem

    def client_kwargs(self) -> ClientArguments:
        """Return the arguments of `MFAClient` for this simulator, with Basic credentials.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        # Imported here, so that the server itself does not depend on the SDK.
        from bandwidth_mfa_async._credentials import BasicAuth

        kwargs = ClientArguments(
            account_id=self.account_id,
            auth=BasicAuth(self.username, self.password),
            base_url=self.base_url,
        )
        if self._listener.tls is not None:
            kwargs["ssl"] = self._listener.tls.client
        return kwargs

    def environ(self) -> dict[str, str]:
        """Return the environment variables that make ``MFAClient.from_env()`` use this simulator.

        They select Basic, so that credentials of the real service in the environment are not used.

        Raises:
            SimulatorStateError: the simulator is not running.
        """
        return {
            "BW_ACCOUNT_ID": self.account_id,
            "BW_USERNAME": self.username,
            "BW_PASSWORD": self.password,
            "BW_AUTH": "basic",
            "BW_MFA_URL": self.base_url,
        }
