"""What is at stake: the paper's claims, its readers' questions, and the numbers that the paper gives.

Claims are in claims.csv, the paper's numbers in reported.csv; both are data files of the package.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Claim:
    """A claim of the paper (E1 to E16, numbered by us) or a question of its readers (Q1 to Q11).

    experiment: the one of ours that answers it, "" where none does. short: a claim in few words. said: the
    paper's words, where it gives no number.
    """

    id: str
    experiment: str
    short: str
    claim: str
    said: str

    @property
    def is_question(self) -> bool:
        return self.id.startswith("Q")


@cache
def claims() -> tuple[Claim, ...]:
    """All of them, the paper's claims first. Without pandas, so that the command line stays quick."""
    with files("cbd.report").joinpath("claims.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Claim(**row) for row in csv.DictReader(file))


def reported():
    """What the paper (arXiv 2605.07783) reports, a frame: experiment, method, size, tokens, metric, value."""
    import pandas as pd

    with files("cbd.report").joinpath("reported.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
