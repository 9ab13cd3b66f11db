"""Says why TLS failed, in OpenSSL's words, and what to do about it."""

from __future__ import annotations

import ssl
from typing import Final

from ._redaction import scrub

_CLOCK: Final = "check this machine's clock"
_OPERATOR: Final = "inform the server's operator"
_NAME: Final = "check the host name in {url}; a captive portal or an inspecting proxy can also cause this"
_UNTRUSTED: Final = (
    "install this machine's CA certificates (ca-certificates, or Python's Install Certificates), or name yours with "
    "{trust}; an inspecting proxy uses its own CA"
)
_STRICT: Final = (
    "the certificate breaks a rule that Python 3.13 and later check (VERIFY_X509_STRICT): have it issued anew; until "
    "then pass {context} whose verify_flags leave that flag out"
)
_WEAK: Final = "the certificate's key or signature is too weak for this machine's OpenSSL: have it issued anew"
_WRONG_USE: Final = f"{_OPERATOR}: a certificate of its chain may not be used for this"
# X509_V_ERR numbers, https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/ and openssl/x509_vfy.h.
_CERTIFICATE_REMEDIES: Final[tuple[tuple[range, str], ...]] = (
    (range(9, 10), _CLOCK),
    (range(10, 11), f"{_CLOCK}; if it is right, {_OPERATOR}"),
    (range(62, 63), _NAME),
    (range(64, 65), _NAME),
    (range(66, 69), _WEAK),
    (range(80, 95), _STRICT),
    (range(23, 24), _OPERATOR),  # revoked
    (range(24, 28), _WRONG_USE),
    (range(79, 80), _WRONG_USE),
)
# Beginnings of OpenSSL's reasons for failures other than those of the server's certificate.
_HANDSHAKE_REMEDIES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "CERTIFICATE_EXPIRED"),
        "the server does not accept this client's certificate: pass {context} with one that it accepts",
    ),
    (
        ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "HANDSHAKE_FAILURE", "NO_PROTOCOLS_AVAILABLE", "DH_KEY_TOO_SMALL"),
        "the server and this machine's OpenSSL have no TLS version or cipher in common",
    ),
)
_NOT_TLS: Final = "check that {url} names a TLS port"


def tls_reason(
    error: BaseException,
    *,
    url: str = "base_url",
    trust: str = "SSL_CERT_FILE or MFAClient(ssl=...)",
    context: str = "ssl= with a context",
) -> tuple[str, str] | None:
    """Return the reason of a TLS failure and its remedy; None for an error that TLS did not cause.

    Args:
        error: the error; the reason may also be in one that caused it.
        url: the setting that holds the server's URL, for the remedy.
        trust: the settings that name CA certificates, for the remedy.
        context: how a context is passed, for the remedy.
    """
    cause: BaseException | None = error
    # aiohttp's errors are SSLErrors as well, but without OpenSSL's reason; that is in the error that caused them.
    while cause is not None and not (isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None)):
        cause = cause.__cause__ or cause.__context__
    if not isinstance(cause, ssl.SSLError):
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"the certificate is not accepted: {scrub(cause.verify_message)}"
        remedy = next((text for codes, text in _CERTIFICATE_REMEDIES if cause.verify_code in codes), _UNTRUSTED)
    else:
        reason = f"the TLS handshake failed: {scrub(cause.reason).replace('_', ' ').lower()}"
        remedy = next(
            (text for signs, text in _HANDSHAKE_REMEDIES if any(sign in cause.reason for sign in signs)), _NOT_TLS
        )
    return reason, remedy.format(url=url, trust=trust, context=context)
