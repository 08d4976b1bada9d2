"""The scorecard: for every claim of the paper and every question of its readers, the paper's figure, ours,
and a verdict by a rule. Reads results only; no torch.

Claims and the paper's numbers are in `cbd.report.claims`; what measures and judges a row stands with the
findings of its experiment (`ROWS` in `cbd.report.findings`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cbd.errors import si
from cbd.files import write_text
from cbd.report import results
from cbd.report.claims import Claim, claims, reported
from cbd.report.findings import ROWS
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, QUESTION, Tables

if TYPE_CHECKING:
    from IPython.display import HTML

NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One line of the scorecard. seeds: the fewest behind its numbers, 0 where nothing is measured."""

    id: str
    claim: str
    paper: str
    ours: str
    scale: str
    seeds: int
    verdict: str
    rule: str


def scorecard(scale: str) -> pd.DataFrame:
    """A row for each of E1 to E16 and Q1 to Q11, with the columns of `Row`, from the tables that exist."""
    tables = _tables(scale)
    return pd.DataFrame([asdict(_row(claim, tables, scale)) for claim in claims()])


def _row(claim: Claim, tables: Tables, scale: str) -> Row:
    words = QUESTION if claim.is_question else EXPERIMENT
    entry = ROWS.get(claim.id)
    start = {"id": claim.id, "claim": claim.claim, "paper": paper(claim.id, claim.said), "scale": scale}
    if entry is None:
        return Row(**start, ours=NOTHING, seeds=0, verdict=NOT_RUN, rule="No experiment for it yet")
    rule = entry.rule.text(words)
    found = entry.measure(tables) if set(entry.needs) <= set(tables) else pd.DataFrame()
    if found.empty:
        return Row(**start, ours=NOTHING, seeds=0, verdict=NOT_RUN, rule=rule)
    notes = [entry.note(tables)] if entry.note else []
    ours = ". ".join(text for text in [entry.rule.told(found), *notes] if text)
    seeds = int(found["n"].min())
    return Row(**start, ours=ours, seeds=seeds, verdict=entry.rule.verdict(found, words), rule=rule)


def paper(name: str, said: str = "") -> str:
    """The paper's figures of an experiment, from reported.csv, then its words."""
    rows = reported()
    rows = rows[rows["experiment"] == name]
    several = rows["params_millions"].nunique() > 1
    parts = []
    for (metric, tokens), group in rows.groupby(["metric", "tokens"], dropna=False, sort=False):
        after = "" if math.isnan(tokens) else f" at {si(tokens)} tokens"
        values = [
            f"{row.method}{f' {row.params_millions:g}M' * several} {row.value:g}"
            for row in group.itertuples()
        ]
        parts.append(f"{metric.replace('_', ' ')}{after}: {', '.join(values)}")
    return "; ".join([*parts, *([said] if said else [])]) or NOTHING


def markdown(scale: str) -> str:
    """The scorecard of a scale as a page: verdicts in words, the whole table, and every unit's numbers."""
    card = scorecard(scale)
    lines = ["| | claim | paper | ours | verdict, by its rule |", "|---|---|---|---|---|"]
    for row in card.itertuples():
        seeds = f" ({row.seeds} seeds)" if row.seeds else ""
        cells = (row.id, row.claim, row.paper, row.ours + seeds, f"**{row.verdict}**. {row.rule}.")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    parts = [
        f"# Scorecard, scale {scale}\n\nWritten by `cbd figures --scale {scale}` from the tables beside it.",
        tally(card),
        "\n".join(lines),
        f"## In numbers\n\n{numbers(scale)}",
    ]
    return "\n\n".join(parts) + "\n"


def tally(card: pd.DataFrame) -> str:
    """The claims by verdict, then the questions, and how to read the table's numbers, in Markdown."""
    lines = []
    for what, letter, words in (("claims", "E", EXPERIMENT), ("questions", "Q", QUESTION)):
        rows = card[card["id"].str.startswith(letter)]
        for verdict in (words.yes, words.mixed, words.no, NOT_RUN):
            found = [f"{row.claim} ({row.id})" for row in rows[rows["verdict"] == verdict].itertuples()]
            if found:
                told = f"{verdict} reproduced" if verdict in (EXPERIMENT.mixed, EXPERIMENT.no) else verdict
                lines.append(f"- **{len(found)} of {len(rows)} {what} {told}.** {'; '.join(found)}.")
    how = "In brackets 95 % intervals over seeds, after a range their hull; ∞: never."
    return "\n".join(lines) + f"\n\nScale `{card['scale'].iloc[0]}`. {how}"


def numbers(scale: str) -> str:
    """Every number that a verdict comes from, unit by unit with its interval, as a Markdown list."""
    tables, lines = _tables(scale), []
    for claim in claims():
        entry = ROWS.get(claim.id)
        if entry and set(entry.needs) <= set(tables):
            lines.append(f"- **{claim.id}.** {entry.rule.what}: {entry.rule.listed(entry.measure(tables))}.")
    return "\n".join(lines)


def _tables(scale: str) -> Tables:
    return {name: results.read_table(scale, name) for name in results.names(scale)}


def page(scale: str) -> Path:
    """Where the scorecard of a scale is written."""
    return results.results_folder(scale) / "SCORECARD.md"


def write(scale: str) -> Path:
    """Writes results/<scale>/SCORECARD.md and returns its path."""
    return write_text(page(scale), markdown(scale))


def show(scale: str) -> HTML:
    """The scorecard for a notebook: wrapped text, the same bytes each time."""
    from IPython.display import HTML

    wrapped = "text-align: left; vertical-align: top; white-space: normal"
    style = scorecard(scale).drop(columns="scale").style.hide(axis="index").format(escape="html")
    style = style.set_table_styles([{"selector": "td, th", "props": wrapped}])
    return HTML(style.to_html(table_uuid="scorecard"))
