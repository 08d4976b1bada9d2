"""Recipes of what happens after a model is made: supervised fine-tuning and downstream tasks.

Chain-based Distillation (arXiv 2605.07783, section 4) scores its SLMs on public tasks and tunes them on
databricks-dolly-15k before those that generate. Offline, items of the same shapes are made from the held-out
text of the corpus (`Items`, `Pairs`). Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from cbd.errors import CbdError
from cbd.recipes import Corpus, Loss, Recipe, Trained, Training
from cbd.specs import ModelSpec

CONTINUATION, CLOZE, REPLY = "cbd_continuation", "cbd_cloze", "cbd_reply"
DOLLY, XLSUM = "cbd_dolly", "cbd_xlsum"
FROM_ITEMS, FROM_PAIRS = (CONTINUATION, CLOZE), (REPLY, DOLLY)
LOCAL = FROM_ITEMS + FROM_PAIRS  # tasks whose data is a folder made by the recipes below


@dataclass(frozen=True)
class Items(Recipe):
    """Items of two tasks, made from the test split (and as many examples from validation).

    cbd_continuation: `words` words of a passage and four options for the `answer` words after them, three of
    which come from other documents of the same kind (the shape of HellaSwag, arXiv 1905.07830). cbd_cloze:
    the last word of a passage (the shape of LAMBADA, arXiv 1606.06031). count: items of each, at most. No
    passage shares eight words in a row with the training split.
    """

    corpus: Corpus
    count: int = 400
    words: int = 32
    answer: int = 8

    def __post_init__(self) -> None:
        if min(self.count, self.words, self.answer) < 1 or self.words + self.answer < 8:
            raise CbdError("an item needs a count of at least 1 and a passage of at least 8 words")


@dataclass(frozen=True)
class Pairs(Recipe):
    """Prompts with their responses, split by document: what fine-tuning and the generative tasks read.

    kind: "replies" are cut from the corpus, the next turn of a dialogue or the words that follow a passage
    (`words` of prompt, at most `answer` of response); "dolly" is databricks-dolly-15k, from the hub or a
    local folder, `held_out` of it for each of validation and test. count: pairs for training, at most;
    tests: pairs of each held-out split, at most.
    """

    corpus: Corpus | None = None
    kind: Literal["replies", "dolly"] = "replies"
    count: int = 4000
    tests: int = 200
    words: int = 32
    answer: int = 16
    name: str = "databricks/databricks-dolly-15k"
    location: str = field(default="", metadata={"key": False})
    fingerprint: str = ""
    held_out: float = 0.05

    def __post_init__(self) -> None:
        if self.kind not in ("replies", "dolly"):
            raise CbdError(f"pairs of kind {self.kind!r}: choose replies or dolly")
        if (self.corpus is None) == (self.kind == "replies"):
            raise CbdError("replies are cut from a corpus, which is to be named; dolly has its own text")
        if min(self.count, self.tests, self.words, self.answer) < 1:
            raise CbdError("count, tests, words and answer of pairs must be at least 1")


@dataclass(frozen=True)
class Tuned(Recipe):
    """`start`, fine-tuned on prompts and responses; the loss is on the responses alone.

    training.tokens is a budget of places, padding included: `steps` batches of `batch` pairs.
    """

    start: Recipe
    pairs: Pairs
    training: Training

    teacher: ClassVar[None] = None
    loss: ClassVar[Loss] = Loss()
    spec = Trained.spec
    tokens = Trained.tokens
    flops = Trained.flops
    flops_per_token = Trained.flops_per_token


@dataclass(frozen=True)
class Downstream(Recipe):
    """The scores of `model` on lm-eval tasks, by their names there; shots: examples in the prompt.

    limit: the first items of each task alone. items, pairs: the text behind our own tasks.
    """

    model: Recipe
    tasks: tuple[str, ...]
    items: Items | None = None
    pairs: Pairs | None = None
    shots: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.items is None and set(self.tasks) & set(FROM_ITEMS):
            raise CbdError(f"{', '.join(FROM_ITEMS)} are made from a corpus: name its Items")
        if self.pairs is None and set(self.tasks) & set(FROM_PAIRS):
            raise CbdError(f"{', '.join(FROM_PAIRS)} read prompts and responses: name the Pairs")

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def flops(self) -> int:
        """An estimate for our own tasks, at 1.5 tokens a word; what the hub's cost is not known here."""
        total = 0
        if self.items and CONTINUATION in self.tasks:
            total += 4 * self.items.count * (self.items.words + self.items.answer)
        if self.items and CLOZE in self.tasks:
            total += self.items.count * (self.items.words + self.items.answer)
        if self.pairs and set(self.tasks) & set(FROM_PAIRS):
            total += self.pairs.tests * (self.pairs.words + 2 * self.pairs.answer)
        return total * 3 // 2 * self.spec.forward_flops(64)
