"""Every notebook, executed headlessly at a scale."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from cbd.errors import CbdError
from cbd.report import results


def reproduce(scale: str, seed: int = 0, in_place: bool = False) -> None:
    """Run notebooks/*.ipynb with papermill and say where tables, figures and executed copies are.

    in_place: refresh the outputs of the notebooks themselves (the committed ones hold the smoke scale).
    Raises `CbdError` when a notebook lacks a parameter (papermill would only warn and run the default).
    """
    import papermill

    folder = results.root() / "notebooks"
    books = sorted(folder.glob("*.ipynb"))
    if not books:
        raise CbdError(
            f"no notebooks in {folder}: run this from a clone of the repository, or set CBD_ROOT to one"
        )
    for book in books:
        missing = {"scale", "seed"} - set(papermill.inspect_notebook(str(book)))
        if missing:
            raise CbdError(
                f"{book.name} has no parameter {', '.join(sorted(missing))} in its parameters cell"
            )
    copies = results.results_folder(scale) / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    for book in tqdm(books, desc=f"notebooks at {scale} scale"):
        out = book if in_place else copies / book.name
        papermill.execute_notebook(
            str(book),
            str(out),
            parameters={"scale": scale, "seed": seed},
            cwd=str(folder),
            progress_bar=False,
        )
        clean(out)
    print(f"tables    {_shown(results.results_folder(scale))}")
    print(f"figures   {_shown(results.figures_folder(scale))}")
    print(f"notebooks {_shown(folder if in_place else copies)}")


def clean(path: Path) -> None:
    """Take out what differs from run to run and machine to machine: timings, progress bars, papermill's
    notes.
    """
    import nbformat

    book = nbformat.read(path, as_version=4)
    book.metadata.pop("papermill", None)
    book.cells = [cell for cell in book.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in book.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    nbformat.write(book, path)


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
