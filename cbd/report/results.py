"""Results on disk: tidy tables (CSV, one row an observation) and run records (JSON lines). No torch here.

A table is `results/<scale>/<experiment>.csv`, its records `results/<scale>/<experiment>.runs.jsonl`. The
schema of a table is fixed (`COLUMNS`), so that one set of statistics and figures reads every experiment.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cbd.errors import CbdError, require
from cbd.files import replacing, write_text

TEXT, WHOLE, REAL = "str", "Int64", "float64"
NAMED = {TEXT: "text", WHOLE: "a whole number", REAL: "a number"}

SCHEMA: dict[str, str] = {
    "experiment": TEXT,
    "method": TEXT,
    "family": TEXT,
    "spec": TEXT,
    "parameters": WHOLE,
    "alpha": REAL,
    "mixing": TEXT,
    "operator": TEXT,
    "source": TEXT,  # the model that a chain or a bridge starts from
    "stage": TEXT,  # of a bridged chain: source, proxy, anchor 1, ..., SLM
    "budget": WHOLE,  # training tokens that a run was given (`tokens`: those that it has had so far)
    "sizes": WHOLE,  # how many target sizes a cost is for
    "seed": WHOLE,
    "tokens": WHOLE,
    "flops": REAL,  # a paper-scale run passes 2^63
    "metric": TEXT,
    "value": REAL,
    "stderr": REAL,
    "recipe": TEXT,
}
"""Each column's type. `tokens` counts what this model has been trained on so far; `flops` and `parameters`
are counts; `value` and `stderr` carry the unit of `metric` ("loss": nats per token; "bits_per_byte"; "flops":
operations); `recipe` is the key of the recipe measured. Empty cells are allowed except in `FILLED`."""

COLUMNS = tuple(SCHEMA)
TABLE = "table"  # the key of the record that belongs to no run but to the table
FILLED = ("experiment", "method", "metric")
DIGITS = "%.8g"  # what fp32 arithmetic can mean; longer tails would only make diffs noisy


def root() -> Path:
    """The folder that holds `results/` and `figures/`.

    The environment variable CBD_ROOT; else the repository the package lies in; else the current directory.
    """
    if folder := os.environ.get("CBD_ROOT"):
        return Path(folder)
    repository = Path(__file__).resolve().parent.parent.parent
    if (repository / "notebooks").is_dir() and (repository / "pyproject.toml").is_file():
        return repository
    return Path.cwd()


def bench(name: str) -> pd.DataFrame:
    """The rows of a benchmark in results/bench, which `make bench` writes; they are of one machine."""
    path = root() / "results" / "bench" / f"{name}.json"
    require(path.is_file(), f"{path} does not exist; make it with `make bench`")
    return pd.DataFrame(json.loads(path.read_text())["rows"])


def results_folder(scale: str) -> Path:
    """Where the tables and records of a scale lie; not created here."""
    return root() / "results" / _name("scale", scale)


def figures_folder(scale: str) -> Path:
    """Where the figures of a scale lie; not created here."""
    return root() / "figures" / _name("scale", scale)


def table_path(scale: str, experiment: str) -> Path:
    """The CSV of an experiment, whether or not it exists."""
    return results_folder(scale) / f"{_name('experiment', experiment)}.csv"


def records_path(scale: str, experiment: str) -> Path:
    """The JSON lines of an experiment's runs, whether or not they exist."""
    return table_path(scale, experiment).with_suffix(".runs.jsonl")


def samples_path(scale: str, experiment: str) -> Path:
    """The JSON of what a reader is shown beside an experiment's table, whether or not it exists."""
    return table_path(scale, experiment).with_suffix(".samples.json")


def names(scale: str) -> list[str]:
    """The experiments that have a table at this scale, sorted."""
    return sorted(path.stem for path in results_folder(scale).glob("*.csv"))


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the schema's column order and types; an empty text cell is "".

    Raises `CbdError`, naming the column, when one is missing, unknown or repeated, when a cell is not of the
    column's kind, or when experiment, method or metric is empty.
    """
    missing, unknown = ([c for c in a if c not in b] for a, b in ((COLUMNS, frame), (frame, SCHEMA)))
    twice = frame.columns[frame.columns.duplicated()]
    for wrong, columns in (("is missing", missing), ("is unknown", unknown), ("occurs twice", twice)):
        named = ", ".join(map(repr, columns))
        require(not named, f"column {named} {wrong}; a table has the columns {', '.join(COLUMNS)}")
    typed = {}
    for column, dtype in SCHEMA.items():
        cells = frame[column].astype(object)
        cells = cells.mask(cells.isna() | (cells == ""), "" if dtype == TEXT else np.nan)
        try:
            if dtype == TEXT:
                "".join(cells)  # raises for what is no text, which `astype` would make text
            typed[column] = cells.astype(dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise CbdError(f"column {column!r} holds what is not {NAMED[dtype]}: {error}") from error
        if column in FILLED and (empty := np.flatnonzero(cells == "")).size:
            raise CbdError(f"column {column!r} is empty in row {empty[0]}; every row needs it")
    return pd.DataFrame(typed).reset_index(drop=True)


def write_table(frame: pd.DataFrame, scale: str, experiment: str) -> Path:
    """Writes results/<scale>/<experiment>.csv in one step, rows in the order given, and returns its path.

    Numbers keep eight significant digits (whole numbers all of theirs), so equal results are equal bytes.
    Raises `CbdError` as `validate` does, or when a row belongs to another experiment.
    """
    typed = validate(frame)
    strangers = ", ".join(map(repr, set(typed["experiment"]) - {experiment}))
    require(not strangers, f"column 'experiment' holds {strangers} in the table of {experiment!r}")
    text = typed.to_csv(index=False, float_format=DIGITS, lineterminator="\n")
    return write_text(table_path(scale, experiment), text)


def read_table(scale: str, experiment: str) -> pd.DataFrame:
    """The table of an experiment, validated; empty text cells are "", empty numbers missing.

    Raises `CbdError` naming the command that makes the table when there is none, or the column that is wrong.
    """
    path = _existing(table_path, scale, experiment)
    try:  # all as text: a method may be called "NA", and numbers are read by Python's exact rules
        frame = pd.read_csv(path, dtype="str", keep_default_na=False, na_filter=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CbdError(f"{path} is not a CSV table ({error}); {_remedy(scale, experiment)}") from error
    return validate(frame)


def write_samples(samples: Mapping[str, Any], scale: str, experiment: str) -> Path:
    """Writes results/<scale>/<experiment>.samples.json in one step and returns its path."""
    text = json.dumps(samples, indent=1, ensure_ascii=False)
    return write_text(samples_path(scale, experiment), text + "\n")


def read_samples(scale: str, experiment: str) -> dict[str, Any]:
    """What `write_samples` wrote. Raises `CbdError` when there is nothing, naming the command."""
    return json.loads(_existing(samples_path, scale, experiment).read_text(encoding="utf-8"))


def items_path(scale: str, experiment: str) -> Path:
    """The Parquet file of the score of every item of an experiment's tasks, whether or not it exists."""
    return table_path(scale, experiment).with_suffix(".items.parquet")


def write_items(items: Mapping[str, Mapping[str, list[float]]], scale: str, experiment: str) -> Path:
    """Writes results/<scale>/<experiment>.items.parquet and returns its path: a row a recipe and metric.

    items: recipe's key -> metric -> scores in the order of the items. They keep seven digits (fp32).
    """
    rows = [
        (recipe, metric, np.float32(scores))
        for recipe, found in sorted(items.items())
        for metric, scores in found.items()
    ]
    path = items_path(scale, experiment)
    with replacing(path) as fresh:
        pd.DataFrame(rows, columns=["recipe", "metric", "scores"]).to_parquet(fresh, compression="zstd")
    return path


def read_items(scale: str, experiment: str) -> dict[str, dict[str, list[float]]]:
    """What `write_items` wrote; empty where there is nothing."""
    path = items_path(scale, experiment)
    found: dict[str, dict[str, list[float]]] = {}
    if path.is_file():
        for recipe, metric, scores in pd.read_parquet(path).itertuples(index=False):
            found.setdefault(recipe, {})[metric] = scores.tolist()
    return found


def write_records(records: Iterable[Mapping[str, Any]], scale: str, experiment: str) -> Path:
    """Writes results/<scale>/<experiment>.runs.jsonl in one step: a run a line, ordered by recipe key.

    A record is a dict with at least `key`, the recipe's key; `finished`, an ISO date and time, dates the
    figures. One more, with the key "table", has the fingerprint of the table as it is then (see `intact`).
    Raises `CbdError` when a record lacks its key or holds what JSON cannot express (NaN and infinity too).
    """
    found = list(records)
    if table_path(scale, experiment).is_file():
        found.append({"key": TABLE, "sha256": _fingerprint(scale, experiment)})
    lines = []
    for record in found:
        require(record.get("key"), "a run record lacks 'key', the key of the recipe that ran")
        try:
            line = json.dumps(record, sort_keys=True, allow_nan=False, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            wrong = f"the run record of {record['key']} cannot be written as JSON"
            raise CbdError(f"{wrong}: {error}") from error
        lines.append((record["key"], line + "\n"))
    return write_text(records_path(scale, experiment), "".join(line for _, line in sorted(lines)))


def read_records(scale: str, experiment: str) -> list[dict[str, Any]]:
    """The run records of an experiment, ordered by recipe key.

    Raises `CbdError` when there are none, naming the command that makes them, or when a line is not JSON.
    """
    path = _existing(records_path, scale, experiment)
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            wrong = f"{path}, line {number} is not JSON ({error})"
            raise CbdError(f"{wrong}; {_remedy(scale, experiment)}") from error
    return records


def intact(scale: str, experiment: str) -> bool:
    """Whether an experiment's table is there as it was when its records were written, to the last row."""
    if not (table_path(scale, experiment).is_file() and records_path(scale, experiment).is_file()):
        return False
    marks = [r.get("sha256") for r in read_records(scale, experiment) if r.get("key") == TABLE]
    return marks == [_fingerprint(scale, experiment)]


def newest(scale: str, experiment: str) -> str | None:
    """The date (YYYY-MM-DD, UTC) of the last of an experiment's runs to finish; None when no record says it.

    Raises `CbdError` when a `finished` is not an ISO date and time.
    """
    if not records_path(scale, experiment).is_file():
        return None
    times = [r["finished"] for r in read_records(scale, experiment) if r.get("finished")]
    try:
        last = pd.to_datetime(times, utc=True, format="ISO8601").max()
    except (TypeError, ValueError) as error:
        raise CbdError(f"'finished' is no ISO date ({error}); {_remedy(scale, experiment)}") from error
    return f"{last:%Y-%m-%d}" if times else None


def _name(kind: str, name: str) -> str:
    """A name that is safe as a file's."""
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)
    require(safe, f"{kind} {name!r} is no name for a file; use letters, digits, - and _")
    return name


def _existing(place: Callable[[str, str], Path], scale: str, experiment: str) -> Path:
    path = place(scale, experiment)
    require(path.is_file(), f"{path} does not exist; {_remedy(scale, experiment)}")
    return path


def _remedy(scale: str, experiment: str) -> str:
    return f"make it with `cbd run {experiment} --scale {scale}`"


def _fingerprint(scale: str, experiment: str) -> str:
    """A hash of the table's text, the same whatever a checkout makes of its line ends."""
    text = table_path(scale, experiment).read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()
