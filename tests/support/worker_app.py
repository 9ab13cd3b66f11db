"""The module that worker processes of the tests load: ``taskiq worker tests.support.worker_app:broker``."""

from __future__ import annotations

import os

from taskiq_redis import RedisStreamBroker

from bandwidth_mfa_async import CodeTemplate, Limits, MFAClient, Resend, RetryPolicy
from bandwidth_mfa_async.worker import MFAWorker, RedisLedger

REDIS = os.environ["WORKER_REDIS"]
LOGIN = CodeTemplate("+19195554321", "93de2206-9669-4e07-948d-329f4b722ee2", scope="login")

broker = RedisStreamBroker(REDIS, idle_timeout=15_000, maxlen=10_000)


def client() -> MFAClient:
    limits = Limits(adaptive=os.environ.get("WORKER_ADAPTIVE", "1") == "1", max_in_flight=50)
    resend = Resend[os.environ.get("WORKER_RESEND", "REJECTED")]
    return MFAClient.from_env(limits=limits, retry=RetryPolicy(resend=resend))


codes = MFAWorker(
    broker,
    ledger=RedisLedger(REDIS, lease=float(os.environ.get("WORKER_LEASE", "5")), timeout=1.0),
    client=client,
    share_limits=os.environ.get("WORKER_ADAPTIVE", "1") == "1",
)
