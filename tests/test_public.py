"""The public face: what `from cbd import ...` gives, in a process that has imported nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cbd

CALLED = """
import sys
from cbd import SCALES, init_checkpoint, plan, realize, run, show
assert "torch" not in sys.modules, "nothing of this needs torch before it works"
assert set(SCALES) >= {"smoke", "laptop", "gpu", "paper"}
assert all(map(callable, (init_checkpoint, plan, realize, run, show)))
import cbd.realize.store
from cbd import realize as again
assert again is realize and callable(again)
"""


def test_what_is_public_can_be_imported_and_called_whatever_was_imported_before():
    done = subprocess.run([sys.executable, "-c", CALLED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_imports_nothing_heavy_and_lists_its_names():
    code = "import sys, cbd; sys.exit(bool({'pandas', 'numpy', 'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert cbd.__all__ == ["SCALES", "init_checkpoint", "plan", "realize", "run", "show"]


def test_another_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cbd.nothing  # noqa: B018


def test_realize_makes_a_recipe(tiny_corpus):
    from cbd import realize

    assert (realize(tiny_corpus) / "corpus.json").is_file()
