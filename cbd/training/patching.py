"""Which of a teacher's blocks to put back into its boomerang student first (`cbd.recipes.models.Patched`).

Boomerang distillation (arXiv 2510.05064) puts them back in their order. Here every block of the student that
is still its own is replaced in turn by the group of the teacher's blocks that it stands for, and that trial
stays which is nearest to the teacher; then the same again. Where every group is larger than what is missing,
the last blocks of one are put back beside the student's own, as `cbd.recipes.operators.patched` does.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np
from torch import nn

from cbd.data import progress
from cbd.errors import require
from cbd.files import write_text
from cbd.models.families import Family
from cbd.models.forward import container, made_of
from cbd.recipes.operators import kept
from cbd.training.judge import Judge
from cbd.training.pruning import batches


def nearest(
    student: nn.Module,
    teacher: nn.Module,
    family: Family,
    windows: np.ndarray,
    layers: int,
    state: Path,
    title: str,
) -> dict[str, list]:
    """Put blocks back until there are `layers`.

    student, teacher: loaded; the first was cut evenly. windows: (rows, T + 1) ids, of text that is no
    held-out one. state: a folder in which finished rounds survive a kill; title: of the progress. Returns
    `blocks` (as `cbd.recipes.operators.patched` has them) and `scores` (nats per token, of the student alone,
    then after each round). Raises `CbdError` for a depth that does not lie between the two.
    """
    name, place = container(student, family), state / "patched.json"
    few, many = (len(model.get_submodule(name)) for model in (student, teacher))
    require(few <= layers <= many, f"{layers} blocks lie not between the student's {few} and its {many}")
    found = {"blocks": [-1 - i for i in range(few)], "scores": []}
    found = json.loads(place.read_text()) if place.is_file() else found
    judge, places = Judge(teacher, "kl", batches(teacher, windows)), (*kept(many, few, "even"), many)

    def score(blocks: Sequence[int]) -> float:
        with _patched(student, teacher, family, blocks) as model:
            return fmean(chain(*(judge(batch, model) for batch in range(len(judge.rows)))))

    done = len(found["blocks"]) - few
    with progress.bar(title=title, total=layers - few, initial=done, unit=" blocks") as shown:
        if not found["scores"]:
            found["scores"].append(score(found["blocks"]))
        # the teacher's depth is reached a round before the last block, which stands for itself, is its own
        while (missing := layers - len(found["blocks"])) or (layers == many and min(found["blocks"]) < 0):
            trials = {blocks: score(blocks) for blocks in _trials(found["blocks"], places, missing)}
            best = min(trials, key=trials.__getitem__)
            shown.update(len(best) - len(found["blocks"]))
            found = {"blocks": list(best), "scores": [*found["scores"], trials[best]]}
            write_text(place, json.dumps(found))
    return found


def _trials(blocks: Sequence[int], places: Sequence[int], missing: int) -> Iterator[tuple[int, ...]]:
    """The blocks with one of the student's own replaced by its whole group; by a part where none fits."""
    groups = {i: range(places[-1 - i], places[-i]) for i in blocks if i < 0}
    fitting = {i: list(group) for i, group in groups.items() if len(group) - 1 <= missing}
    parts = {i: [i, *group[len(group) - missing :]] for i, group in groups.items()}
    for own, group in (fitting or parts).items():
        at = list(blocks).index(own)
        yield (*blocks[:at], *group, *blocks[at + 1 :])


@contextmanager
def _patched(
    student: nn.Module, teacher: nn.Module, family: Family, blocks: Sequence[int]
) -> Iterator[nn.Module]:
    """The model with these blocks, as `cbd.models.interpolation.Patch` makes it."""
    if min(blocks) >= 0:
        yield teacher
        return
    name, layers = container(student, family), student.config.num_hidden_layers
    own, theirs = (model.get_submodule(name) for model in (student, teacher))
    behind = [role.name for role in family.roles if role.norm and role.feeds_head]
    behind += [] if student.config.tie_word_embeddings else [family.parameter(family.head.name)]
    places = [place.removesuffix(".weight") for place in behind] if blocks[-1] >= 0 else []
    mixed = [theirs[i] if i >= 0 else own[-1 - i] for i in blocks]
    student.config.num_hidden_layers = len(blocks)  # some families run as many as the config says
    try:
        with made_of(student, name, mixed, {place: teacher.get_submodule(place) for place in places}):
            yield student
    finally:
        student.config.num_hidden_layers = layers
