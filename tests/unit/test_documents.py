"""README and the guides: links have a target, guides have one form, and quoted messages exist."""

from __future__ import annotations

import ast
import itertools
import pathlib
import re

import pytest

from bandwidth_mfa_async import __version__

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / ".github" / "guides").glob("*.md"))
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / ".github").glob("*.md")),
    *GUIDES,
]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")
# Messages of Python, pytest and FastAPI.
FOREIGN = ("RuntimeWarning: ", "TypeError: vars()", "async def functions are not natively supported")


def prose(page: pathlib.Path) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def headings(page: pathlib.Path) -> set[str]:
    """Return the anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_a_target(page: pathlib.Path) -> None:
    """A relative link points to an existing file or heading."""
    for target in (one or other for one, other in LINK.findall(prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not heading or heading in headings(file), target


def test_readme_is_short_and_links_every_guide() -> None:
    """README has 300 to 350 lines, and each guide can be reached from it."""
    assert 300 <= len(README.read_text().splitlines()) <= 350
    linked = set(re.findall(r"\.github/guides/([a-z-]+\.md)", README.read_text()))
    assert {page.name for page in GUIDES} <= linked


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_starts_with_its_task(page: pathlib.Path) -> None:
    """The title is followed by the task in bold."""
    title, empty, first, *_ = page.read_text().splitlines()
    assert title.startswith("# ")
    assert not empty
    assert first.startswith("**Task:**")


def test_the_guide_quotes_the_recipes_of_the_engines() -> None:
    """One file as a whole; of the others, all code that a row quotes."""
    engines = ROOT / "tests" / "system" / "engines"
    guide = (ROOT / ".github" / "guides" / "task-queues.md").read_text()
    assert f"```py\n{(engines / 'with_arq.py').read_text()}```" in guide
    for recipe in engines.glob("with_*.py"):
        if recipe.stem != "with_arq":
            (row,) = (line for line in guide.splitlines() if f"/{recipe.name})" in line)
            pieces = re.findall(r"`([^`]+)`", row.split("|")[2])
            assert pieces
            assert all(piece in recipe.read_text() for piece in pieces), pieces


def test_nothing_is_written_twice() -> None:
    """No paragraph or list item of some length stands on two pages."""
    seen: dict[str, str] = {}
    for page in [README, *GUIDES]:
        for piece in re.split(r"\n\n|\n(?=- )", prose(page)):
            text = " ".join(piece.split())
            if len(text) > 160 and not text.startswith(("|", "#")):
                assert seen.setdefault(text, page.name) == page.name, text
                seen[text] = page.name


def messages_of_the_package() -> str:
    """Return all texts of the package's code, with "…" for what is filled in."""
    texts = []
    for file in (ROOT / "bandwidth_mfa_async").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%\w", "…", node.value))
    return "\n".join(texts)


def test_the_messages_of_troubleshooting_exist() -> None:
    """The package's code contains each message in the first column, as it is written there."""
    code = messages_of_the_package()
    rows = re.findall(
        r"^\| (`[^|]*`) \|", (ROOT / ".github" / "guides" / "troubleshooting.md").read_text(), re.MULTILINE
    )
    quoted = list(itertools.chain.from_iterable(re.findall(r"`([^`]+)`", row) for row in rows))
    assert len(quoted) > 30
    missing = [text for text in quoted if not text.startswith(FOREIGN) and text not in code]
    assert not missing


def test_every_variable_is_documented() -> None:
    """A table of README or of a guide has each environment variable that the package reads."""
    code = "".join(file.read_text() for file in (ROOT / "bandwidth_mfa_async").rglob("*.py"))
    variables = set(re.findall(r"\bBW_[A-Z_]+[A-Z]\b", code))
    lines = "\n".join(page.read_text() for page in [README, *GUIDES]).splitlines()
    rows = "".join(line for line in lines if line.startswith("| `BW_"))
    assert variables == set(re.findall(r"`(BW_[A-Z_]+)`", rows))


def test_the_changelog_has_each_version_and_part_once() -> None:
    """A merge that brings back old text would repeat a heading."""
    parts = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    versions = [part.splitlines()[0].split()[0] for part in parts]
    assert versions[0] in {"Unreleased", __version__}
    assert __version__ in versions
    assert len(versions) == len(set(versions))
    for part in parts:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert len(kinds) == len(set(kinds))


def test_the_repositorys_address_is_in_one_file() -> None:
    """Until there is one, its placeholder stands in pyproject.toml and nowhere else."""
    named = [page.name for page in PAGES if "example.org/REPOSITORY" in page.read_text()]
    assert not named
    assert "example.org/REPOSITORY" in (ROOT / "pyproject.toml").read_text()
