"""The notebooks' form: what is committed in them. `make test-notebooks` runs their cells."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from cbd.commands.reproduce import clean, reproduce
from cbd.errors import CbdError
from cbd.report import findings
from cbd.report.claims import claims
from cbd.report.verdicts import NOT_RUN

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    """A notebook's cells of a kind, with their source as one text."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]


def prose(path: Path) -> str:
    return "\n\n".join(cell["source"] for cell in cells(path, "markdown"))


def test_there_are_notebooks_and_one_copy_of_each() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i:02d}" for i in range(17)]
    tracked = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True).stdout
    assert not tracked or set(tracked.split()) == {f"notebooks/{path.name}" for path in NOTEBOOKS}


@each
def test_a_notebook_has_one_cell_of_parameters_which_names_the_laptop_scale(path: Path) -> None:
    tagged = [c for c in cells(path, "code") if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for node in ast.parse(tagged[0]["source"]).body:
        if isinstance(node, ast.Assign):
            values |= {target.id: ast.literal_eval(node.value) for target in node.targets}
    assert values == {"scale": "laptop", "seed": 0}


@each
def test_cells_are_short_and_define_nothing(path: Path) -> None:
    assert len(cells(path, "markdown")) >= 5
    for cell in cells(path, "code"):
        assert len(cell["source"].splitlines()) <= 18
        kinds = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell["source"])))


@each
def test_committed_outputs_are_whole_and_hold_no_noise(path: Path) -> None:
    for number, cell in enumerate(cells(path, "code"), start=1):
        assert cell["execution_count"] == number, "run it from the top: make notebooks"
        for output in cell["outputs"]:
            assert output["output_type"] != "error" and output.get("name") != "stderr"
            assert "it/s" not in json.dumps(output.get("text", "")) and "/tmp" not in json.dumps(output)


@each
def test_modules_that_prose_names_exist(path: Path) -> None:
    for name in re.findall(r"`(cbd(?:\.\w+)+)`", prose(path)):
        parts, found = name.split("."), None
        for i, part in enumerate(parts):
            module = ".".join(parts[: i + 1])
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(module)


@each
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", prose(path)):
        assert (path.parent / target).is_file(), target


@each
def test_predictions_in_prose_are_judged_by_their_rules(path: Path) -> None:
    name = path.stem.split("_", 1)[1]
    module = getattr(findings, name, None)
    predicted = bool(re.search(r"\*\*(?:Two more )?[Pp]redictions?\*\*", prose(path)))
    assert predicted == hasattr(module, "PREDICTIONS")
    judged = [c for c in cells(path, "code") if f'findings.predictions(scale, "{name}")' in c["source"]]
    assert len(judged) == predicted
    for words in getattr(module, "PREDICTIONS", ()):
        told = "".join("".join(output.get("text", "")) for output in judged[0]["outputs"])
        # a committed table may be older than what a new prediction reads
        verdicts = f"(held|failed|{NOT_RUN})"
        assert re.search(rf"^{verdicts}: {re.escape(words)}$", told, flags=re.MULTILINE)


def test_the_first_notebook_maps_all_with_their_experiments() -> None:
    rows = [line.split("|") for line in prose(NOTEBOOKS[0]).splitlines() if re.match(r"\| \[?\d\d ", line)]
    assert [row[1].strip(" [")[:2] for row in rows] == [path.name[:2] for path in NOTEBOOKS]
    for path, row in list(zip(NOTEBOOKS, rows, strict=True))[1:]:
        assert f"({path.name})" in row[1]
    experiments = {path.stem.split("_", 1)[1]: row[2] for path, row in zip(NOTEBOOKS, rows, strict=True)}
    for claim in claims():
        if claim.experiment in experiments:
            assert claim.id in re.findall(r"[EQ]\d+", experiments[claim.experiment])
        elif claim.id != "Q1":
            assert re.search(rf"\b{claim.id}\b[^|]* no experiment", prose(NOTEBOOKS[0])), claim.id


def test_what_differs_from_run_to_run_is_taken_out(tmp_path: Path) -> None:
    def text(name: str, words: str) -> nbformat.NotebookNode:
        return nbformat.v4.new_output("stream", name=name, text=words)

    cell = nbformat.v4.new_code_cell("print()", metadata={"papermill": {"duration": 1.2}, "tags": ["kept"]})
    cell.outputs = [text("stdout", "a\n"), text("stderr", "50%")]
    injected = nbformat.v4.new_code_cell("scale = 'smoke'", metadata={"tags": ["injected-parameters"]})
    book = nbformat.v4.new_notebook(cells=[injected, cell], metadata={"papermill": {"version": "2"}})
    nbformat.write(book, tmp_path / "book.ipynb")
    clean(tmp_path / "book.ipynb")
    book = nbformat.read(tmp_path / "book.ipynb", as_version=4)
    assert "papermill" not in book.metadata and [dict(c.metadata) for c in book.cells] == [{"tags": ["kept"]}]
    assert [out.text for out in book.cells[0].outputs] == ["a\n"]


def test_reproduce_refuses_what_papermill_would_run_with_its_defaults(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    with pytest.raises(CbdError, match=r"no notebooks in .*: run this in a clone"):
        reproduce("smoke")
    cell = nbformat.v4.new_code_cell('scale = "laptop"', metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks").mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(cells=[cell], metadata=kernel)
    nbformat.write(book, tmp_path / "notebooks" / "00_x.ipynb")
    with pytest.raises(CbdError, match=r"00_x\.ipynb has no parameter seed"):
        reproduce("smoke")
