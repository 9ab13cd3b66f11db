"""CPU and memory of importing this package and its client, beside `import aiohttp` and `import bandwidth`.

Run: python -m benchmarks.import_cost [--rounds 15] [--json FILE]
Every import runs in a new process with compiled bytecode, as after an installation; a ratio is the median over rounds
of its cost to `import aiohttp` in the same round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import sys
import tempfile

from tests.support import processes

AIOHTTP = "import aiohttp"
PACKAGE = "import bandwidth_mfa_async"
CLIENT = "from bandwidth_mfa_async import MFAClient"
OFFICIAL = "import bandwidth"
TARGETS = {PACKAGE: 1.25, CLIENT: 1.25}
# Subtract the CPU and memory that the process used before the import.
PROBE = """
import resource, time
def held(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
memory, cpu = held(), time.process_time()
{statement}
print(time.process_time() - cpu, held() - memory)
"""


def cost(statement: str, bytecode: str) -> tuple[float, float]:
    """Return the milliseconds of CPU and the MB of peak memory of one import."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = bytecode
    command = [sys.executable, "-c", PROBE.format(statement=statement)]
    run = processes.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, kilobytes = run.stdout.split()
    return float(seconds) * 1e3, float(kilobytes) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    statements = [AIOHTTP, PACKAGE, CLIENT]
    if importlib.util.find_spec("bandwidth") is None:
        print(f"{OFFICIAL}: missing: pip install bandwidth-sdk, or this package's [bench] extra")
    else:
        statements.append(OFFICIAL)
    seen: dict[str, list[tuple[float, float]]] = {statement: [] for statement in statements}
    with tempfile.TemporaryDirectory() as bytecode:
        for statement in statements:
            cost(statement, bytecode)
        for _ in range(options.rounds):
            for statement in statements:
                seen[statement].append(cost(statement, bytecode))
    figures = []
    print(f"{'':44}{'ms CPU':>8}{'MB':>8}{'to aiohttp':>12}  target")
    for statement, costs in seen.items():
        cpu, memory = (statistics.median(column) for column in zip(*costs, strict=True))
        ratio = statistics.median(own / other for (own, _), (other, _) in zip(costs, seen[AIOHTTP], strict=True))
        target = TARGETS.get(statement)
        verdict = "" if target is None else f"  <= {target:.2f} {'met' if ratio <= target else 'NOT MET'}"
        print(f"{statement:44}{cpu:8.0f}{memory:8.1f}{ratio:12.2f}{verdict}")
        figures.append({"statement": statement, "cpu_ms": cpu, "memory_mb": memory, "to_aiohttp": ratio})
    if options.json is not None:
        options.json.write_text(json.dumps({"python": sys.version.split()[0], "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
