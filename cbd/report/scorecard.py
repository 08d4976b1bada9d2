"""The scorecard: for every experiment of the paper and every doubt of its readers, the claim, the paper's
figure, ours, and a verdict by a rule. Reads results only; no torch.

Claims and the paper's numbers are in `cbd.report.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pandas as pd

from cbd.errors import CbdError
from cbd.report import measures, results
from cbd.report.claims import Claim, claims, reported
from cbd.report.measures import NEAR, SEEDS, SHARE, TOLERATED, Tables
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, QUESTION, Facts, Sides

if TYPE_CHECKING:
    from IPython.display import HTML

START, END = "<!-- scorecard: written by `make figures` -->", "<!-- end of scorecard -->"
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


@dataclass(frozen=True)
class Entry:
    """How a row is measured and judged.

    needs: the tables that it cannot do without. measure: tables by name -> what the rule judges (see
    `cbd.report.verdicts`). note: tables by name -> further numbers.
    """

    needs: tuple[str, ...]
    measure: Callable[[Tables], pd.DataFrame]
    rule: Sides | Facts
    note: Callable[[Tables], str] | None = None


LOSS = "nats per token"
ENTRIES = {
    "E1": Entry(
        ("chain",),
        measures.steps_lost,
        Sides(f"Each step of the chain: what it loses, {LOSS}", "below", TOLERATED),
    ),
    "E2": Entry(
        ("initialise",),
        measures.start_against_random,
        Sides(f"Step zero, each size: CBD (union) minus random, {LOSS}", "below"),
    ),
    "E3": Entry(
        ("scratch_vs_cbd",),
        measures.crossings,
        Sides(
            "Each size, loss and tasks above chance: tokens with which random weights reach CBD at zero "
            "tokens, as a share of their longest budget",
            "above",
            SHARE,
            ".2f",
        ),
        measures.silent_tasks,
    ),
    "E4": Entry(
        ("equal_budget",),
        measures.averages,
        Sides("Average of the tasks, each size and budget: CBD minus random, points", "above", 0, "+.2f"),
        measures.average_levels,
    ),
    "E5": Entry(
        ("convergence",),
        measures.start_against_trained_random,
        Sides(f"Each size: CBD at zero tokens minus random after the smallest budget, {LOSS}", "below"),
        measures.speedups,
    ),
    "E6": Entry(
        ("chain",),
        measures.direct_against_stepwise,
        Sides(
            "Smallest anchor, direct minus stepwise at equal tokens and at equal compute: final loss, and "
            f"noise of the training loss, {LOSS}",
            "above",
        ),
    ),
    "E7": Entry(
        ("alpha",),
        measures.best_alphas,
        Facts(
            "Inherited anchors, each reading and target: the interval of the best alpha lies inside 0 to 1, "
            f"and its mean within {NEAR:g} of the alpha by distance",
            lambda row: row.low > 0 and row.high < 1 and abs(row.point - row.rule) <= NEAR,
        ),
    ),
    "E8": Entry(
        ("scratch_vs_cbd",),
        measures.generation_gaps,
        Sides(
            "Rouge-L, each size: CBD at zero tokens minus random at its longest budget; and how far that gap "
            "has shrunk since the shortest",
            "above",
        ),
        measures.silent_generation,
    ),
    "E10": Entry(
        ("initialise",),
        measures.start_against_single,
        Sides(f"Step zero, each size: CBD (union) minus the better single anchor, {LOSS}", "below"),
    ),
    "E12": Entry(
        ("convergence",),
        measures.start_against_trained_single,
        Sides(
            f"Each size: CBD at zero tokens minus the better single anchor after the smallest budget, {LOSS}",
            "below",
        ),
    ),
    "E13": Entry(
        ("equal_budget",),
        measures.smallest_averages,
        Sides("Average of the tasks, smallest size: CBD minus random, points", "above", 0, "+.2f"),
    ),
    "E15": Entry(
        ("bridge",),
        measures.bridged,
        Sides(
            "SLM of a chain bridged by generated text minus one of a chain without a bridge, at equal tokens "
            "and at equal compute, bits per byte; once scratch_vs_cbd has run, also Rouge-L of CBD (union) "
            "minus CBD (bridged)",
            "below",
        ),
    ),
    "E16": Entry(
        ("paper_map",),
        measures.cost_ratios,
        Sides("FLOPs of the chain over each other way's, all sizes and one more size", "below", 1, ".2f"),
    ),
    "Q1": Entry(
        (),
        measures.seeds,
        Facts(f"Each measured table: at least {SEEDS} seeds", lambda row: row.n >= SEEDS, ".0f"),
    ),
    "Q2": Entry(
        ("initialise", "convergence"),
        measures.against_single,
        Sides(
            f"Step zero and after each budget, each size: CBD (union) minus the better single anchor, {LOSS}",
            "below",
        ),
    ),
    "Q3": Entry(
        ("initialise",),
        measures.other_operators,
        Sides(f"Step zero, each size: each other operator minus union, {LOSS}", "above"),
    ),
    "Q4": Entry(
        ("chain",),
        measures.lost_since_source,
        Sides(f"From the source to the smallest anchor: what is lost, {LOSS}", "above"),
        measures.lost_above,
    ),
    "Q6": Entry(
        ("alpha",),
        measures.regret,
        Sides(
            "Inherited anchors, union, each target: loss at the grid's alpha nearest to that by distance "
            f"minus loss at the best alpha, {LOSS}",
            "below",
            TOLERATED,
        ),
    ),
    "Q7": Entry(
        ("paper_map",),
        measures.break_even,
        Facts(
            "Each other way: from some number of sizes on, the chain is cheaper",
            lambda row: math.isfinite(row.point),
            ".0f",
        ),
    ),
    "Q9": Entry(
        ("families",),
        measures.families,
        Sides(
            "Each family but GPT-2: union at the grid's alpha nearest to that by distance minus the better "
            "end of the grid, bits per byte",
            "below",
        ),
        measures.families_against_random,
    ),
    "Q10": Entry(
        ("bridge",),
        measures.bridges,
        Sides("SLM of a chain: each bridge minus no bridge at equal tokens, bits per byte", "below"),
    ),
    "Q11": Entry(
        ("scratch_vs_cbd",),
        measures.shrinking,
        Sides(
            f"Each size and budget of random weights: CBD's advantage minus that at the next budget, {LOSS}",
            "above",
        ),
        measures.loss_gaps,
    ),
}
# E9, E11, E14, Q5 and Q8 have claims but no entry: nothing measures them yet.


def scorecard(scale: str) -> pd.DataFrame:
    """A row for each of E1 to E16 and Q1 to Q11, with the columns of `Row`, from the tables that exist."""
    tables = {name: results.read_table(scale, name) for name in results.names(scale)}
    rows = [_row(claim, tables, scale) for claim in claims()]
    return pd.DataFrame([asdict(row) for row in rows])


def paper(name: str, said: str = "") -> str:
    """The paper's figures of an experiment, from reported.csv, then its words."""
    rows = reported()
    rows = rows[rows["experiment"] == name]
    several = rows["params_millions"].nunique() > 1
    parts = []
    for (metric, tokens), group in rows.groupby(["metric", "tokens"], dropna=False, sort=False):
        after = "" if math.isnan(tokens) else f" at {_short(tokens)} tokens"
        values = [
            f"{row.method}{f' {row.params_millions:g}M' * several} {row.value:g}"
            for row in group.itertuples()
        ]
        parts.append(f"{metric.replace('_', ' ')}{after}: {', '.join(values)}")
    return "; ".join([*parts, *([said] if said else [])]) or NOTHING


def markdown(scale: str) -> str:
    """The scorecard of a scale as a GitHub table, folded away below how often each verdict occurs."""
    table = scorecard(scale)
    lines = ["| | claim | paper | ours | verdict, by its rule |", "|---|---|---|---|---|"]
    for row in table.itertuples():
        seeds = f" ({row.seeds} seeds)" if row.seeds else ""
        cells = (row.id, row.claim, row.paper, row.ours + seeds, f"**{row.verdict}**. {row.rule}.")
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    fold = "<details>\n<summary>The whole table</summary>"
    return f"{tally(table)}\n\n{fold}\n\n" + "\n".join(lines) + "\n\n</details>"


def tally(table: pd.DataFrame) -> str:
    """The claims by verdict, then the questions, and how to read the table's numbers, in Markdown."""
    lines = []
    for what, letter, words in (("claims", "E", EXPERIMENT), ("questions", "Q", QUESTION)):
        rows = table[table["id"].str.startswith(letter)]
        for verdict in (words.yes, words.mixed, words.no, NOT_RUN):
            found = [f"{row.claim} ({row.id})" for row in rows[rows["verdict"] == verdict].itertuples()]
            if found:
                told = f"{verdict} reproduced" if verdict in (EXPERIMENT.mixed, EXPERIMENT.no) else verdict
                lines.append(f"- **{len(found)} of {len(rows)} {what} {told}.** {'; '.join(found)}.")
    how = "In brackets 95 % intervals over seeds, after a range their hull; ∞: never."
    return "\n".join(lines) + f"\n\nScale `{table['scale'].iloc[0]}`. {how}"


def update(text: str, scale: str) -> str:
    """Text with the block between the markers written anew. Raises `CbdError` when a marker is missing."""
    if START not in text or END not in text.split(START, 1)[1]:
        raise CbdError(f"README.md needs the two lines {START} and {END}, in this order")
    before, rest = text.split(START, 1)
    return f"{before}{START}\n{markdown(scale)}\n{END}{rest.split(END, 1)[1]}"


def show(scale: str) -> HTML:
    """The scorecard for a notebook: wrapped text, the same bytes each time."""
    from IPython.display import HTML

    wrapped = "text-align: left; vertical-align: top; white-space: normal"
    style = scorecard(scale).drop(columns="scale").style.hide(axis="index").format(escape="html")
    style = style.set_table_styles([{"selector": "td, th", "props": wrapped}])
    return HTML(style.to_html(table_uuid="scorecard"))


def _row(line: Claim, tables: Tables, scale: str) -> Row:
    words = QUESTION if line.is_question else EXPERIMENT
    entry = ENTRIES.get(line.id)
    start = {"id": line.id, "claim": line.claim, "paper": paper(line.id, line.said), "scale": scale}
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


def _short(tokens: float) -> str:
    """78000000 -> 78M."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if tokens >= size:
            return f"{tokens / size:g}{letter}"
    return f"{tokens:g}"
