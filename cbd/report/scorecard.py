"""The scorecard: for every claim of the paper and every question of its readers, the paper's figure, ours,
and a verdict by a rule. Reads results only; no torch.

Claims and the paper's numbers are in `cbd.report.claims`; what measures and judges a row stands with the
findings of its experiment (`ROWS` in `cbd.report.findings`).
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cbd.errors import si
from cbd.files import write_text
from cbd.report import ladder, results
from cbd.report.claims import Claim, claims, reported
from cbd.report.findings import ROWS
from cbd.report.verdicts import (
    EXPERIMENT,
    FIXED,
    MARGIN,
    NOT_RUN,
    NOT_TUNED,
    ONE_SEED,
    QUESTION,
    Tables,
    listed,
)

NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the scorecard. seeds: the fewest behind its numbers, 0 where nothing is measured.

    control: what it compares with and how strong that is. weak: whether any trained model should win.
    """

    id: str
    claim: str
    paper: str
    ours: str = NOTHING
    control: str = NOTHING
    weak: bool = False
    scale: str
    seeds: int = 0
    verdict: str = NOT_RUN
    rule: str = "No experiment for it yet"


def scorecard(scale: str) -> pd.DataFrame:
    """A row for each of E1 to E16 and Q1 to Q11, with the columns of `Row`, from the tables that exist."""
    tables = _tables(scale)
    return pd.DataFrame([_row(claim, tables, scale) for claim in claims()])


def _row(claim: Claim, tables: Tables, scale: str) -> Row:
    words = QUESTION if claim.is_question else EXPERIMENT
    row = Row(id=claim.id, claim=claim.claim, paper=paper(claim), scale=scale)
    if claim.id not in ROWS:
        return row
    entry = ROWS[claim.id]
    row = replace(row, rule=entry.rule.text(words))
    if entry.control:
        row = replace(row, control=str(entry.control), weak=entry.control.strength == "weak")
    there = set(entry.needs) <= set(tables)
    if there and entry.control and ladder.failing(tables, entry.needs, entry.control.trained):
        row = replace(row, verdict=NOT_TUNED)
    found = entry.measure(tables) if there else pd.DataFrame()
    if found.empty:
        return row
    ours = ". ".join(filter(None, (entry.rule.told(found), entry.note(tables))))
    verdict = row.verdict if row.verdict == NOT_TUNED else entry.rule.verdict(found, words)
    return replace(row, ours=ours, seeds=int(found["n"].min()), verdict=verdict)


def paper(claim: Claim) -> str:
    """The paper's figures on a claim, from reported.csv, then its words."""
    rows = reported().query("experiment == @claim.id")
    several = rows["params_millions"].nunique() > 1
    parts = []
    for (metric, tokens), group in rows.groupby(["metric", "tokens"], dropna=False, sort=False):
        after = "" if math.isnan(tokens) else f" at {si(tokens).replace('G', 'B')} tokens"  # as papers count
        sizes = [f" {size:g}M" * several for size in group["params_millions"]]
        values = map("{}{} {:g}".format, group["method"], sizes, group["value"])
        parts.append(f"{metric.replace('_', ' ')}{after}: {', '.join(values)}")
    return "; ".join(filter(None, (*parts, claim.said))) or NOTHING


def markdown(scale: str) -> str:
    """The scorecard of a scale as a page: verdicts in words, the whole table, and every unit's numbers."""
    card, made = scorecard(scale), f"Written by `cbd figures --scale {scale}` from the tables beside it."
    parts = (f"# Scorecard, scale {scale}", made, tally(card), table(card), "## In numbers", numbers(scale))
    return "\n\n".join(parts) + "\n"


def table(card: pd.DataFrame) -> str:
    """The scorecard as a table in Markdown."""
    lines = ["| | claim | paper | ours | control | verdict, by its rule |", "|---|---|---|---|---|---|"]
    for row in card.itertuples():
        seeds = f" ({row.seeds} seed{'s' * (row.seeds > 1)})" if row.seeds else ""
        judged = f"**{row.verdict}**. {row.rule}."
        cells = (row.id, row.claim, row.paper, row.ours + seeds, row.control, judged)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def tally(card: pd.DataFrame) -> str:
    """The claims by verdict, then the questions, and how to read the table's numbers, in Markdown."""
    lines = []
    for what, letter, words in (("claims", "E", EXPERIMENT), ("questions", "Q", QUESTION)):
        rows = card[card["id"].str.startswith(letter)]
        for verdict in (words.yes, words.mixed, words.no, NOT_TUNED, ONE_SEED, NOT_RUN):
            judged = rows[rows["verdict"] == verdict].itertuples()
            found = [f"{row.claim} ({row.id}{', weak control' * row.weak})" for row in judged]
            if found:
                told = f"{verdict} reproduced" if verdict in (EXPERIMENT.mixed, EXPERIMENT.no) else verdict
                told = "rest on a baseline that is not tuned" if verdict == NOT_TUNED else told
                lines.append(f"- **{len(found)} of {len(rows)} {what} {told}.** {'; '.join(found)}.")
    how = (
        "In brackets 95 % intervals over seeds, after a range their hull; ∞: never. The units of a row are "
        f"tested together (Holm), rows are not. A difference of up to {MARGIN:g} nats per token is a tie. A "
        "weak control is one that any trained model should beat. Rules, lines and margins were fixed on "
        f"{FIXED}, before all runs that are younger; bridge and families are older."
    )
    return "\n".join(lines) + f"\n\nScale `{card['scale'].iloc[0]}`. {how}"


def numbers(scale: str) -> str:
    """Every number that a verdict comes from, unit by unit with its interval, as a Markdown list."""
    tables, lines = _tables(scale), []
    for claim in claims():
        entry = ROWS.get(claim.id)
        found = entry.measure(tables) if entry and set(entry.needs) <= set(tables) else pd.DataFrame()
        if len(found):
            lines.append(f"- **{claim.id}.** {entry.rule.what}: {listed(found, entry.rule.form)}.")
    return "\n".join(lines)


def _tables(scale: str) -> Tables:
    return {name: results.read_table(scale, name) for name in results.names(scale)}


def page(scale: str) -> Path:
    """Where the scorecard of a scale is written."""
    return results.results_folder(scale) / "SCORECARD.md"


def write(scale: str) -> Path:
    """Writes results/<scale>/SCORECARD.md and returns its path."""
    return write_text(page(scale), markdown(scale))
