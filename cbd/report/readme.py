"""What README.md says about results: lines that are generated, in words and as commands that were run."""

import textwrap

from cbd.errors import require
from cbd.report import results, scorecard
from cbd.report.claims import Claim, claims
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, NOT_TUNED, ONE_SEED, QUESTION

SCALE = "laptop"  # whose results README.md tells
START, END = "<!-- findings: written by `make figures` -->", "<!-- end of findings -->"
RUN, RUN_END = "<!-- commands: written by `make figures` -->", "<!-- end of commands -->"
WIDTH = 120
WEAK = "\\*"  # after a claim whose control any trained model should beat
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


def block(scale: str = SCALE) -> str:
    """The paper's claims by verdict, each in words with its notebook, and how the questions were answered."""
    card = scorecard.scorecard(scale).set_index("id")
    verdicts, lines = card["verdict"], []
    for verdict, title in SAID.items():
        rows = [claim for claim in claims() if claim.short and verdicts[claim.id] == verdict]
        found = [_linked(claim) + WEAK * int(card.loc[claim.id, "weak"]) for claim in rows]
        if found:
            lines += _bullet(f"**{title}:** {'; '.join(found)}.")
    counts = verdicts[verdicts.index.str.startswith("Q")].value_counts()
    told = [f"{counts[word]} {name}" for word, name in ANSWERS.items() if word in counts]
    lines += _bullet(f"**Questions:** {', '.join(told)}. Rules: [FINDINGS.md](results/FINDINGS.md).")
    return "\n".join(lines)


def commands() -> str:
    """A user's commands on a real LLM, as `tests/benchmarks/commands.py` ran them, with what came of each."""
    lines = []
    for row in results.bench("commands").itertuples():
        took = f"{row.seconds / 60:.0f} min" if row.seconds >= 90 else f"{row.seconds} s"
        lines += [row.command, f"# {took}: {row.said}"]
    return "\n".join(("```", *lines, "```"))


def update(text: str, scale: str = SCALE) -> str:
    """Text with the blocks between the markers written anew; that of the commands where it has their markers.

    Raises `CbdError` when a marker is missing.
    """
    text = _between(text, START, END, block(scale))
    return _between(text, RUN, RUN_END, commands()) if RUN in text else text


def _between(text: str, start: str, end: str, content: str) -> str:
    there = start in text and end in text.split(start, 1)[1]
    require(there, f"README.md needs the two lines {start} and {end}, in this order")
    before, rest = text.split(start, 1)
    return f"{before}{start}\n{content}\n{end}{rest.split(end, 1)[1]}"


def _linked(claim: Claim) -> str:
    """The claim in words, with a link to the notebook that shows it."""
    found = sorted(results.root().glob(f"notebooks/*_{claim.experiment}.ipynb")) if claim.experiment else []
    return f"[{claim.short}](notebooks/{found[0].name})" if found else claim.short


def _bullet(text: str) -> list[str]:
    look = {"initial_indent": "- ", "subsequent_indent": "  ", "break_on_hyphens": False}
    return textwrap.wrap(text, WIDTH, break_long_words=False, **look)
