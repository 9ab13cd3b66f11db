"""The growth benchmark at a small scale: many workers in one process, real scripts and a real Redis."""

from __future__ import annotations

import pytest

from bandwidth_mfa_async.worker import _runtime
from benchmarks import worker_growth
from tests.support.redis_server import server_binary


@pytest.mark.skipif(server_binary() is None, reason="no redis-server here")
async def test_codes_and_idle_workers_are_measured_and_the_rest_is_projected(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_growth, "PACES", ((2, 200), (6, 120)))
    monkeypatch.setattr(worker_growth, "IDLE", 5)
    monkeypatch.setattr(_runtime, "POLL_INTERVAL", 0.05)
    found = await worker_growth.run(0.5, tmp_path)
    for one in found["measured"]:
        assert one["codes a second, all"] > 0
        assert one["script calls a code"] > 0
        assert one["bytes over the wire a code"] > 50
    assert found["idle"]["script calls a second each"] > 0
    assert list(found["projected to 10,000 codes a second"]) == ["10 workers", "100 workers", "1,000 workers"]


def test_a_projection_uses_the_nearest_measured_pace_and_the_idle_cost():
    names = ("codes a second, each", "redis, us a code", "bytes over the wire a code")
    measured = [dict(zip(names, row, strict=True)) for row in ((300.0, 20.0, 200.0), (10.0, 60.0, 300.0))]
    found = worker_growth.projected(measured, {"redis, us a second each": 100.0})
    assert found["10 workers"]["cores of Redis"] == pytest.approx(0.2)
    assert found["1,000 workers"]["cores of Redis"] == pytest.approx(0.7)
    assert found["1,000 workers"]["codes a second at one core"] == pytest.approx(15_000)
    assert found["1,000 workers"]["megabits a second"] == pytest.approx(24.0)
