"""The default TLS context trusts what is on disk when a connection opens, and a failure says why."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import ssl
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bandwidth_mfa_async import OAuth2ClientCredentials, TLSError
from bandwidth_mfa_async._tls_reason import tls_reason
from bandwidth_mfa_async._transport import _tls
from bandwidth_mfa_async.cli.doctor import _network
from tests.conftest import TO
from tests.support.certificates import serving, trusting
from tests.support.fault_server import Act, FaultServer, kept
from tests.support.tunnel import Tunnel

if TYPE_CHECKING:
    import pathlib

    from bandwidth_mfa_async import CodeTemplate, MFAClient
    from bandwidth_mfa_async.testing import ManualClock
    from tests.support.clients import MakeClient


@pytest.fixture
def bundle(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The machine's CA certificates; the variables are set after every import."""
    path = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(_tls, "_CHECK_INTERVAL", -1.0)
    return path


def replace(path: pathlib.Path, authority: trustme.CA) -> None:
    """Replace a file as package managers do."""
    new = path.with_suffix(".new")
    new.write_bytes(authority.cert_pem.bytes())
    new.replace(path)


def spoil(path: pathlib.Path, damaged: bytes) -> None:
    """Write into a file in place."""
    path.write_bytes(damaged)


async def drop_connections(mfa: MFAClient) -> None:
    """Close the idle connections, as the servers do from time to time."""
    session = mfa._executor.state.transport._session
    assert session is not None
    assert session.connector is not None
    for pool in session.connector._conns.values():
        for protocol, _ in pool:
            protocol.close()
    await asyncio.sleep(0)


@pytest.mark.uvloop
@pytest.mark.parametrize("tunnel", [False, True], ids=["direct", "proxy"])
async def test_ca_certificates_are_those_on_disk(
    make_client: MakeClient, template: CodeTemplate, bundle: pathlib.Path, tunnel: bool
) -> None:
    """A variable that is set after the import counts, and so does a bundle that is replaced while the client runs."""
    first, second = trustme.CA(), trustme.CA()
    replace(bundle, first)
    raw = await asyncio.start_server(Tunnel(200).serve, "127.0.0.1", 0)
    proxy = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}" if tunnel else None
    async with FaultServer(ssl=serving(first)) as server:
        mfa = make_client(base_url=server.base_url, proxy=proxy)
        await mfa.generate_messaging_code(template.to(TO))
        port = server.port
        await drop_connections(mfa)
    async with FaultServer(ssl=serving(second), port=port) as server:
        with pytest.raises(TLSError, match="unable to get local issuer certificate"):
            await mfa.generate_messaging_code(template.to(TO))
        replace(bundle, second)
        await mfa.generate_messaging_code(template.to(TO))
        await drop_connections(mfa)
        replace(bundle, first)
        with pytest.raises(TLSError):
            await mfa.generate_messaging_code(template.to(TO))
        await mfa.aclose()
    raw.close()
    await raw.wait_closed()


async def test_a_certificate_failure_is_reported_only_with_current_ca_certificates(
    make_client: MakeClient, template: CodeTemplate, bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that open within a second share one look at the files; before a failure they are looked at again."""
    monkeypatch.setattr(_tls, "_CHECK_INTERVAL", 60.0)
    first, second = trustme.CA(), trustme.CA()
    replace(bundle, first)
    async with FaultServer(ssl=serving(second)) as server:
        mfa = make_client(base_url=server.base_url)
        with pytest.raises(TLSError):
            await mfa.warm_up(3)
        replace(bundle, second)
        await mfa.generate_messaging_code(template.to(TO))
        await mfa.aclose()


async def test_a_bundle_that_cannot_be_read_leaves_the_last_one(
    make_client: MakeClient, template: CodeTemplate, bundle: pathlib.Path
) -> None:
    """OpenSSL ignores a file that is being written or is damaged; it counts once it is whole."""
    first, second = trustme.CA(), trustme.CA()
    replace(bundle, first)
    async with FaultServer(ssl=serving(first)) as server:
        mfa = make_client(base_url=server.base_url)
        for damaged in (b"", b"-----BEGIN CERTIFICATE-----\nMII"):
            spoil(bundle, damaged)
            context = _tls.DefaultContext()
            await context.get()
            replace(bundle, first)
            await mfa.generate_messaging_code(template.to(TO))
            assert (await context.get()).cert_store_stats()["x509"] == 1
            spoil(bundle, damaged)
            await drop_connections(mfa)
            await mfa.generate_messaging_code(template.to(TO))
            await drop_connections(mfa)
            replace(bundle, second)
            with pytest.raises(TLSError):
                await mfa.generate_messaging_code(template.to(TO))
        await mfa.aclose()


async def test_a_folder_of_ca_certificates_is_watched_too(
    bundle: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SSL_CERT_DIR` may name several; a file that is added, replaced or written in place counts."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", f"{one}{os.pathsep}{two}")
    default = _tls.DefaultContext()
    contexts = [await default.get()]
    (two / "a.0").write_bytes(b"1")
    contexts.append(await default.get())
    (two / "a.0").write_bytes(b"22")
    contexts.append(await default.get())
    assert len(set(map(id, contexts))) == 3
    assert await default.get() is contexts[-1]


async def test_a_context_of_the_user_is_used_as_it_is(
    make_client: MakeClient, template: CodeTemplate, bundle: pathlib.Path
) -> None:
    """It is neither replaced nor changed."""
    first, second = trustme.CA(), trustme.CA()
    context = trusting(first)
    replace(bundle, second)
    async with FaultServer(ssl=serving(second)) as server:
        mfa = make_client(base_url=server.base_url, ssl=context)
        before = context.cert_store_stats(), context.verify_flags, context.options
        with pytest.raises(TLSError):
            await mfa.generate_messaging_code(template.to(TO))
        assert (context.cert_store_stats(), context.verify_flags, context.options) == before
        await mfa.aclose()


async def test_the_context_is_made_once_and_off_the_loop(
    make_client: MakeClient, bundle: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one reads files for 100 ms; aiohttp's, which it made when it was imported, is not used."""
    authority = trustme.CA()
    replace(bundle, authority)
    made: list[ssl.SSLContext] = []
    real = ssl.create_default_context

    def make(*_purpose: Any) -> ssl.SSLContext:
        if _purpose:  # a server's
            return real(*_purpose)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        made.append(real())
        return made[-1]

    monkeypatch.setattr(_tls.ssl, "create_default_context", make)
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", None)
    async with FaultServer(ssl=serving(authority)) as server:
        mfa = make_client(base_url=server.base_url)
        await asyncio.gather(mfa.warm_up(5), mfa.warm_up(5))
        assert (len(made), kept(mfa)) == (1, 10)
        await mfa.aclose()


def strict_authority() -> tuple[ssl.SSLContext, bytes]:
    """Return a server's context and the PEM of its CA, whose certificates lack what Python 3.13 asks for."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("old CA", "127.0.0.1"))
    now = dt.datetime.now(dt.UTC)

    def begin(subject: x509.Name, its_key: Any) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(its_key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(1))
        return builder.not_valid_after(now + dt.timedelta(1))

    ca = begin(ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = begin(name, key).add_extension(host, critical=False).sign(ca_key, hashes.SHA256())
    pem = ca.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)
    chain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + leaf.public_bytes(Encoding.PEM)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    file = trustme.Blob(chain)
    with file.tempfile() as path:
        context.load_cert_chain(path)
    return context, pem


REASONS = {
    "expired": ("certificate has expired", "clock"),
    "not yet valid": ("certificate is not yet valid", "clock"),
    "wrong host": ("IP address mismatch", "check the host name in {url}"),
    "self-signed": ("self-signed certificate", "SSL_CERT_FILE"),
    "unknown CA": ("unable to get local issuer certificate", "SSL_CERT_FILE"),
    "strict": ("certificate is not accepted", "VERIFY_X509_STRICT"),
    "plain": ("wrong version number", "{url} names a TLS port"),
    "client certificate": ("bad certificate", "pass ssl= with a context"),
    "version": ("protocol version", "in common"),
}
# What a server that speaks no TLS says, and alerts of others.
REPLIES = {
    "plain": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "client certificate": b"\x15\x03\x03\x00\x02\x02\x2a",
    "version": b"\x15\x03\x03\x00\x02\x02\x46",
}


@pytest.mark.parametrize("how", REASONS)
async def test_a_tls_failure_says_why_and_what_to_do(
    make_client: MakeClient, template: CodeTemplate, clock: ManualClock, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL's reason, and a remedy that fits it; the command `doctor` says the same."""
    authority = trustme.CA()
    context: ssl.SSLContext | None = serving(authority, how if how in {"expired", "wrong host", "self-signed"} else "")
    trust = trusting(trustme.CA() if how in {"unknown CA", "self-signed"} else authority)
    if how == "strict":
        context, pem = strict_authority()
        trust.load_verify_locations(cadata=pem.decode())
        trust.verify_flags |= ssl.VERIFY_X509_STRICT
    elif how == "not yet valid":
        assert context is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        later = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
        authority.issue_cert("127.0.0.1", not_before=later, not_after=later + dt.timedelta(days=2)).configure_cert(
            context
        )
    reason, remedy = REASONS[how]
    async with FaultServer(ssl=None if how in REPLIES else context) as server:
        server.play(*[Act(REPLIES.get(how, b""), read="nothing", then="hang")] * (3 * (how in REPLIES)))
        origin = server.origin.replace("http:", "https:")
        mfa = make_client(base_url=f"{origin}/api/v1", ssl=trust)
        with pytest.raises(TLSError) as caught:
            await mfa.generate_messaging_code(template.to(TO))
        assert (caught.value.attempts, server.seen) == (1, [])
        assert reason in caught.value.message
        assert remedy.format(url="base_url") in caught.value.message
        auth = OAuth2ClientCredentials("id", "secret", token_url=f"{origin}/token")
        with pytest.raises(TLSError) as about_token:
            await make_client(auth=auth, ssl=trust).generate_messaging_code(template.to(TO))
        assert about_token.value.message == "no token: " + caught.value.message.replace("base_url", "token_url")

        monkeypatch.setattr(_network.ssl, "create_default_context", lambda: trust)
        finding = await _network._check_tls("127.0.0.1", server.port, "127.0.0.1", 5.0, clock)
        assert finding.status == "fail"
        assert f"{finding.detail}; {finding.remedy}" == caught.value.message.replace("base_url", "BW_MFA_URL")


def test_a_reason_is_one_printable_line() -> None:
    """OpenSSL's text quotes the host name of the URL and could quote the certificate."""
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message, error.reason = 62, "mismatch\x1b[31m for 'a\rb'", "X"  # type: ignore[misc]
    found = tls_reason(ConnectionError("redis"), url="url", trust="ssl_ca_certs")
    assert found is None
    wrapped = ConnectionError("redis")
    wrapped.__cause__ = error
    reason, remedy = tls_reason(wrapped, url="url", trust="ssl_ca_certs") or ("", "")
    assert reason.isprintable()
    assert "host name in url" in remedy
    error.verify_code = 20  # type: ignore[misc]
    assert "ssl_ca_certs" in (tls_reason(wrapped, trust="ssl_ca_certs") or ("", ""))[1]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the default since 3.13")
def test_python_checks_strictly_by_default() -> None:
    """This is why the remedy of a strict failure names the flag."""
    assert ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT
