"""What README.md says about results: lines that are generated, in words and as commands that were run."""

import textwrap
from collections.abc import Sequence

import pandas as pd

from cbd.errors import require
from cbd.report import results, scorecard
from cbd.report.claims import Claim, claims
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, NOT_TUNED, ONE_SEED, QUESTION, UNJUDGED

SCALES = ("smollm", "laptop")  # whose results README.md tells: a claim's verdict is the first that judges it
NOTEBOOKS = {"smollm": "real_llm"}  # of a scale that has one for all its experiments
START, END = "<!-- findings: written by `make figures` -->", "<!-- end of findings -->"
RUN, RUN_END = "<!-- commands: written by `make figures` -->", "<!-- end of commands -->"
WIDTH = 120
WEAK = "\\*"  # after a claim whose control any trained model should beat
SMALL = "°"  # after a claim that the first scale does not judge
SAID = {
    EXPERIMENT.yes: "Reproduced",
    EXPERIMENT.mixed: "In part",
    EXPERIMENT.no: "Not reproduced",
    NOT_TUNED: "Baseline not tuned",
    ONE_SEED: "One seed, not judged",
    NOT_RUN: "Open",
}
ANSWERS = {QUESTION.yes: "yes", QUESTION.no: "no", QUESTION.mixed: "undecided"}
ANSWERS |= {NOT_TUNED: "not tuned", ONE_SEED: "with one seed", NOT_RUN: "open"}


def block(scales: Sequence[str] = SCALES) -> str:
    """The paper's claims by verdict, each in words with its notebook, and how the questions were answered.

    scales: the one whose verdict counts first.
    """
    card = _judged(scales)
    verdicts, lines = card["verdict"], []
    for verdict, title in SAID.items():
        rows = [(claim, card.loc[claim.id]) for claim in claims() if claim.short]
        found = [
            _linked(claim, row["scale"]) + WEAK * int(row["weak"]) + SMALL * int(row["scale"] != scales[0])
            for claim, row in rows
            if row["verdict"] == verdict
        ]
        if found:
            lines += _bullet(f"**{title}:** {'; '.join(found)}.")
    counts = verdicts[verdicts.index.str.startswith("Q")].value_counts()
    told = [f"{counts[word]} {name}" for word, name in ANSWERS.items() if word in counts]
    lines += _bullet(f"**Questions:** {', '.join(told)}. Rules: [FINDINGS.md](results/FINDINGS.md).")
    return "\n".join(lines)


def _judged(scales: Sequence[str]) -> pd.DataFrame:
    """The scorecard, by id: rows of the first scale that judges them, else of the first that ran them."""
    cards = pd.concat([scorecard.scorecard(scale).assign(place=i) for i, scale in enumerate(scales)])
    cards["open"] = cards["verdict"].isin(UNJUDGED).astype(int) + (cards["verdict"] == NOT_RUN)
    return cards.sort_values(["open", "place"], kind="stable").drop_duplicates("id").set_index("id")


def commands() -> str:
    """A user's commands on a real LLM, as `tests/benchmarks/commands.py` ran them, with what came of each."""
    lines = []
    for row in results.bench("commands").itertuples():
        took = f"{row.seconds / 60:.0f} min" if row.seconds >= 90 else f"{row.seconds} s"
        lines += [row.command, f"# {took}: {row.said}"]
    return "\n".join(("```", *lines, "```"))


def update(text: str, scales: Sequence[str] = SCALES) -> str:
    """Text with the blocks between the markers written anew; that of the commands where it has their markers.

    Raises `CbdError` when a marker is missing.
    """
    text = _between(text, START, END, block(scales))
    return _between(text, RUN, RUN_END, commands()) if RUN in text else text


def _between(text: str, start: str, end: str, content: str) -> str:
    there = start in text and end in text.split(start, 1)[1]
    require(there, f"README.md needs the two lines {start} and {end}, in this order")
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{content}\n{end}{rest.split(end, 1)[1]}"


def _linked(claim: Claim, scale: str) -> str:
    """The claim in words, with a link to the notebook that shows it at this scale."""
    name = NOTEBOOKS.get(scale, claim.experiment)
    found = sorted(results.root().glob(f"notebooks/*_{name}.ipynb")) if name else []
    return f"[{claim.short}](notebooks/{found[0].name})" if found else claim.short


def _bullet(text: str) -> list[str]:
    look = {"initial_indent": "- ", "subsequent_indent": "  ", "break_on_hyphens": False}
    return textwrap.wrap(text, WIDTH, break_long_words=False, **look)
