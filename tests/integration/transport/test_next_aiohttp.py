"""Where aiohttp differs from what the optimisations use, every request goes through its documented interface."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from bandwidth_mfa_async._transport import _compatibility, _fast_path, _pool
from tests.conftest import TO

if TYPE_CHECKING:
    from bandwidth_mfa_async import CodeTemplate
    from tests.support.clients import MakeClient
    from tests.support.fault_server import FaultServer


@pytest.fixture(autouse=True)
def _first_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compatibility, "_reported", set())


class KeywordOnly(aiohttp.ClientRequest):
    def __init__(self, method: str, url: Any, *, session: Any, timer: Any, **options: Any) -> None:
        super().__init__(method, url, session=session, timer=timer, **options)


class Sealed(aiohttp.ClientRequest):
    def __init_subclass__(cls) -> None:
        raise TypeError("Inheritance from ClientRequest is forbidden")


def other_parameters(self: Any, *, params: Any) -> None:
    """Stands in for `ResponseHandler.set_response_params`."""


async def read_again(self: Any) -> Any:
    """Stands in for `ResponseHandler.read`."""
    return b"{}"


async def connect_otherwise(self: Any, *, request: Any) -> Any:
    """Stands in for `BaseConnector.connect`."""


DIFFERENCES: dict[str, tuple[Any, str, Any]] = {
    "a request by keywords": (aiohttp, "ClientRequest", KeywordOnly),
    "a sealed request": (aiohttp, "ClientRequest", Sealed),
    "no request": (aiohttp, "ClientRequest", None),
    "other parameters": (ResponseHandler, "set_response_params", other_parameters),
    "another message": (ResponseHandler, "read", read_again),
    "another connector": (aiohttp.BaseConnector, "connect", connect_otherwise),
    "no release": (Connection, "release", None),
}


@pytest.mark.parametrize(("owner", "name", "value"), DIFFERENCES.values(), ids=DIFFERENCES)
async def test_the_fast_path_is_not_used_where_aiohttp_differs(
    server: FaultServer,
    make_client: MakeClient,
    template: CodeTemplate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    value: Any,
) -> None:
    """Two clients report it once. The probe has the difference, and the calls that follow have aiohttp as it is."""
    clients = [make_client(), make_client()]
    _fast_path._destination_class.cache_clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "bandwidth_mfa_async"):
        if value is None:
            patch.delattr(owner, name)
        else:
            patch.setattr(owner, name, value)
        for client in clients:
            transport = client._executor.state.transport
            transport.check()
            transport._open()
    _fast_path._destination_class.cache_clear()
    assert len(caplog.messages) == 1
    assert "lacks what the fast path needs" in caplog.text
    for client in clients:
        assert client._executor.state.transport._fast_path is None
        await client.warm_up(2)
        assert (await client.generate_messaging_code(template.to(TO))).message_id
    assert len(server.seen) == 2


async def test_the_probe_finds_no_difference_in_this_aiohttp(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    transport = client._executor.state.transport
    transport.check()
    transport._open()
    assert transport._fast_path is not None
    assert isinstance(transport._session._connector._connector, _pool.Connector)
    assert caplog.messages == []


async def test_a_pool_of_another_aiohttp_is_its_own(
    make_client: MakeClient,
    template: CodeTemplate,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Our connector uses private parts; without them, aiohttp's own connector serves with the same settings."""

    async def create_connection(self: Any, request: Any) -> Any:
        """Stands in for `TCPConnector._create_connection`."""

    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.TCPConnector, "_create_connection", create_connection)
        connector = _pool.open_connector()
    assert type(connector) is aiohttp.TCPConnector
    assert (connector.limit, connector._keepalive_timeout) == (0, _pool.KEEPALIVE_TIMEOUT)
    assert "lacks what the connection pool needs" in caplog.text
    monkeypatch.setattr("bandwidth_mfa_async._transport._session.open_connector", lambda: connector)
    assert (await make_client().generate_messaging_code(template.to(TO))).message_id
