"""Every notebook, executed headlessly at a scale."""

import itertools
from pathlib import Path

from cbd.data.progress import bar
from cbd.errors import require
from cbd.report import results


def reproduce(scale: str, seed: int = 0, in_place: bool = False) -> None:
    """Runs notebooks/*.ipynb with papermill and says where tables, figures and executed copies are.

    in_place: refresh the outputs of the notebooks themselves; the committed ones are of the laptop scale.
    Raises `CbdError` when a notebook lacks a parameter (papermill would only warn and run the default).
    """
    import papermill

    folder = results.root() / "notebooks"
    books = sorted(folder.glob("*.ipynb"))
    remedy = "run this in a clone of the repository, or set CBD_ROOT to one"
    require(books, f"no notebooks in {folder}: {remedy}")
    for book in books:
        missing = sorted({"scale", "seed"} - set(papermill.inspect_notebook(str(book))))
        require(not missing, f"{book.name} has no parameter {', '.join(missing)} in its parameters cell")
    copies = folder if in_place else results.results_folder(scale) / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    given = {"scale": scale, "seed": seed}
    for book in bar(books, f"{scale} scale", unit=" notebooks"):
        out = copies / book.name
        quiet = {"progress_bar": False, "coalesce_streams": True}  # text printed in a row is one output
        papermill.execute_notebook(str(book), str(out), given, cwd=str(folder), **quiet)
        clean(out)
    for what, place in (
        ("tables", results.results_folder(scale)),
        ("figures", results.figures_folder(scale)),
        ("notebooks", copies),
    ):
        print(f"{what:<10}{place.relative_to(results.root())}")


def clean(path: Path) -> None:
    """Takes out what differs from run to run: timings, progress bars, papermill's notes."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    book.metadata.pop("papermill", None)
    book.metadata.get("language_info", {}).pop("version", None)
    book.cells = [cell for cell in book.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    count = itertools.count(1)
    for cell in book.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type == "code":
            cell.execution_count = next(count)
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
            for out in cell.outputs:
                if "execution_count" in out:
                    out.execution_count = cell.execution_count
    nbformat.write(book, path)
