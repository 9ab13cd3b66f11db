"""The house: imports point down, siblings do not import each other, each third-party library has its place."""

from __future__ import annotations

import ast
import pathlib
from collections import defaultdict

import pytest

from tests.support import processes

PACKAGE = "bandwidth_mfa_async"
ROOT = pathlib.Path(__file__).parents[2] / PACKAGE

# Layer of each module or sub-package; a module may import only from lower ones.
LAYERS = {
    "errors": 0,
    "_redaction": 0,
    "_clock": 0,
    "_version": 0,
    "_waits": 0,
    "_models": 1,
    "_config": 1,
    "telemetry": 1,
    "_wire": 2,
    "_auth": 2,
    "_retry": 2,
    "limits": 2,
    "_transport": 3,
    "webhooks": 3,
    "_client": 4,
    "bulk": 5,
    "testing": 6,
    "worker": 6,
    "cli": 7,
    "pytest_plugin": 7,
    "__main__": 8,
}
# A tower of its own. The one line that leaves it makes the arguments of a client, inside `client_kwargs`.
TOWER = "simulator"
TOWER_MAY_IMPORT = {"_clock"}
TOWER_EXCEPTION = ("simulator._simulator", "_config")

# Which modules may import which third-party library (the library's top-level name).
HOMES = {
    "aiohttp": {"_transport", "_client", "webhooks", "simulator"},  # _client: a type only
    "yarl": {"_transport", "simulator"},
    "multidict": {"_transport", "simulator"},
    "cattrs": {"_wire", "bulk"},
    "orjson": {"_wire", "simulator"},
    "tenacity": {"_retry"},
    "redis": {"limits", "worker"},
    "click": {"cli"},
    "rich": {"cli"},
    "trustme": {"simulator"},
    "taskiq": {"worker"},
    "opentelemetry": {"telemetry"},
}

MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


def name_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: pathlib.Path) -> tuple[set[str], set[str]]:
    """Return the modules of ours and of others that a file imports, TYPE_CHECKING blocks included."""
    package = [PACKAGE, *path.relative_to(ROOT).parent.parts]
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                (ours if alias.name.split(".")[0] == PACKAGE else others).add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                module = node.module or ""
                (ours if module.split(".")[0] == PACKAGE else others).add(module)
                continue
            base = package[: len(package) - node.level + 1]
            if node.module:
                ours.add(".".join([*base, node.module]))
            else:
                ours.update(".".join([*base, alias.name]) for alias in node.names)
    return {name.removeprefix(PACKAGE).removeprefix(".") for name in ours}, others


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: pathlib.Path) -> None:
    """Not even under TYPE_CHECKING does a module import a sibling or one above it."""
    name = name_of(path)
    ours, _ = imports(path)
    for target in ours:
        if top(target) == top(name):
            continue
        if top(target) not in LAYERS and top(target) != TOWER:
            # The root package itself, or a name of it: for those who stand where users stand.
            assert LAYERS.get(top(name), 0) >= 6, f"{name} imports the root package"
            continue
        if top(name) == TOWER:
            allowed = top(target) in TOWER_MAY_IMPORT or (name, top(target)) == TOWER_EXCEPTION
            assert allowed, f"{name} imports {target}: the simulator knows nothing of the client"
            continue
        if top(target) == TOWER:
            assert LAYERS[top(name)] > 5, f"{name} imports the simulator"
            continue
        assert LAYERS[top(target)] < LAYERS[top(name)], f"{name} imports {target}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_library_has_its_place(path: pathlib.Path) -> None:
    """A third-party library is known to one module, so that it can be changed in one place."""
    _, others = imports(path)
    for library in {top(name) for name in others} & HOMES.keys():
        assert top(name_of(path)) in HOMES[library], f"{name_of(path)} imports {library}"


def test_no_cycles() -> None:
    """The graph of all imports, inside sub-packages too, has no cycle."""
    graph: dict[str, set[str]] = defaultdict(set)
    names = {name_of(path) for path in MODULES}
    for path in MODULES:
        ours, _ = imports(path)
        for target in ours:
            # `from .errors import X` names a module; `from . import x` may name a module or a member of the package.
            graph[name_of(path)].add(target if target in names else target.rpartition(".")[0])
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for target in graph[name] - {""}:
            visit(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_every_module_has_a_layer() -> None:
    """A new module is placed before it is written."""
    assert {top(name_of(path)) for path in MODULES} <= LAYERS.keys() | {TOWER}


@pytest.mark.parametrize("path", [*MODULES, ROOT / "__init__.py"], ids=name_of)
def test_modules_are_small_and_say_what_they_are_for(path: pathlib.Path) -> None:
    """A docstring, and not much more than 400 lines."""
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), f"{path.name} has no docstring"
    assert source.count("\n") <= 460, f"{path.name} is too long: split it"


def test_the_visible_top_level() -> None:
    """The root holds what was agreed, and nothing else that is committed."""
    tracked = processes.run(
        ["git", "ls-files"], cwd=ROOT.parent, capture_output=True, text=True, check=False
    ).stdout.split()
    visible = {path.split("/")[0] for path in tracked if not path.startswith(".")}
    allowed = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", PACKAGE, "tests", "benchmarks"}
    assert visible <= allowed
