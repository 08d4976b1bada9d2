"""The rooms of the package: dependencies point one way, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cbd"
# each room may import those before it; report stands beside them, below experiments
ORDER = ("errors", "files", "recipes", "data", "models", "evaluation", "training", "realize", "experiments",
         "commands", "cli")  # fmt: skip
REPORT = {"errors", "files", "recipes.starts"}  # all that tables, statistics and figures may know
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "__init__.py" and "tasks" not in path.parent.parts[-1:]
}


def imported(path: Path, lazily: bool = True) -> Iterator[str]:
    """The modules of the package that a file imports; `lazily`: those inside functions, too."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = ast.walk(tree) if lazily else [n for top in tree.body for n in _outside_functions(top)]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cbd":
            base = node.module.removeprefix("cbd").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                yield full if full in MODULES else base
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("cbd.") for a in node.names if a.name.startswith("cbd."))


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and what it holds, but for functions and for `if TYPE_CHECKING`."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_functions(child)


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_search_for_imports_finds_them(tmp_path):
    (tmp_path / "m.py").write_text("from cbd.data import tokens\ndef f():\n    from cbd import cli\n")
    assert list(imported(tmp_path / "m.py")) == ["data.tokens", "cli"]
    assert list(imported(tmp_path / "m.py", lazily=False)) == ["data.tokens"]


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_before_it(module):
    found = {other for other in imported(MODULES[module]) if other and room(other) != room(module)}
    if room(module) == "report":
        assert found <= REPORT
        return
    later = ORDER[ORDER.index(room(module)) :]
    assert not {other for other in found if room(other) in later}
    if ORDER.index(room(module)) < ORDER.index("experiments"):
        assert "report" not in {room(other) for other in found}


def test_no_modules_import_each_other_in_a_circle():
    needs = {m: {o for o in imported(path, lazily=False) if o in MODULES} for m, path in MODULES.items()}
    done: set[str] = set()
    while ready := {m for m in needs if m not in done and needs[m] - {m} <= done}:
        done |= ready
    assert not set(needs) - done, "these wait for each other"


def test_every_subject_is_found_by_its_folder():
    assert {path.name for path in PACKAGE.glob("*.py")} <= {"__init__.py", "cli.py", "errors.py", "files.py"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == {*ORDER, "report"} - {"cli", "errors", "files"}
    assert all(ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path in MODULES.values())
