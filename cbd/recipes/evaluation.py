"""Recipes of measurements: held-out loss, bits per byte, downstream tasks. No torch.

Chain-based Distillation (arXiv 2605.07783, section 4) scores its SLMs on public tasks and tunes them on
databricks-dolly-15k before those that generate. Offline, items of the same shapes are made from the held-out
text of the corpus (`Items`, `Pairs`).
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from cbd.errors import require
from cbd.recipes.base import Recipe, check_choices
from cbd.recipes.data import Corpus, Items, Pairs


@dataclass(frozen=True)
class Evaluated(Recipe):
    """The loss of `model` on the first `sample` tokens of a held-out split, per token and per byte.

    precision: of the products in the blocks; the head's and the loss are in fp32.
    """

    model: Recipe
    corpus: Corpus
    sample: int = 16384
    context: int = 128
    split: Literal["train", "validation", "test"] = "validation"
    precision: Literal["fp32", "bf16"] = "fp32"

    __post_init__ = check_choices
    spec = property(attrgetter("model.spec"))

    @property
    def flops(self) -> int:
        return self.sample * self.spec.forward_flops(self.context)


@dataclass(frozen=True)
class Compared(Recipe):
    """How far `model` is from `teacher`, of the same vocabulary, on the first `sample` tokens of a split.

    Divergences of what they say comes next, in nats per token; how alike their states are (`DEPTHS`); and the
    effective rank of the model's last states.
    """

    model: Recipe
    teacher: Recipe
    corpus: Corpus
    sample: int = 16384
    context: int = 128
    split: Literal["train", "validation", "test"] = "validation"

    spec = property(attrgetter("model.spec"))

    def __post_init__(self) -> None:
        check_choices(self)
        ours, theirs = self.model.spec.vocab, self.teacher.spec.vocab
        require(
            ours == theirs, f"vocabularies of {ours:,} and {theirs:,} tokens have no divergence: take one"
        )

    @property
    def flops(self) -> int:
        return self.sample * sum(m.spec.forward_flops(self.context) for m in (self.model, self.teacher))


DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a model's blocks after which its states are compared; 1 is after the last norm."""


@dataclass(frozen=True)
class BitsPerByte(Recipe):
    """What `model`, with its own tokenizer, needs for the same bytes of a held-out split.

    Losses a token do not compare across vocabularies; this does. sample: bytes; window: bytes that are
    scored at a time, each window on its own.
    """

    model: Recipe
    corpus: Corpus
    sample: int = 65536
    window: int = 384
    split: Literal["validation", "test"] = "validation"

    spec = property(attrgetter("model.spec"))

    @property
    def flops(self) -> int:
        """Counted as if a token were three bytes."""
        return self.sample // 3 * self.spec.forward_flops(self.window // 3)


CONTINUATION, CLOZE, REPLY = "cbd_continuation", "cbd_cloze", "cbd_reply"
DOLLY, XLSUM = "cbd_dolly", "cbd_xlsum"
FROM_ITEMS, FROM_PAIRS = (CONTINUATION, CLOZE), (REPLY, DOLLY)
LOCAL = FROM_ITEMS + FROM_PAIRS  # tasks whose data is a folder made by the recipes below


@dataclass(frozen=True)
class Downstream(Recipe):
    """The scores of `model` on lm-eval tasks, by their names there; shots: examples in the prompt.

    limit: the first items of each task alone. items, pairs: the text behind our own tasks. precision: of the
    weights on a CPU; on cards they are bf16.
    """

    model: Recipe
    tasks: tuple[str, ...]
    items: Items | None = None
    pairs: Pairs | None = None
    shots: int = 0
    limit: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        check_choices(self)
        made, read = (set(self.tasks) & set(names) for names in (FROM_ITEMS, FROM_PAIRS))
        require(self.items or not made, f"{', '.join(FROM_ITEMS)} are made from a corpus: name its Items")
        require(self.pairs or not read, f"{', '.join(FROM_PAIRS)} read responses: name the Pairs")

    spec = property(attrgetter("model.spec"))

    @property
    def flops(self) -> int:
        """An estimate for our own tasks, at 1.5 tokens a word; what the hub's cost is not known here."""
        total = 0
        if self.items:
            passages = 4 * (CONTINUATION in self.tasks) + (CLOZE in self.tasks)  # one an option
            total += passages * self.items.count * (self.items.words + self.items.answer)
        if self.pairs and set(self.tasks) & set(FROM_PAIRS):
            total += self.pairs.tests * (self.pairs.words + 2 * self.pairs.answer)
        return total * 3 // 2 * self.spec.forward_flops(64)
