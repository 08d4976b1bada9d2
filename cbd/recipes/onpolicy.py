"""Recipes of distillation on text that the student writes itself while it learns. No torch."""

from dataclasses import dataclass

from cbd.errors import require
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.training import Loss, Run, Training

GKD = Loss("jsd", cross_entropy=0.0)


class Policy(Run):
    """What both methods share: a student that writes, after the first `prompt` tokens of training text.

    It writes at temperature 1, up to the end-of-text token or to the context's end; what comes later is not
    trained on. `training.tokens` counts places, those of prompts and of padding included.
    """

    teacher: Recipe
    prompt: int

    def __post_init__(self) -> None:
        theirs, ours = self.teacher.spec.vocab, self.start.spec.vocab
        remedy = "give both one tokenizer"
        require(theirs == ours, f"teacher and student have vocabularies of {theirs:,} and {ours:,}: {remedy}")
        context = self.training.context
        require(0 < self.prompt <= context, f"prompt {self.prompt} must lie in 1..{context}, the context")


@dataclass(frozen=True)
class OnPolicy(Policy, Recipe):
    """`start`, distilled from `teacher` on text of its own: GKD (arXiv 2306.13649).

    No gradient goes through the writing. The loss is divided by the tokens that were written. share: of the
    steps that train on the student's text, drawn step by step; the others train on the corpus. The paper
    begins at a student that can write, so should `start`.
    """

    teacher: Recipe
    start: Recipe
    corpus: Corpus
    training: Training
    loss: Loss = GKD
    share: float = 0.5
    prompt: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.share <= 1, f"share {self.share} must lie in [0, 1]")
        alone = self.loss.cross_entropy == 0 and not self.loss.inner
        require(alone, "of its own text a student learns by a divergence alone: set cross_entropy to 0")

    @property
    def flops_per_token(self) -> int:
        """Training, the teacher, and the writing, one forward pass a token."""
        context = self.training.context
        written = round(self.share * self.spec.forward_flops(context))
        return self.spec.training_flops(context) + self.teacher.spec.forward_flops(context) + written


@dataclass(frozen=True)
class MiniLLM(Policy, Recipe):
    """`start`, distilled from `teacher` by policy gradient on whole texts' reverse KL (arXiv 2306.08543).

    Texts are drawn from `mixed` * teacher + (1 - mixed) * student, token by token, and weighted by
    importance. The gradient is split into that of the next token, exact over the vocabulary, and that of what
    comes later, by returns that are divided by their length; of it, the updates are clipped. `pretraining`
    times the cross-entropy on the corpus is added. `cbd.training.minillm` has the formulas.

    collected: batches that are written at once. passes: how often each is trained on, which the paper's text
    leaves open, like their number. Half of the rows of a batch are written, the other half is the corpus',
    so that a token costs what it does elsewhere (ours).
    """

    teacher: Recipe
    start: Recipe
    corpus: Corpus
    training: Training
    mixed: float = 0.2
    clip: float = 0.2
    pretraining: float = 1.0
    collected: int = 4
    passes: int = 2
    prompt: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.mixed < 1, f"the teacher's share {self.mixed} must lie in [0, 1)")
        require(self.clip > 0 and self.pretraining >= 0, "clip must be positive, pretraining not negative")
        require(min(self.collected, self.passes) >= 1, "collected and passes must be at least 1")
        parts, batch = 2 * self.training.accumulation, self.training.batch
        require(batch % parts == 0, f"batch {batch} does not divide into {parts} parts: texts and corpus")

    @property
    def flops_per_token(self) -> int:
        """Training; the teacher on half of the rows; and what both spend to write these."""
        context = self.training.context
        ours, theirs = (model.spec.forward_flops(context) for model in (self, self.teacher))
        return self.spec.training_flops(context) + theirs // 2 + (ours + theirs) // (2 * self.passes)
