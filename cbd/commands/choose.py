"""`cbd init --text`: the start that trains best on a user's own text, measured before anything is written.

No rule knows it: a mixture of two models is better than either in some gaps and worse in others (Q2, Q6). So
every candidate is made, its loss on held-out text is taken, and the best few are trained for a short while.
Among them are the larger model's blocks that its loss on the training text can least do without.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cbd.commands import own
from cbd.commands.init import Size, in_one_basis, init_checkpoint, named
from cbd.errors import CbdError
from cbd.realize import realize, realize_all, store
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Pruned, Source
from cbd.recipes.operators import OPERATORS, distance_alpha, kept
from cbd.recipes.specs import ModelSpec
from cbd.recipes.starts import MIXED, alone
from cbd.recipes.training import Trained, Training

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)  # beside the rule's alpha
CONFIRMED = 3  # candidates that are trained
SAMPLE = 2048  # tokens on which blocks are chosen: every trial is a pass over them


@dataclass(frozen=True)
class Candidate:
    """A way to start, as `init_checkpoint` takes it; operator and alpha are a mixture's."""

    start: str
    operator: str = "union"
    alpha: float | Literal["distance"] = "distance"
    blocks: tuple[int, ...] | None = None

    @property
    def options(self) -> dict[str, Any]:
        return asdict(self) | {"operator": OPERATORS[self.operator]}


def candidates(
    small: ModelSpec, large: ModelSpec, target: ModelSpec, blocks: Mapping[str, tuple[int, ...]]
) -> list[Candidate]:
    """Either model alone, and both by the rule's alpha and by others; of two that are close, the rule's.

    blocks: for some starts those of the large model that its loss chose; beside them a cut in the middle is
    tried.
    """
    rule = distance_alpha(small, large, target)
    shares = [share for share in SHARES if abs(share - rule) > 0.02]
    mixed = [Candidate(MIXED, operator) for operator in ("union", "literal")]
    chosen = [Candidate(start, blocks=those) for start, those in blocks.items()]
    return [*mixed, *(Candidate(MIXED, alpha=share) for share in shares), *map(Candidate, alone()), *chosen]


def _blocks_by_loss(
    large: Source, keep: Mapping[str, int], spec: ModelSpec, text: Corpus, training: Training
) -> dict[str, tuple[int, ...]]:
    """Start -> the large model's blocks that its loss on the training text can least do without.

    keep: for each start, how many of the outermost stay in any case. None where the depth stays, nor where a
    cut in the middle is what the loss chooses.
    """
    found, depth = {}, large.spec.layers
    for start, outermost in keep.items() if spec.layers < depth else ():
        how = {"sample": SAMPLE, "context": training.context, "precision": training.precision}
        fewer = Pruned(large, spec.layers, text, outermost, **how)
        realize(fewer)
        blocks = tuple(store.record(fewer)["blocks"])
        store.discard(fewer)
        found |= {start: blocks} if blocks != kept(depth, spec.layers, "ends") else {}
    return found


def init_best(
    small: str | Path,
    large: str | Path,
    out: str | Path,
    size: Size,
    text: str | Path,
    column: str,
    tokens: int,
    context: int,
    unaligned: bool = False,
) -> dict[str, Any]:
    """Initialise a model between two checkpoints by the start that is best on a folder's text.

    Best: with the lowest loss on the text's validation split after `tokens` tokens of plain training, among
    the few that are lowest before it; all train at one rate. What is written is the start, untrained, with
    the whole table beside it, and the winner's loss on a split that chose nothing. Models that share no basis
    are not mixed. Returns what `cbd.json` says. Raises `CbdError` on bad input before any work; a killed
    command goes on where it was.
    """
    own.check_absent(out)
    pair = own.opened(small), own.opened(large)
    for model in pair:
        model.check_finite()
    spec = size.spec(*(model.spec for model in pair))
    corpus = own.text_for(pair[0], text, column, context)
    found = {"lr": own.default_rate(spec), "precision": own.default_precision(spec)}
    training = Training(tokens, batch=8, context=context, evaluations=1, evaluation_tokens=8192, **found)
    left_out = None
    try:
        in_one_basis(*pair, unaligned)
    except CbdError as error:
        left_out = str(error)
    keep = {MIXED: pair[0].spec.layers, "cut": 0} if left_out is None else {"cut": 0}
    blocks = _blocks_by_loss(own.source_of(large), keep, spec, corpus, training)
    found = candidates(pair[0].spec, pair[1].spec, spec, blocks)
    found = [c for c in found if c.start != MIXED or left_out is None]
    work = store.root() / "work"
    work.mkdir(parents=True, exist_ok=True)
    # in the store: its links to these folders are hard ones, which last when the folders go
    with tempfile.TemporaryDirectory(prefix="candidates-", dir=work) as place:
        made = {}
        for one in found:
            folder = Path(place) / named(asdict(one))
            init_checkpoint(small, large, folder, size, unaligned=unaligned, **one.options)
            made[one] = own.source_of(folder)
            realize(made[one])
        winner, measured, test = _measured(made, corpus, training)
        for source in made.values():
            store.discard(source)
    choice = {"text": corpus.name, "training": asdict(training), "left_out": left_out}
    choice |= {"measured": measured, "test": test}
    return init_checkpoint(small, large, out, size, unaligned=unaligned, **winner.options, choice=choice)


def _measured(
    made: Mapping[Candidate, Source], text: Corpus, training: Training
) -> tuple[Candidate, list[dict[str, Any]], float]:
    """The winner, a row a candidate from the best to the worst, and the winner's loss on the test split."""
    loss_of = lambda recipe: store.record(recipe)["metrics"]["loss"]  # noqa: E731
    held_out = training.evaluation_tokens, training.context
    before: dict[Candidate, Recipe] = {c: Evaluated(model, text, *held_out) for c, model in made.items()}
    realize_all(before.values())
    zero = {c: loss_of(measured) for c, measured in before.items()}
    runs = {c: Trained(made[c], text, training) for c in sorted(zero, key=zero.__getitem__)[:CONFIRMED]}
    realize_all(runs.values())
    after = {c: store.record(run)["final_loss"] for c, run in runs.items()}
    winner = min(after, key=after.__getitem__)
    test = Evaluated(made[winner], text, *held_out, "test")
    realize(test)
    for run in runs.values():
        store.discard(run)
    best_first = sorted(made, key=lambda c: (after.get(c, math.inf), zero[c]))
    rows = [asdict(c) | {"loss": zero[c], "trained": after.get(c)} for c in best_first]
    return winner, rows, loss_of(test)
