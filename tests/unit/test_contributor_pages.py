"""The pages for contributors name files, tasks and modules that exist."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "RELEASING.md", "ARCHITECTURE.md", "PULL_REQUEST_TEMPLATE.md")
# Where the pages abbreviate paths.
FOLDERS = ("", "bandwidth_mfa_async", "tests/support", "tests/integration/transport")


def code_spans(page: str) -> set[str]:
    """Return what a page sets in backticks, and the words of its blocks."""
    text = (ROOT / ".github" / page).read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return set(re.findall(r"`([^`\n]+)`", text)) | {word for block in blocks for word in block.split()}


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    """Paths of the repository, of the package and of modules below it."""
    spans = {span for span in code_spans(page) if re.fullmatch(r"[\w./-]*/[\w.-]+", span)}
    if page != "PULL_REQUEST_TEMPLATE.md":
        assert spans
    for span in spans:
        candidates = [ROOT / folder / span for folder in FOLDERS]
        assert any(path.exists() or path.with_suffix(".py").exists() for path in candidates), span


@pytest.mark.parametrize("page", PAGES)
def test_tasks_and_programs_exist(page: str) -> None:
    """Tasks of poe, and modules that `python -m` runs."""
    tasks = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["poe"]["tasks"]
    for span in code_spans(page):
        for task in re.findall(r"\bpoe (\w+)", span):
            assert task in tasks
        for module in re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", span):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_the_layers_are_those_of_the_import_contract() -> None:
    """ARCHITECTURE's table has the modules of each layer of `lint-imports`, from the top."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    rows = re.findall(r"^\| \d+ \| (.*?) \|", (ROOT / ".github" / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    shown = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    assert shown == [set(layer.split(" | ")) for layer in contract["layers"]]


def test_each_mechanism_exists() -> None:
    """The names in ARCHITECTURE's table of mechanisms are attributes of the modules that it names."""
    text = (ROOT / ".github" / "ARCHITECTURE.md").read_text()
    table = text.split("## One mechanism, one place")[1].split("\n\n")[1]
    named = re.findall(r"`((?:_\w+\.)+)(\w+)`", table)
    assert len(named) >= 5
    for module, name in named:
        path = ROOT / "bandwidth_mfa_async" / module.strip(".").replace(".", "/")
        source = (path.with_suffix(".py")).read_text()
        assert re.search(rf"^(class |def |async def )?{name}\b", source, re.MULTILINE), f"{module}{name}"
