"""`results/FINDINGS.md`, one page over all scales: what holds, what does not, and what a GPU could settle."""

from pathlib import Path

import pandas as pd

from cbd.experiments.run import design_of, names_at, seeds_of
from cbd.experiments.scales import NOTHING_SHOWN, SCALES
from cbd.experiments.scales.base import Scale
from cbd.files import write_text
from cbd.realize.plan import short
from cbd.recipes.base import Recipe, walk
from cbd.recipes.costs import ACCELERATORS
from cbd.report import results, scorecard
from cbd.report.claims import claims
from cbd.report.findings import ROWS
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, NOT_TUNED, ONE_SEED, QUESTION, UNJUDGED

HEADINGS = {
    "What holds": (EXPERIMENT.yes, QUESTION.yes),
    "What holds in part, or is undecided": (EXPERIMENT.mixed, QUESTION.mixed),
    "What does not hold": (EXPERIMENT.no, QUESTION.no),
    "What cannot be said: the baseline is not tuned": (NOT_TUNED,),
    "What was measured with one seed, and is not judged": (ONE_SEED,),
    "What has not been run": (NOT_RUN,),
}
CARD = "gpu"  # the scale of one card
HOW = (
    "Beside a claim stands how many of its sizes, tasks or steps show it, tested together. A weak control is "
    "one that any trained model should beat."
)


def page() -> str:
    """The page, in Markdown, from the tables of every scale that has some."""
    there = [s for s in SCALES.values() if s.name != NOTHING_SHOWN and results.names(s.name)]
    cards = pd.concat([scorecard.scorecard(scale.name) for scale in there], ignore_index=True)
    run = set(cards.loc[cards["verdict"] != NOT_RUN, "id"])
    cards = cards[(cards["verdict"] != NOT_RUN) | ~cards["id"].isin(run)]
    rules = "Numbers and rules: " + ", ".join(f"[{s.name}]({s.name}/SCORECARD.md)" for s in there) + "."
    parts = ["# Findings", f"Written by `cbd figures` from the tables in this folder. {rules} {HOW}"]
    parts += ["\n".join(map(_tier, there))]
    for heading, verdicts in HEADINGS.items():
        rows = cards[cards["verdict"].isin(verdicts)]
        if len(rows):
            lines = [_line(list(same.itertuples())) for _, same in rows.groupby("id", sort=False)]
            parts += [f"## {heading}", "\n".join(lines)]
    if disagree := _disagreements(cards):
        parts += ["## Where the scales disagree", disagree]
    return "\n\n".join([*parts, "## What only a GPU could settle", _open()]) + "\n"


def write() -> Path:
    """Writes results/FINDINGS.md and returns its path."""
    return write_text(results.root() / "results" / "FINDINGS.md", page())


def _tier(scale: Scale) -> str:
    ends = [spec.parameters / 1e6 for spec in (scale.anchor_specs[-1], scale.source_spec)]
    return f"- `{scale.name}`: models of {ends[0]:.2f} to {ends[1]:.2f} million parameters; {scale.cost}."


def _line(rows: list) -> str:
    """A claim that got one verdict at these scales, with how many of its units hold at each."""
    claim, control = rows[0], ""
    if claim.control != scorecard.NOTHING:
        strength, words = claim.control.split(": ", 1)
        control = f" {strength.capitalize()} control: {words}."
    return f"- **{claim.claim}** ({claim.id}){''.join(map(_units, rows))}.{control}"


def _units(row) -> str:
    """How many units of a row hold, with its scale, or its numbers; nothing where nothing was measured."""
    if row.ours == scorecard.NOTHING:
        return ""
    if row.verdict == ONE_SEED:
        return f", `{row.scale}`: {row.ours.replace(' (no interval)', '')}"
    entry = ROWS[row.id]
    found = entry.measure({name: results.read_table(row.scale, name) for name in results.names(row.scale)})
    counts = entry.rule.counts(found, found.index)  # none where facts have no interval
    return f", `{row.scale}`: {counts or row.ours.replace(' (no interval)', '')}"


def _disagreements(cards: pd.DataFrame) -> str:
    """The claims that were judged at several scales, with different verdicts."""
    judged = cards[~cards["verdict"].isin(UNJUDGED)]
    lines = []
    for name, rows in judged.groupby("id", sort=False):
        if rows["verdict"].nunique() > 1:
            told = ", ".join(f"`{row.scale}` {row.verdict}" for row in rows.itertuples())
            lines.append(f"- {rows['claim'].iloc[0]} ({name}): {told}.")
    return "\n".join(lines)


def _open() -> str:
    """For each experiment that the scale of one card has not run: the command, its hours, its claims."""
    scale, have = SCALES[CARD], set(results.names(CARD))
    card = ACCELERATORS[scale.machine]
    lines = [f"| command | claims | hours on one {card.name} |", "|---|---|---|"]
    counted: dict[str, Recipe] = {}
    names = names_at(scale)
    asking = [claim.experiment for claim in claims() if claim.experiment in names]
    for name in dict.fromkeys([*asking, *names]):
        recipes = [r for s in seeds_of(name, scale) for r in design_of(name, scale, s).recipes]
        own = {key: recipe for key, recipe in walk(recipes).items() if key not in counted}
        if own and name not in have:
            hours = card.hours(sum(recipe.flops for recipe in own.values()))
            asked = ", ".join(claim.id for claim in claims() if name in _behind(claim.id))
            cells = (asked or scorecard.NOTHING, short(hours) if hours else scorecard.NOTHING)
            lines.append(f"| `cbd run {name} --scale {CARD}` | {' | '.join(cells)} |")
            counted |= own
    sizes = " > ".join(spec.name for spec in (scale.source_spec, *scale.anchor_specs))
    told = (
        "Models of a million parameters need not tell what models of 50 to 400 million do. With one card the "
        f"same code distils {sizes} from the hub, with {scale.seeds} seeds. What several commands need is "
        "counted at the first of them, and what benchmarks cost at none. The paper's own sizes and tokens: "
        "`cbd plan --scale paper`."
    )
    return told + "\n\n" + "\n".join(lines)


def _behind(claim: str) -> tuple[str, ...]:
    return (ROWS[claim].needs or ()) if claim in ROWS else ()
