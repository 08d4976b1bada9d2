"""`make book`: the notebooks, the scorecards, the findings and docs/ as a web book that opens from disk.

`stage` copies the sources to build/book-source/, laid out as in the repository so that links between files
hold, and writes the pages that are made from tables: each scale's scorecard, the rows that each verdict
judges, and every table. Sphinx then writes build/book/ by the settings in docs/conf.py. A warning is an
error, and so is whatever a page would load from the network (`network`).
"""

import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cbd.experiments import EXPERIMENTS
from cbd.report import readme, results, scorecard
from cbd.report.findings import ROWS
from cbd.report.verdicts import EXPERIMENT, QUESTION, Tables

ROOT = Path(__file__).resolve().parent.parent
SCALES = readme.SCALES  # whose tables and figures are committed
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
    """Make the folder that Sphinx reads. A scale's sortable scorecard takes the place of the plain one."""
    shutil.rmtree(source, ignore_errors=True)
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", ".*", "smoke")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    pages = {Path("index"): front_page(source)}
    for scale in SCALES:
        pages |= {Path("results", scale, name): text for name, text in Tier.read(scale).pages().items()}
    for name, text in pages.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).with_suffix(".md").write_text(text, encoding="utf-8")


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


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|$#])", r"\\\1", str(text))


def grid(columns: list[str], rows: list[list[object]], name: str) -> str:
    """A table of Markdown cells that book.js makes sortable; `name` is its class in book.css."""
    lines = [columns, ["---"] * len(columns), *rows]
    body = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    return f"```{{table}}\n:class: sortable {name}\n\n{body}\n```\n"


def staged(path: Path) -> str:
    """A path in the repository as pages name it."""
    return f"/{path.relative_to(results.root()).as_posix()}"


@dataclass(frozen=True)
class Tier:
    """A scale's scorecard and tables, and the pages that show them."""

    scale: str
    tables: Tables
    card: pd.DataFrame

    @classmethod
    def read(cls, scale: str) -> "Tier":
        """From what is committed."""
        names = [name for name in EXPERIMENTS if results.table_path(scale, name).exists()]
        tables = {name: results.read_table(scale, name) for name in names}
        return cls(scale, tables, scorecard.scorecard(scale))

    def pages(self) -> dict[str, str]:
        """Each page by its name in the scale's folder, without suffix."""
        found = {id: self.judged(id) for id in self.card["id"]}
        return {
            "SCORECARD": self.scorecard_page(found),
            "rows": self.rows_page(found),
            "tables": self.tables_page(),
            **{f"tables/{name}": self.table_page(name) for name in self.tables},
        }

    def judged(self, id: str) -> pd.DataFrame:
        """What the rule of a row of the scorecard looks at; empty where that has not run."""
        can = id in ROWS and set(needs(id)) <= set(self.tables)
        return ROWS[id].measure(self.tables) if can else pd.DataFrame()

    def notebook(self, *tables: str) -> str:
        """The scale's own notebook, or that which makes the first of the tables, else that which judges."""
        name = readme.NOTEBOOKS.get(self.scale) or next(iter(tables), "scorecard")
        return f"/notebooks/{NOTEBOOKS.get(name, NOTEBOOKS['scorecard'])}"

    def links(self, names: Iterable[str]) -> str:
        """Links to the pages of tables."""
        return ", ".join(f"[{escaped(name)}](/results/{self.scale}/tables/{name}.md)" for name in names)

    def anchor(self, id: str) -> str:
        """Of a row of the scorecard, on the page of rows."""
        return f"row-{self.scale}-{id.lower()}"

    def scorecard_page(self, found: Mapping[str, pd.DataFrame]) -> str:
        """Every claim and question; a verdict is linked to its notebook, its rows and their tables."""
        text, lines = f"# Scorecard, scale {self.scale}\n\n", []
        for letter, what in (("E", "claims of the paper"), ("Q", "questions of its readers")):
            verdicts = self.card["verdict"][self.card["id"].str.startswith(letter)]
            told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.value_counts().items())
            text += f"- **{len(verdicts)} {what}**: {told}.\n"
        text += (
            "\nIn brackets 95 % intervals over seeds, after a range their hull; ∞: never. Nobody writes a "
            "verdict: it follows from a rule, told with "
            f"[the rows that it judges](/results/{self.scale}/rows.md). A verdict leads to its notebook.\n\n"
        )
        for row in self.card.itertuples():
            ours = escaped(row.ours) + (f" ({row.seeds} seed{'s' * (row.seeds > 1)})" if row.seeds else "")
            colour = COLOURS.get(row.verdict, "none")
            verdict = f"[{row.verdict}]({self.notebook(*needs(row.id))}){{.verdict .{colour}}}"
            behind = f"[{len(found[row.id])} judged](#{self.anchor(row.id)})"
            if needs(row.id):
                behind += f", from {self.links(needs(row.id))}"
            behind = behind if len(found[row.id]) else scorecard.NOTHING
            lines.append([row.id, escaped(row.claim), escaped(row.paper), ours, row.control, verdict, behind])
        return text + grid(["id", "claim", "paper", "ours", "control", "verdict", "rows"], lines, "scorecard")

    def rows_page(self, found: Mapping[str, pd.DataFrame]) -> str:
        """For each row of the scorecard its rule, and the intervals that the rule judges."""
        text = (
            f"# Rows behind the verdicts, scale {self.scale}\n\nWhat each rule of the "
            f"[scorecard](/results/{self.scale}/SCORECARD.md) judges: means over seeds (point), their 95 % "
            "intervals (low, high), and seeds (n; 0: counted, not measured).\n\n"
        )
        for row in self.card.itertuples():
            text += f"({self.anchor(row.id)})=\n## {row.id}: {escaped(row.claim)}\n\n"
            text += f"**{row.verdict.capitalize()}** ([notebook]({self.notebook(*needs(row.id))})). "
            text += f"{escaped(row.rule)}.\n\n"
            units = found[row.id]
            if len(units):
                # Q1 judges every table there is
                text += f"Read from {self.links(needs(row.id) or units['unit'])}.\n\n"
                cells = units[["unit", "point", "low", "high", "n"]].itertuples(index=False)
                lines = [[escaped(unit), *(f"{x:.4g}" for x in point), n] for unit, *point, n in cells]
                text += grid(["unit", "point", "low", "high", "n"], lines, "numbers")
        return text

    def tables_page(self) -> str:
        """The list of tables, with their files and what reads them."""
        lines = []
        for name, table in self.tables.items():
            paths = {
                "CSV": results.table_path(self.scale, name),
                "records": results.records_path(self.scale, name),
            }
            files = [
                f"{{download}}`{label} <{staged(path)}>`" for label, path in paths.items() if path.exists()
            ]
            readers = ", ".join(f"[{id}](#{self.anchor(id)})" for id in ROWS if name in needs(id))
            book = self.notebook(name)
            made = f"[{escaped(Path(book).stem)}]({book})"
            lines.append([self.links([name]), len(table), made, readers, " ".join(files)])
        return (
            f"# Tables, scale {self.scale}\n\nEvery table has the same columns; a row is an observation. "
            "`value` and `stderr` are in the unit of `metric`; `tokens` counts what the model has been "
            "trained on; `recipe` is the key of the finished recipe, whose fields, cost and date are in the "
            "records (a JSON object a line).\n\n"
            + grid(["table", "rows", "notebook", "scorecard", "files"], lines, "files")
            + "\n```{toctree}\n:hidden:\n\n"
            + "\n".join(f"tables/{name}" for name in self.tables)
            + "\n```\n"
        )

    def table_page(self, name: str) -> str:
        """A table, its cells as in its file: what is read most first, without columns that are all empty."""
        path = results.table_path(self.scale, name)
        frame = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="experiment")
        frame = frame.loc[:, (frame != "").any()]
        first = [name for name in ("spec", "sizes", "method", "seed", "metric", "value") if name in frame]
        frame = frame[[*first, *frame.columns.drop(first)]]
        html = frame.to_html(index=False, border=0, classes="sortable raw")
        return (
            f"# {name}, scale {self.scale}\n\n{{download}}`{path.name} <{staged(path)}>`: {len(frame)} rows, "
            f"made by [its notebook]({self.notebook(name)}); "
            f"[what the columns mean](/results/{self.scale}/tables.md).\n\n"
            f'```{{raw}} html\n<div class="scroll">{html}</div>\n```\n'
        )


if __name__ == "__main__":
    sys.exit(main())
