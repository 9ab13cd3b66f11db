"""The soak test, for seconds."""

from __future__ import annotations

import json
import pathlib
import random
import sys

import pytest

from tests.support import processes
from tests.system.soak import gauges

ROOT = pathlib.Path(__file__).parents[2]


def test_soak() -> None:
    """After sign-ins and bulk runs through a service that is killed once, the closed client leaves nothing open."""
    command = [sys.executable, "-m", "tests.system.soak", "--minutes", "0.1", "--json"]
    run = processes.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(run.stdout)
    assert found["starts of the simulator"] == 2
    assert found["words"]["bulk accepted"] > 100
    assert found["words"]["signed in"] > 10
    # Growth shows after minutes only; bounds and the release of resources show at once.
    assert found["left"] == {"sockets": 0, "descriptors": 0, "tasks": 0}
    assert found["gauges"]["sockets"]["most"] <= 60
    assert found["gauges"]["threads"]["most"] <= 5
    assert run.stderr == ""


@pytest.mark.parametrize(
    ("gauge", "growth"), [("memory", 0.02), ("sockets", 0.01), ("descriptors", 0.01), ("tasks", 0.01)]
)
def test_the_soak_detects_a_leak(gauge: str, growth: float) -> None:
    """A leak of 12 MB, or of six of anything else, in ten minutes is not flat."""
    rng = random.Random(3)
    samples = [
        {"memory": 55 + rng.random(), "sockets": 2 + second % 40, "descriptors": 14, "tasks": 64, "threads": 2}
        for second in range(600)
    ]
    assert all(found["flat"] for found in gauges(samples).values())
    for second, sample in enumerate(samples):
        sample[gauge] += growth * second
    assert [name for name, found in gauges(samples).items() if not found["flat"]] == [gauge]
