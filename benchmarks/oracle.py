"""A client's word against the service's ledger, under random faults: sends, calls and verifies, every resend policy.

Run: python -m benchmarks.oracle [--sends 100000] [--seed N] [--json]
Measures nothing but truth: each outcome is compared with what the service did. Ends with 1 if one was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter

import uvloop

from ._oracle import run

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sends", type=int, default=5_000, help="calls in all, half of them on each event loop")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats a run's faults")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    began = time.perf_counter()
    words: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    wrong: list[str] = []
    texts = 0
    for number, (name, factory) in enumerate(LOOPS.items()):
        verdict, world = run(options.seed + number, options.sends // 2, factory, attempt_timeout=0.2)
        words += verdict.words
        faults += world.ledger.faults
        texts += verdict.texts
        wrong += [f"{name}: {text}" for text in verdict.wrong]
    faults.pop("well", None)
    found = {
        "seed": options.seed,
        "calls": sum(words.values()),
        "texts": texts,
        "faults": sum(faults.values()),
        "kinds of faults": len(faults),
        "outcomes": dict(sorted(words.items())),
        "wrong": len(wrong),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if options.as_json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key}: {value}")
    for text in wrong[:20]:
        print(text, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
