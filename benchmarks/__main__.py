"""Runs all small benchmarks in less than ten minutes; prints one table with baselines and targets.

Run: python -m benchmarks [--only PART ...] [--save]
`--save` writes the raw figures and the machine to benchmarks/results and generates the three charts, the table of
benchmarks/README.md and README's five figures from them. Each part is a separate process, which is ended when the time
is up. Figures measured while other processes used much of the machine are marked.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from attrs import frozen

from tests.support import processes

from . import _background_load, _charts, _numbers

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- made by python -m benchmarks --save -->\n", "<!-- the end of what is made -->\n"
MAX_SECONDS = 590.0
LIBRARIES = (
    *("aiohttp", "attrs", "cattrs", "tenacity", "uvloop", "aiohttp-retry", "bandwidth-sdk"),
    *("httpx", "niquests", "twilio", "urllib3", "redis", "taskiq"),
)


@frozen
class Part:
    """One benchmark and its options.

    Args:
        command: the module and its options; the last option asks for JSON.
        to_file: True if the JSON goes into a file named by the next argument, False if it is printed.
        server: a program that the benchmark needs.
        folder: the package of the module.
        package: a requirement that pip installs into a temporary directory for this part only, because it replaces a
            library of another part.
    """

    command: tuple[str, ...]
    to_file: bool = False
    server: str = ""
    folder: str = "benchmarks"
    package: str = ""


# The longest comes last, so that the others are measured even if the time runs out.
PARTS = {
    "calls": Part(("call_cost", "--rounds", "21", "--in-flight", "1", "32", "256", "--json"), to_file=True),
    "niquests": Part(
        ("call_cost", "--rounds", "11", "--in-flight", "1", "32", "256", "--no-growth", "--only", "niquests", "--json"),
        to_file=True,
        package="niquests>=3.14",
    ),
    "rates": Part(("rates", "--quick", "--json"), to_file=True),
    "bulk": Part(("bulk", "--quick", "--only", "cost", "--json")),
    "imports": Part(("import_cost", "--rounds", "25", "--json"), to_file=True),
    "first": Part(("first_call", "--rounds", "9", "--json"), to_file=True),
    "worker": Part(
        ("worker_cost", "--items", "4000", "--rounds", "3", "--processes", "1", "--keys", "0", "--json"),
        server="redis-server",
    ),
    "truth": Part(("oracle", "--sends", "2000", "--json"), folder="tests.system"),
    "memory": Part(("bulk", "--only", "memory", "--items", "1000000", "--json")),
}


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    model = platform.processor() or "unknown"
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
    }


def measure(part: Part, seconds: float) -> dict[str, Any]:
    """Run one part and return its raw figures. The part prints its own errors."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "figures.json"
        command = [sys.executable, "-m", f"{part.folder}.{part.command[0]}", *part.command[1:]]
        environment = dict(os.environ)
        if part.package:
            packages = pathlib.Path(folder) / "packages"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), part.package]
            processes.run(pip, stdout=sys.stderr, timeout=seconds, check=True)
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"))))
        done = processes.run(
            [*command, *([str(file)] if part.to_file else [])],
            cwd=ROOT,
            env=environment,
            stdout=processes.PIPE,
            text=True,
            timeout=max(0.0, until - time.monotonic()),
            check=False,
        )
        written = (file.read_text() if file.exists() else "") if part.to_file else done.stdout
    # A part that ends with 1 because of its findings has figures all the same.
    if not written:
        done.check_returncode()
    figures: dict[str, Any] = json.loads(written)
    return figures


def run(names: list[str], max_seconds: float = MAX_SECONDS) -> dict[str, dict[str, Any]]:
    """Run the parts one after another; return the figures, the machine and the duration of each."""
    results = {}
    until = time.monotonic() + max_seconds
    for name in names:
        part = PARTS[name]
        if part.server and shutil.which(part.server) is None:
            print(f"{name}: skipped, {part.server} is not installed", file=sys.stderr)
            continue
        print(f"{name}: python -m {part.folder}.{' '.join(part.command)}", file=sys.stderr, flush=True)
        began, load = time.monotonic(), _background_load.BackgroundLoad()
        try:
            figures = measure(part, until - began)
        except subprocess.TimeoutExpired:
            print(f"{name}: ended, the time is up", file=sys.stderr)
            continue
        except subprocess.CalledProcessError as error:
            print(f"{name}: ended with {error.returncode}", file=sys.stderr)
            continue
        took = round(time.monotonic() - began, 1)
        results[name] = {
            "part": name,
            "command": " ".join(part.command),
            "seconds": took,
            "others": load.share(),
            "machine": machine(),
            "figures": figures,
        }
    return results


def saved(folder: pathlib.Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return the saved results of the parts."""
    return {name: json.loads(file.read_text()) for name in PARTS if (file := folder / f"{name}.json").exists()}


def section(results: dict[str, dict[str, Any]]) -> str:
    """Return the results for benchmarks/README.md."""
    machines = [result["machine"] for result in results.values()]
    on = {f"{one['cpu']}, {one['cores']} cores, {one['python']}, {one['system']}" for one in machines}
    days = sorted({one["date"][:10] for one in machines})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    pictures = "\n\n".join(
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="results/{name}-dark.svg">'
        f'<img src="results/{name}-light.svg" width="{_charts.WIDTH}" alt="{alt}"></picture>'
        for name, alt in (
            ("calls", "CPU of a call by client"),
            ("rates", "accepted a second under a changing limit"),
            ("memory", "peak memory of a bulk run by its size"),
        )
        if name in results
    )
    table = _numbers.as_markdown(_numbers.rows(results))
    note = f"{_background_load.footnote(results)}.\n\n" if _background_load.busy(results) else ""
    return f"{pictures}\n\n{table}\n\n{note}Measured on {'; '.join(sorted(on))}, {when}.\n"


def shown(results: dict[str, dict[str, Any]]) -> str:
    """Return the table for a terminal."""
    table = _numbers.as_text(_numbers.rows(results))
    return f"{table}\n{_background_load.footnote(results)}" if _background_load.busy(results) else table


def quoted(results: dict[str, dict[str, Any]]) -> str:
    """Return the five figures that README quotes."""
    return _numbers.as_short_markdown(_numbers.quoted_rows(results)) + "\n"


def draw(folder: pathlib.Path = RESULTS, page: pathlib.Path = PAGE, readme: pathlib.Path = README) -> None:
    """Generate the charts, the table of `page` and README's figures from the saved results."""
    results = saved(folder)
    for name, picture in _charts.draw(results).items():
        (folder / name).write_text(picture)
    _replace_made(page, section(results))
    _replace_made(readme, quoted(results))


def _replace_made(file: pathlib.Path, text: str) -> None:
    """Replace the part of a file between its two marks."""
    before, begin, rest = file.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"{file} lacks the lines {BEGIN.strip()} and {END.strip()}; restore them")
    file.write_text(f"{before}{begin}{text}{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--save", action="store_true", help="save the figures; generate charts and tables")
    options = parser.parse_args()
    results = run(options.only)
    print(shown(results))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        for name, result in results.items():
            (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        draw()
    if missing := [name for name in options.only if name not in results]:
        sys.exit(f"not measured: {', '.join(missing)}")


if __name__ == "__main__":
    main()
