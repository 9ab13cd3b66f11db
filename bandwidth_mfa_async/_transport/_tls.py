"""The TLS context that verifies the service by default; made again when its CA certificates change on disk."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Final

# Seconds in which connections that open together share one look at the files.
_CHECK_INTERVAL: Final = 1.0


class DefaultContext:
    """Python's default context, with the CA certificates that are on disk now.

    OpenSSL reads them from `SSL_CERT_FILE` and `SSL_CERT_DIR`, or from the paths that it was built with. aiohttp's own
    context has those that were there when aiohttp was imported.
    """

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._state: object = None
        self._checked_at = 0.0
        self._check: asyncio.Future[None] | None = None

    async def get(self, *, recheck: bool = False) -> ssl.SSLContext:
        """Return the context; files are read in a thread.

        Args:
            recheck: look at the files even if that was done a moment ago.
        """
        loop = asyncio.get_running_loop()
        if self._context is not None and not recheck and loop.time() - self._checked_at < _CHECK_INTERVAL:
            return self._context
        if self._check is None:
            self._check = loop.run_in_executor(None, self._update)
            self._check.add_done_callback(self._done)
        # Shielded: the other connections wait for it as well.
        await asyncio.shield(self._check)
        assert self._context is not None  # noqa: S101 - _update sets it or raises
        self._checked_at = loop.time()
        return self._context

    def _done(self, check: asyncio.Future[None]) -> None:
        self._check = None
        if not check.cancelled():
            check.exception()  # retrieved, even if every waiting connection was cancelled

    def _update(self) -> None:
        state = _state_of_ca_files()
        if self._context is not None and state == self._state:
            return
        context = ssl.create_default_context()
        context.set_alpn_protocols(("http/1.1",))
        # OpenSSL ignores a file that it cannot read or parse, for example one that is being written.
        is_empty = not context.cert_store_stats()["x509"]
        if self._context is None or not is_empty or not self._context.cert_store_stats()["x509"]:
            self._context = context
        if not is_empty or _identity(_ca_file()) is None:
            self._state = state


def _ca_file() -> str:
    paths = ssl.get_default_verify_paths()
    return os.environ.get(paths.openssl_cafile_env) or paths.openssl_cafile


def _state_of_ca_files() -> tuple[object, ...]:
    """Return a value that differs once the certificate files or the variables that name them have changed."""
    paths = ssl.get_default_verify_paths()
    folders = (os.environ.get(paths.openssl_capath_env) or paths.openssl_capath).split(os.pathsep)
    names = [_ca_file()]
    for folder in folders:
        try:
            names += sorted(entry.path for entry in os.scandir(folder))
        except OSError:
            names.append(folder)
    return tuple((name, _identity(name)) for name in names)


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a directory may have hundreds of entries
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
