"""The connection pool and one attempt over it: its time limit, and the error when no response arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
from yarl import URL

from .._process import fork_generation
from .._retry import load as load_retry
from .._wire import USER_AGENT, RawResponse
from ..errors import ClientStateError, DisconnectedError, NotSentError
from ._body import Headers
from ._compatibility import add_defect_note
from ._deadlines import DeadlineGroup
from ._documented import Response, connect, post
from ._failures import error_after_send, error_before_send, is_connection_failure
from ._fast_path import is_watched, open_fast_path
from ._options import split_proxy
from ._pool import CheckedConnector, open_connector, raise_mmap_threshold

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.connector import Connection

    from .._clock import Clock
    from ..errors import RequestError
    from ._body import Body
    from ._fast_path import FastPath

_NEVER_CEIL: Final = 1e9


def request_headers(**extra: str) -> Headers:
    """Return the headers that every request carries, plus `extra`."""
    return Headers(
        {
            "Accept": "application/json",
            # Without compression, a response cannot inflate from kilobytes to gigabytes.
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
            **extra,
        }
    )


def endpoint(base_url: str, account_id: str, path: str) -> URL:
    """Return the URL of an operation. The parts must be checked and safe in a path."""
    return URL(f"{base_url}/accounts/{account_id}/{path}", encoded=True)


def absolute_url(url: str) -> URL:
    """Return a checked URL in aiohttp's type."""
    return URL(url)


def _load_what_failures_need() -> None:
    """Import what the first failed call, or the first connection, would otherwise read from disk.

    A process that is out of file descriptors cannot read it then.
    """
    load_retry()
    "".encode("idna")  # how Python resolves host names


class Transport:
    """A connection pool, bound to the event loop and the process of its first use.

    Args:
        session: a session whose connector is used. Its headers, cookies, credentials and hooks are not used, and it
            is never closed.
        ssl: how to verify the service; None for the system's certificate authorities, or for the settings of the
            session.
        proxy: the URL of an http(s) proxy; proxies of the environment are not read.
        clock: the source of time for the age of connections.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession | None = None,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
        clock: Clock,
    ) -> None:
        self._borrowed = session
        self._ssl: SSLContext | bool = True if ssl is None else ssl
        self._proxy: URL | None = None
        self._proxy_headers: Headers | None = None
        if proxy is not None:
            self._proxy, self._proxy_headers = split_proxy(proxy)
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generation = -1
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._deadlines = DeadlineGroup()
        self._fast_path: FastPath | None = None
        self._aborted = False

    @property
    def bound(self) -> bool:
        """Whether the pool was used, and so belongs to a loop."""
        return self._loop is not None

    def check(self) -> None:
        """Bind to the running loop and this process on the first call; check them on later ones.

        Raises:
            ClientStateError: this is another loop or, after a fork, another process.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._generation == fork_generation():
            return
        if self._loop is None:
            _load_what_failures_need()
            self._loop, self._generation = loop, fork_generation()
            return
        if self._generation != fork_generation():
            raise ClientStateError("this client was used before a fork; make a new one in each process")
        raise ClientStateError("this client is bound to another event loop; make one client for each loop")

    def _open(self) -> aiohttp.ClientSession:
        raise_mmap_threshold()
        borrowed = self._borrowed
        connector: aiohttp.BaseConnector | None
        if borrowed is None:
            connector = open_connector()
        else:
            connector = borrowed.connector
            if connector is None or borrowed.closed:
                raise ClientStateError("the session passed to this client is closed; open one or pass none")
        self._session = aiohttp.ClientSession(
            connector=cast("aiohttp.BaseConnector", CheckedConnector(connector, self._clock)),
            connector_owner=borrowed is None,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
            auto_decompress=False,
            trust_env=False,
        )
        self._fast_path = open_fast_path(
            self._session, ssl=self._ssl, proxy=self._proxy, proxy_headers=self._proxy_headers
        )
        return self._session

    def _timeout(self, connect: float) -> aiohttp.ClientTimeout:
        # No total: `DeadlineGroup` is cheaper and covers the response's body as well.
        timeout = self._timeouts.get(connect)
        if timeout is None:
            if len(self._timeouts) > 64:  # views made for single calls may each have their own
                self._timeouts.clear()
            timeout = aiohttp.ClientTimeout(
                total=None, connect=connect, sock_connect=connect, sock_read=None, ceil_threshold=_NEVER_CEIL
            )
            self._timeouts[connect] = timeout
        return timeout

    async def send(  # noqa: PLR0913 - the parts of a request
        self, url: URL, headers: Headers, payload: Body, *, operation: str, timeout: float, connect_timeout: float
    ) -> RawResponse:
        """POST once and read the response.

        Args:
            url: the operation's URL.
            headers: all headers, including the credentials.
            payload: the body; its `begun` is valid afterwards, also if the caller was cancelled.
            operation: the client method, for the error.
            timeout: seconds for the whole attempt, to the response's last byte.
            connect_timeout: seconds for the connection, including TLS.

        Raises:
            NotSentError: the body was not begun.
            DeliveryUnknownError: the body was begun and no status arrived.
            Exception: unchanged: what the payload's `check_before_write` raised, and any error that is not a failure of
                the connection.
        """
        session = self._session or self._open()
        response = RawResponse(0, {}, b"")
        timed_out = False
        error: RequestError
        bucket = self._deadlines.bucket(timeout)
        attempt = bucket.begin()
        try:
            try:
                bound = self._timeout(connect_timeout)
                fast_path = self._fast_path
                if fast_path is not None and not is_watched(session):
                    await fast_path.post(session, operation, url, headers, payload, response, bound)
                else:
                    await post(
                        session,
                        url,
                        headers,
                        payload,
                        response,
                        bound,
                        ssl=self._ssl,
                        proxy=self._proxy,
                        proxy_headers=self._proxy_headers,
                    )
            finally:
                timed_out = bucket.end(attempt)
        except asyncio.CancelledError as failure:
            # aiohttp also cancels requests that wait for DNS or a connection when their pool is closed.
            task = asyncio.current_task()
            if not timed_out and (task is None or task.cancelling()):
                raise
            response.defect = "timeout" if timed_out and not self._aborted else "disconnected"
            error = self._unanswered(TimeoutError() if timed_out else failure, operation, begun=payload.begun)
        except Exception as failure:
            if payload.denial is None and not is_connection_failure(failure):
                add_defect_note(failure)
                raise
            response.defect = "timeout" if isinstance(failure, TimeoutError) and not self._aborted else "disconnected"
            error = self._unanswered(failure, operation, begun=payload.begun)
        else:
            return response
        if payload.denial is not None:
            raise payload.denial
        if response.status:
            return response
        # Outside the handlers, so that `__context__` does not hold aiohttp's error, whose repr shows the credentials.
        raise error

    def _unanswered(self, failure: BaseException, operation: str, *, begun: bool) -> RequestError:
        if self._aborted:
            if begun:
                return DisconnectedError("the client was closed before the response arrived", operation)
            return NotSentError("the client was closed before the request was written", operation)
        return error_after_send(failure, operation) if begun else error_before_send(failure, operation)

    async def warm_up(self, url: URL, connections: int, connect_timeout: float) -> None:
        """Open connections to a URL's host and put them into the pool, without sending a request.

        Args:
            url: any URL of the service.
            connections: the number of connections.
            connect_timeout: seconds for each.

        Raises:
            NotSentError: a connection could not be opened.
        """
        session = self._session or self._open()
        opened: list[Connection] = []
        failure: BaseException | None = None
        destination: dict[str, Any] = {"ssl": self._ssl, "proxy": self._proxy, "proxy_headers": self._proxy_headers}
        bound = self._timeout(connect_timeout)
        bucket = self._deadlines.bucket(connect_timeout)
        attempt = bucket.begin()
        timed_out = False
        try:
            try:
                results = await asyncio.gather(
                    *(connect(session, url, opened, bound, **destination) for _ in range(connections)),
                    return_exceptions=True,
                )
            finally:
                timed_out = bucket.end(attempt)
            failure = next((result for result in results if isinstance(result, BaseException)), None)
        except asyncio.CancelledError:
            if not timed_out:
                raise
            failure = TimeoutError()
        finally:
            # Released together: an early release would let the next one reuse the connection.
            for connection in opened:
                connection.release()
        if failure is None:
            return
        if not is_connection_failure(failure) and not isinstance(failure, asyncio.CancelledError):
            add_defect_note(failure)
            raise failure
        raise error_before_send(failure, "warm_up")

    def abort(self) -> None:
        """Cancel every attempt in flight; each raises its own error."""
        self._aborted = True
        self._deadlines.cancel()

    async def aclose(self) -> None:
        """Close the pool, unless its connector is borrowed."""
        session = self._session
        if session is None:
            return
        await session.close()
        # TLS connections shut down in the next iterations of the loop; without one the interpreter warns at exit.
        await asyncio.sleep(0)
