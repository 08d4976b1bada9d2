"""`make book`: the notebooks, the scorecard, the findings and docs/ as a web book that opens from disk.

`stage` copies the sources to build/book-source/, laid out as in the repository so that links between files
hold, and writes the pages that are made from tables: the scorecard, the rows that each verdict judges, and
every table. Sphinx then writes build/book/ by the settings in docs/conf.py. A warning is an error, and so is
whatever a page would load from the network (`network`).
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from cbd.experiments import EXPERIMENTS
from cbd.report import results, scorecard
from cbd.report.findings import ROWS
from cbd.report.verdicts import EXPERIMENT, QUESTION, Tables

ROOT = Path(__file__).resolve().parent.parent
SCALE = "laptop"  # the scale whose tables, figures and notebooks are committed
FOLDERS = ("cbd", "docs", "figures", "notebooks", "results", "tests")
# The notebook of each table, by its name: NN_name.ipynb.
NOTEBOOKS = {path.stem.split("_", 1)[1]: path.name for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
# The class in book.css that colours a verdict; what has not run has none of these.
COLOURS = {getattr(words, kind): kind for words in (EXPERIMENT, QUESTION) for kind in ("yes", "mixed", "no")}
# Scripts, styles, fonts and pictures from elsewhere. A link that a reader may follow (<a href>) is none.
NETWORK = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc(?:set)?=["']?(?:https?:)?//[^"'\s>]+
    | <link\b[^>]*\bhref=["']?(?:https?:)?//[^"'\s>]+
    | (?:(?:url\(|@import|\bimport\()\s*["']?|\bfrom\s*["'])(?:https?:)?//[^"'\s)]+""",
    re.VERBOSE | re.IGNORECASE,
)


def main() -> int:
    """Build the book; 0 unless Sphinx warned or a page needs the network."""
    source, book = ROOT / "build" / "book-source", ROOT / "build" / "book"
    status = build(source, book)
    needed = network(book)
    for line in needed:
        print(f"error: loaded from the network: {line}", file=sys.stderr)
    return 1 if status or needed else 0


def build(source: Path, book: Path) -> int:
    """Stage in `source` and write `book`, both anew; Sphinx's exit status."""
    from sphinx.cmd.build import main as sphinx

    stage(source)
    shutil.rmtree(book, ignore_errors=True)
    options = ["-q", "-W", "--keep-going", "-c", ROOT / "docs", "-d", source / ".doctrees"]
    return sphinx([str(part) for part in (*options, source, book)])


def network(book: Path) -> list[str]:
    """What the pages, styles and scripts of a book load from the network, with the file that does."""
    files = [path for path in sorted(book.rglob("*")) if path.suffix in (".html", ".css", ".js")]
    texts = {path.relative_to(book): path.read_text(encoding="utf-8") for path in files}
    return [f"{path}: {found[0]}" for path, text in texts.items() for found in NETWORK.finditer(text)]


def stage(source: Path) -> None:
    """Make the folder that Sphinx reads."""
    shutil.rmtree(source, ignore_errors=True)
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", ".*", "smoke")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    names = [name for name in EXPERIMENTS if results.table_path(SCALE, name).exists()]
    tables = {name: results.read_table(SCALE, name) for name in names}
    card = scorecard.scorecard(SCALE)
    found = {id: judged(id, tables) for id in card["id"]}
    pages = {
        "index": front_page(source),
        "scorecard": scorecard_page(card, found),
        "rows": rows_page(card, found),
        "tables": tables_page(tables),
        **{f"tables/{name}": table_page(name) for name in tables},
    }
    (source / "tables").mkdir()
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text, encoding="utf-8")


def front_page(source: Path) -> str:
    """docs/index.md, its contents without the patterns that no page answers to: Sphinx would warn."""
    text = (source / "docs" / "index.md").read_text(encoding="utf-8")
    for pattern in re.findall(r"^(\S+\*)$", text, flags=re.MULTILINE):
        if not {path.name for path in source.glob(pattern) if path.suffix in (".md", ".ipynb")} - {
            "index.md"
        }:
            text = text.replace(f"\n{pattern}\n", "\n")
    return text


def needs(id: str) -> tuple[str, ...]:
    """The tables that a row of the scorecard cannot do without; none where nothing measures it yet."""
    return ROWS[id].needs if id in ROWS else ()


def judged(id: str, tables: Tables) -> pd.DataFrame:
    """What the rule of a row of the scorecard looks at; empty where that has not run."""
    can = id in ROWS and set(needs(id)) <= set(tables)
    return ROWS[id].measure(tables) if can else pd.DataFrame()


def notebook(*tables: str) -> str:
    """The notebook that makes the first of the tables, else the one that judges."""
    name = next(iter(tables), "scorecard")
    return f"/notebooks/{NOTEBOOKS.get(name, NOTEBOOKS['scorecard'])}"


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|$#])", r"\\\1", str(text))


def links(names: Iterable[str]) -> str:
    """Links to the pages of tables."""
    return ", ".join(f"[{escaped(name)}](/tables/{name}.md)" for name in names)


def grid(columns: list[str], rows: list[list[object]], name: str) -> str:
    """A table of Markdown cells that book.js makes sortable; `name` is its class in book.css."""
    lines = [columns, ["---"] * len(columns), *rows]
    body = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"```{{table}}\n:class: sortable {name}\n\n{body}\n```\n"


def scorecard_page(card: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> str:
    """Every claim and question; a verdict is linked to its notebook, its rows and their tables."""
    text, lines = "# Scorecard\n\n", []
    for letter, what in (("E", "claims of the paper"), ("Q", "questions of its readers")):
        verdicts = card["verdict"][card["id"].str.startswith(letter)]
        told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.value_counts().items())
        text += f"- **{len(verdicts)} {what}**: {told}.\n"
    text += (
        f"\nScale `{SCALE}`. In brackets 95 % intervals over seeds, after a range their hull; ∞: never. "
        "Nobody writes a verdict: it follows from a rule, told with [the rows that it judges](/rows.md). "
        "A verdict leads to its notebook.\n\n"
    )
    for row in card.itertuples():
        ours = escaped(row.ours) + (f" ({row.seeds} seeds)" if row.seeds else "")
        colour = COLOURS.get(row.verdict, "none")
        verdict = f"[{row.verdict}]({notebook(*needs(row.id))}){{.verdict .{colour}}}"
        behind = f"[{len(found[row.id])} judged](#row-{row.id.lower()})"
        if needs(row.id):
            behind += f", from {links(needs(row.id))}"
        behind = behind if len(found[row.id]) else scorecard.NOTHING
        lines.append([row.id, escaped(row.claim), escaped(row.paper), ours, row.control, verdict, behind])
    return text + grid(["id", "claim", "paper", "ours", "control", "verdict", "rows"], lines, "scorecard")


def rows_page(card: pd.DataFrame, found: Mapping[str, pd.DataFrame]) -> str:
    """For each row of the scorecard its rule, and the intervals that the rule judges."""
    text = (
        "# Rows behind the verdicts\n\nWhat each rule of the [scorecard](/scorecard.md) judges: means over "
        "seeds (point), their 95 % intervals (low, high), and seeds (n; 0: counted, not measured).\n\n"
    )
    for row in card.itertuples():
        text += f"(row-{row.id.lower()})=\n## {row.id}: {escaped(row.claim)}\n\n"
        text += f"**{row.verdict.capitalize()}** ([notebook]({notebook(*needs(row.id))})). "
        text += f"{escaped(row.rule)}.\n\n"
        units = found[row.id]
        if len(units):
            text += (
                f"Read from {links(needs(row.id) or units['unit'])}.\n\n"  # Q1 judges every table there is
            )
            cells = units[["unit", "point", "low", "high", "n"]].itertuples(index=False)
            lines = [[escaped(unit), *(f"{x:.4g}" for x in point), n] for unit, *point, n in cells]
            text += grid(["unit", "point", "low", "high", "n"], lines, "numbers")
    return text


def tables_page(tables: Tables) -> str:
    """The list of tables, with their files and what reads them."""
    lines = []
    for name, table in tables.items():
        paths = {"CSV": results.table_path(SCALE, name), "records": results.records_path(SCALE, name)}
        files = [f"{{download}}`{label} <{staged(path)}>`" for label, path in paths.items() if path.exists()]
        readers = ", ".join(f"[{id}](#row-{id.lower()})" for id in ROWS if name in needs(id))
        made = f"[{escaped(Path(notebook(name)).stem)}]({notebook(name)})"
        lines.append([links([name]), len(table), made, readers, " ".join(files)])
    return (
        "# Tables\n\nEvery table has the same columns; a row is an observation. `value` and `stderr` are in "
        "the unit of `metric`; `tokens` counts what the model has been trained on; `recipe` is the key of "
        "the finished recipe, whose fields, cost and date are in the records (a JSON object a line).\n\n"
        + grid(["table", "rows", "notebook", "scorecard", "files"], lines, "files")
        + "\n```{toctree}\n:hidden:\n\n"
        + "\n".join(f"tables/{name}" for name in tables)
        + "\n```\n"
    )


def table_page(name: str) -> str:
    """A table, its cells as in its file: what is read most first, without columns that are all empty."""
    path = results.table_path(SCALE, name)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="experiment")
    frame = frame.loc[:, (frame != "").any()]
    first = [column for column in ("spec", "sizes", "method", "seed", "metric", "value") if column in frame]
    html = frame[[*first, *frame.columns.drop(first)]].to_html(index=False, border=0, classes="sortable raw")
    return (
        f"# {name}\n\n{{download}}`{path.name} <{staged(path)}>`: {len(frame)} rows, made by "
        f"[its notebook]({notebook(name)}); [what the columns mean](/tables.md).\n\n"
        f'```{{raw}} html\n<div class="scroll">{html}</div>\n```\n'
    )


def staged(path: Path) -> str:
    """A path in the repository as pages name it."""
    return f"/{path.relative_to(results.root()).as_posix()}"


if __name__ == "__main__":
    sys.exit(main())
