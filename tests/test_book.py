"""The web book: right links from every verdict, every notebook in it, nothing from the network."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cbd.report import results, scorecard
from cbd.report.findings import ROWS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HAS_SPHINX = importlib.util.find_spec("myst_nb") is not None


@pytest.fixture(scope="module")
def book() -> ModuleType:
    """docs/book.py, which is a script and no part of the package."""
    spec = importlib.util.spec_from_file_location("book", ROOT / "docs" / "book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def staged(book: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("book") / "source"
    book.stage(source)
    return source


def cells(page: Path) -> dict[str, list[str]]:
    """The lines of the first Markdown table on a page, by their first cell."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    split = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return {line[0].strip(): [cell.strip() for cell in line] for line in split}


def targets(cell: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", cell)


@pytest.mark.parametrize("scale", ["smollm", "laptop"])
def test_every_verdict_is_linked_to_its_notebook_and_its_rows(staged: Path, scale: str) -> None:
    place = staged / "results" / scale
    lines, rows = cells(place / "SCORECARD.md"), (place / "rows.md").read_text(encoding="utf-8")
    card = scorecard.scorecard(scale)
    assert set(lines) == {"id", "---", *card["id"]}
    assert re.findall(r"^\((row-.+)\)=$", rows, re.MULTILINE) == [
        f"row-{scale}-{id.lower()}" for id in card["id"]
    ]
    for row in card.itertuples():
        verdict, rows = lines[row.id][5:]
        needs = ROWS[row.id].needs if row.id in ROWS else ()
        [notebook] = targets(verdict)
        assert verdict.startswith(f"[{row.verdict}]")
        own = ["real_llm"] if scale == "smollm" else needs[:1]
        here = [name for name in own if list((staged / "notebooks").glob(f"??_{name}.ipynb"))]
        assert re.fullmatch(rf"/notebooks/\d\d_{(here or ['scorecard'])[0]}\.ipynb", notebook)
        assert (staged / notebook[1:]).is_file()
        if row.ours == "–":
            assert targets(rows) == []
        else:
            first, *tables = targets(rows)
            assert first == f"#row-{scale}-{row.id.lower()}"
            assert tables == [f"/results/{scale}/tables/{name}.md" for name in needs]
            assert all((staged / table[1:]).is_file() for table in tables)


def test_the_rows_of_a_verdict_are_those_that_its_rule_judges(staged: Path) -> None:
    text = (staged / "results" / "laptop" / "rows.md").read_text(encoding="utf-8")
    tables = {"chain": results.read_table("laptop", "chain")}
    for id in ("Q4", "E6"):
        section = text.split(f"(row-laptop-{id.lower()})=")[1].split("(row-")[0]
        shown = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
        found = ROWS[id].measure(tables)
        assert [line[0] for line in shown] == list(found["unit"])
        for column, name in enumerate(("point", "low", "high", "n"), start=1):
            assert [float(line[column]) for line in shown] == pytest.approx(list(found[name]), rel=1e-3)


def test_a_table_is_shown_whole_with_its_own_digits(staged: Path) -> None:
    with results.table_path("laptop", "paper_map").open(encoding="utf-8") as file:
        values = [row["value"] for row in csv.DictReader(file)]
    page = (staged / "results" / "laptop" / "tables" / "paper_map.md").read_text(encoding="utf-8")
    assert page.count("<tr>") == len(values)  # that of the head has a style besides
    assert all(f"<td>{value}</td>" in page for value in values)


def test_cells_show_what_markdown_would_read_as_markup(book: ModuleType) -> None:
    assert book.escaped("a|b [x] *y* <z> `w` $v$") == r"a\|b \[x\] \*y\* \<z\> \`w\` \$v\$"
    assert book.escaped("2x64 -0.5 to +0.3, 50%") == "2x64 -0.5 to +0.3, 50%"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script async src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//cdn.example/x.css">'),
        ("a.html", '<img alt="" src="http://example.org/x.png">'),
        ("a.css", "@font-face { src: url('https://example.org/x.woff2') }"),
        ("a.css", "@import 'https://example.org/x.css';"),
        ("a.js", 'const x = await import("https://cdn.example/x.mjs")'),
    ],
)
def test_what_would_be_loaded_from_the_network_is_found(
    book: ModuleType, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    [found] = book.network(tmp_path)
    assert found.startswith(f"{name}: ")


def test_links_for_readers_and_files_of_the_book_are_allowed(book: ModuleType, tmp_path: Path) -> None:
    page = '<a href="https://arxiv.org/abs/2605.07783">paper</a><script src="_static/x.js"></script>'
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    (tmp_path / "a.css").write_text("/* from https://example.org */ a { background: url(x.png) }")
    assert book.network(tmp_path) == []


class Page(HTMLParser):
    """The ids of a page, and what its links and scripts name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.named: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        self.named += [found[name] for name in ("href", "src") if found.get(name)]


@pytest.mark.skipif(not HAS_SPHINX, reason="requirements-book.txt is not installed: make book")
def test_the_book_is_built_without_warnings_and_opens_from_disk(book: ModuleType, tmp_path: Path) -> None:
    built = tmp_path / "book"
    assert book.build(tmp_path / "source", built) == 0
    assert book.network(built) == []
    written = [
        path for path in built.rglob("*.html") if "_static" not in path.parts
    ]  # there: the theme's templates
    pages = {path.resolve(): Page(path) for path in written}
    for path, page in pages.items():
        for name in page.named:
            address, anchor = urldefrag(unquote(name))
            if re.match(r"[a-z]+:", address):  # another site, or data
                continue
            target = (path.parent / address.split("?")[0]).resolve() if address else path
            assert target.exists(), f"{path.relative_to(built.resolve())} names {name}"
            if anchor and target in pages:
                assert anchor in pages[target].ids, f"{path.name}: no {name}"
    front = pages[(built / "index.html").resolve()].named
    assert {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} <= set(front)
    # The theme's script binds the first button of a phone's menu: one in a hidden bar would take its clicks.
    assert (built / "index.html").read_text(encoding="utf-8").count("sidebar-toggle primary-toggle") == 1
    for scale in ("smollm", "laptop"):
        card = (built / "results" / scale / "SCORECARD.html").read_text(encoding="utf-8")
        assert re.search(r'<table class="[^"]*\bsortable\b[^"]*\bscorecard\b', card)
        assert re.search(r'<script src="\.\./\.\./_static/book\.js[?"]', card)
    formula = (built / "notebooks" / "02_initialise.html").read_text(encoding="utf-8")
    assert "<math" in formula and "\\theta" not in formula


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements-book.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_books_pins_are_exact_and_leave_the_lock_alone() -> None:
    assert all(re.fullmatch(r"[0-9][0-9.]*", version) for version in pins().values())
    assert {"myst-nb", "sphinx-book-theme"} <= set(pins())
    assert set(pins()) & set(locked()) == set()


@pytest.mark.skipif(not HAS_SPHINX, reason="requirements-book.txt is not installed: make book")
@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11), reason="the lock is for Linux and Python 3.11"
)
def test_the_books_pins_are_complete_beside_the_lock() -> None:
    versions, reached = {**locked(), **pins()}, {"myst-nb", "sphinx-book-theme"}
    todo = [*reached]
    while todo:
        for requirement in map(Requirement, metadata.requires(todo.pop()) or []):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(requirement.name)
            assert name in versions, f"{requirement} is needed and in neither list"
            assert requirement.specifier.contains(versions[name]), f"{requirement}, not {versions[name]}"
            if name in pins() and name not in reached:
                reached.add(name)
                todo.append(name)
    assert set(pins()) - reached == set(), "pinned, but nothing needs it"
