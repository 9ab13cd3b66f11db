"""The compose example's command, variables and app, on two machines without containers, and the image's files."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import pytest

from tests.support import namespaces, processes
from tests.support.simulate_process import CLEAN, COMMAND, simulating

FOLDER = pathlib.Path(__file__).parents[2] / ".github" / "simulator"
COMPOSE = (FOLDER / "compose.yaml").read_text()
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def service(name: str) -> str:
    found = re.search(rf"^  {name}:\n((?:    .*\n|\n)*)", COMPOSE, re.MULTILINE)
    assert found is not None
    return found[1]


def environment(name: str, folder: pathlib.Path) -> dict[str, str]:
    block = re.search(r"^    environment:\n((?:      .*\n)*)", service(name), re.MULTILINE)
    assert block is not None
    lines = dict(line.strip().split(": ", 1) for line in block[1].splitlines())
    return {variable: placed(value.strip('"'), folder) for variable, value in lines.items()}


def placed(value: str, folder: pathlib.Path) -> str:
    """Replace a container's folder by one of the test."""
    return str(folder) + value if value.startswith(("/authority/", "/state/")) else value


def test_the_compose_example_signs_a_person_in(tmp_path: pathlib.Path) -> None:
    if not namespaces.are_available():
        pytest.skip("network namespaces need root on Linux")
    command = re.search(r"^    command: (\[.*\])$", service("simulator"), re.MULTILINE)
    entrypoint = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert command is not None
    assert entrypoint is not None
    started = json.loads(entrypoint[1])
    assert started[:2] == ["bandwidth-mfa", "simulate"]
    options = [placed(word, tmp_path) for word in [*started[2:], *json.loads(command[1])]]
    for folder in ("authority", "state"):
        (tmp_path / folder).mkdir()
    given = environment("simulator", tmp_path)
    url = given.pop("SIMULATOR_URL")
    with namespaces.two_machines("simulator") as (one, other), simulating(*options, env=given, prefix=one):
        # The health check, in the simulator's own container.
        assert 'CMD bandwidth-mfa simulate --wait-ready "$SIMULATOR_URL"' in DOCKERFILE
        processes.run([*one, *COMMAND, "simulate", "--wait-ready", url, "--wait-timeout", "20"], check=True, env=CLEAN)
        app = [*other, sys.executable, FOLDER / "app.py"]
        done = processes.run(
            app, capture_output=True, text=True, check=True, env=CLEAN | environment("app", tmp_path), timeout=60
        )
    assert done.stdout == "signed in\n"
    assert (tmp_path / "state" / "simulator").stat().st_mode & 0o777 == 0o600


def test_the_image_runs_without_root_and_copies_what_the_build_reads() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    assert stages[-1].index("USER simulator") < stages[-1].index("ENTRYPOINT")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", stages[1], re.MULTILINE)
    names = " ".join(copied).split()
    allowed = re.findall(r"^!(.*)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(allowed)
    for name in names:
        assert (FOLDER.parents[1] / name).exists()
