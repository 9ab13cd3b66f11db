"""What an import of the package loads, and which names the top level of the repository contains."""

from __future__ import annotations

import pathlib
import sys

from tests.support import processes

ROOT = pathlib.Path(__file__).parents[2]


def test_the_asgi_application_does_not_import_aiohttp():
    """Neither the import of the package nor the application does."""
    code = (
        "import sys; from bandwidth_mfa_async.webhooks import receipt_asgi_app; receipt_asgi_app(print); "
        "sys.exit('aiohttp' in sys.modules)"
    )
    assert processes.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_loads_no_library() -> None:
    """The HTTP client is loaded by the first name that needs it."""
    code = "import sys, bandwidth_mfa_async; print([n for n in ('aiohttp', 'attrs', 'cattrs') if n in sys.modules])"
    done = processes.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_visible_top_level_is_fixed() -> None:
    """The root contains only the agreed names and nothing else that is committed."""
    tracked = processes.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    visible = {path.split("/")[0] for path in tracked if not path.startswith(".")}
    allowed = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "bandwidth_mfa_async", "tests", "benchmarks"}
    assert visible <= allowed
