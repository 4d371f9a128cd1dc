"""The house reads top to bottom: imports run downwards, and no file, class or function is longer than can be read.

The graph is that of all imports of product code, those inside functions included; what only a type checker reads
(`if TYPE_CHECKING`) is no import. A *unit* of the house is data_collect, a folder of game_wm or train, or a module that
lies beside those (`game_wm/world.py`). Floors are the longest chain of units. Units of one storey import each other,
though no module imports itself by way of others.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_collect", "game_wm", "train")
FLOORS = 10
STOREYS = (
    ("game_wm.model", "game_wm.memory", "game_wm.objectives"),
    ("train.stages", "train.data", "train.first_person", "train.scroll", "train.camera", "train.report"),
)
FUNCTION_LINES, CLASS_LINES, FILE_LINES = 60, 250, 350
FILES_AT_TOP_OF_TRAIN, FILES_OF_A_FOLDER = 8, 12

Graph = dict[str, set[str]]


@cache
def sources() -> dict[str, ast.Module]:
    """The Python files that git knows or would add, by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    there = sorted(set(listed.stdout.split()))
    return {name: ast.parse((ROOT / name).read_text()) for name in there if (ROOT / name).exists()}


def module_of(path: str) -> str:
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, without what only a type checker reads."""
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)):
            yield child
            yield from running(child)


@cache
def modules() -> Graph:
    """Each module of product code, and the modules that it imports.

    Importing `a.b` from outside `a` runs `a/__init__.py` too.
    """
    trees = {module_of(path): tree for path, tree in sources().items() if path.split("/")[0] in PACKAGES}
    graph: Graph = {}
    for module, tree in trees.items():
        named = set[str]()
        for node in running(tree):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= inner & trees.keys() or {node.module}
        parents = {parent for name in named for parent in parents_of(name) if not inside(module, parent)}
        graph[module] = ((named | parents) & trees.keys()) - {module}
    return graph


def parents_of(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def unit_of(module: str) -> str:
    package, *below = module.split(".")
    return package if package == "data_collect" or not below else f"{package}.{below[0]}"


@cache
def units() -> Graph:
    """Each unit, and the units that its modules import."""
    storey = {name: " : ".join(names) for names in STOREYS for name in names}
    home = {module: storey.get(unit_of(module), unit_of(module)) for module in modules()}
    graph: Graph = {}
    for module, imports in modules().items():
        graph.setdefault(home[module], set()).update({home[name] for name in imports} - {home[module], *PACKAGES[1:]})
    return graph


def circle(graph: Graph) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def longest_chain(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """The longest chain of a graph without circles, from the top down."""
    chains: dict[str, list[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        chains[name] = [name, *max((chains[below] for below in graph.get(name, ())), key=len, default=[])]
    return max(chains.values(), key=len)


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(modules()) == []


def test_no_unit_imports_itself_by_way_of_others() -> None:
    assert circle(units()) == []


def test_there_are_at_most_so_many_floors() -> None:
    chain = longest_chain(units())
    assert len(chain) <= FLOORS, " > ".join(chain)


def test_no_folder_has_more_files_than_can_be_taken_in() -> None:
    counts: dict[str, int] = {}
    for path in sources():
        if path.split("/")[0] in PACKAGES:
            folder = str(Path(path).parent)
            counts[folder] = counts.get(folder, 0) + (not path.endswith("__init__.py"))
    assert counts["train"] <= FILES_AT_TOP_OF_TRAIN
    assert {name: count for name, count in counts.items() if count > FILES_OF_A_FOLDER} == {}


def too_long() -> dict[str, int]:
    """Files, classes and functions over the limits, and their lines."""
    found: dict[str, int] = {}
    for path, tree in sources().items():
        if (lines := len((ROOT / path).read_text().splitlines())) > FILE_LINES:
            found[path] = lines
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > (CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES):
                    found[f"{path}:{node.name}"] = lines
    return found


def test_nothing_is_longer_than_can_be_read_at_once() -> None:
    assert too_long() == {}
