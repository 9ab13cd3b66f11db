"""HTTPS with a certificate that is made at start."""

from __future__ import annotations

import ssl
import sys

import aiohttp
import pytest

from bandwidth_mfa_async.simulator import InvalidOptionError, Simulator, SimulatorStateError
from tests.integration.simulator.conftest import SEND, ApiClient


async def _send(sim, **kwargs):
    # A new session per call, so that each call makes a handshake.
    async with aiohttp.ClientSession() as session:
        return await ApiClient(session, sim).post("messaging", SEND, **kwargs)


async def test_only_a_context_with_the_simulators_authority_trusts_it():
    async with Simulator(tls=True) as sim:
        assert sim.base_url.startswith("https://127.0.0.1:")
        assert sim.client_kwargs()["ssl"] is sim.ssl_context
        assert (await _send(sim, ssl=sim.ssl_context))[0] == 200
        trusting = ssl.create_default_context(cadata=sim.ca_pem.decode())
        assert (await _send(sim, ssl=trusting))[0] == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await _send(sim)


@pytest.mark.parametrize(
    ("certificate", "text"), [("expired", "certificate has expired"), ("wrong_host", "IP address mismatch")]
)
async def test_a_client_that_verifies_rejects_wrong_certificates(certificate, text):
    async with Simulator(tls=True, certificate=certificate) as sim:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match=text):
            await _send(sim, ssl=sim.ssl_context)


async def test_fail_handshakes_makes_the_next_handshakes_fail():
    async with Simulator(tls=True) as sim:
        sim.fail_handshakes(2)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorSSLError):
                await _send(sim, ssl=sim.ssl_context)
        assert (await _send(sim, ssl=sim.ssl_context))[0] == 200
        assert len(sim.inbox) == 1


async def test_fail_handshakes_raises_without_tls(sim):
    assert sim.ssl_context is None
    assert "ssl" not in sim.client_kwargs()
    with pytest.raises(SimulatorStateError, match="tls=True"):
        sim.fail_handshakes()


async def test_without_trustme_the_error_names_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    sim = Simulator(tls=True)
    with pytest.raises(SimulatorStateError, match="pip install trustme"):
        await sim.start()


async def test_an_unknown_certificate_raises():
    with pytest.raises(InvalidOptionError, match="certificate"):
        await Simulator(tls=True, certificate="stolen").start()
