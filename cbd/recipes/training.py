"""Recipes of training: plain, distilled, bridged and fine-tuned, their losses, and the search for a rate.

Bridge distillation (arXiv 2605.07783, section 3) begins a chain at a source of another architecture or
vocabulary: a *proxy* with the chain's architecture ("anchor zero") learns from the source, and the chain goes
on from it. Sequence-level, as in the paper: it is trained on text that the source generated (`Generated`,
`Written`). Likelihood-level, beyond the paper: it learns the likelihoods that the source gives to text,
compared over groups of tokens that cover the same bytes (`Scored`, `Bridged`). No torch.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import ClassVar, Literal, Self

from cbd.errors import require
from cbd.recipes.base import Recipe, check_choices
from cbd.recipes.data import Corpus, Pairs, SelfWritten
from cbd.recipes.models import Random, Rotated, Sorted, Transferred, encloses
from cbd.recipes.operators import PATCH, kept
from cbd.recipes.specs import ModelSpec

Divergence = Literal["none", "forward_kl", "reverse_kl", "jsd"]


@dataclass(frozen=True)
class Loss:
    """What training minimises: (1 - cross_entropy) * divergence + cross_entropy * CE, in nats per token.

    divergence: "none" (plain language modelling; `cross_entropy` is then 1), "forward_kl" KL(teacher ||
        student), "reverse_kl" KL(student || teacher) (the paper's), or "jsd", the generalised Jensen-Shannon
        divergence with mixture beta * teacher + (1 - beta) * student (arXiv 2306.13649).
    temperature: divides both logits in the divergence, which is multiplied by its square (arXiv 1503.02531).
    alignment: this times the mean cosine distance between the states after each of the student's blocks and
        after the teacher's blocks that it stands for is added (boomerang distillation, arXiv 2510.05064). Of
        a wider teacher it compares the channels that the student has, which is ours.
    attention: this times the mean of KL(teacher's || student's) over the attention of each head of these
        blocks, to the tokens before, is added (MiniLM's loss, arXiv 2002.10957, which takes it at the last
        block alone; several mapped ones as in TinyBERT, arXiv 1909.10351). Of a teacher with more heads it
        compares those that the student has.
    """

    divergence: Divergence = "none"
    cross_entropy: float = 1.0
    temperature: float = 1.0
    beta: float = 0.5
    alignment: float = 0.0
    attention: float = 0.0

    def __post_init__(self) -> None:
        _check_mixture(self)
        sole = self.divergence != "none" or self.cross_entropy == 1
        require(sole, "without a divergence the loss is cross-entropy alone: set cross_entropy to 1")
        require(0 <= self.beta <= 1, f"beta {self.beta} must lie in [0, 1]")
        fits = min(self.alignment, self.attention) >= 0 and not (self.inner and self.divergence == "none")
        said = f"alignment {self.alignment} and attention {self.attention} must be at least 0"
        require(fits, f"{said}; each needs a teacher: a divergence")

    @property
    def inner(self) -> bool:
        """Whether it compares what happens inside of student and teacher."""
        return self.alignment > 0 or self.attention > 0


def _check_mixture(loss: "Loss | BridgeLoss") -> None:
    check_choices(loss)
    require(0 <= loss.cross_entropy <= 1, f"cross_entropy {loss.cross_entropy} must lie in [0, 1]")
    require(loss.temperature > 0, f"temperature {loss.temperature} must be positive")


@dataclass(frozen=True)
class Training:
    """Everything about a run of the training loop except its model and its data.

    tokens: budget; the run takes `steps` optimiser steps of `batch` sequences of `context` tokens.
    lr: peak learning rate, or a `Search` whose winner is used, and its warm-up.
    schedule: "cosine" to `final` of the peak, or "wsd": constant, then linear to `final` over the last
        `decay` share.
    warmup, warmup_tokens: the linear warm-up as a share of the run, or, where it is given, in tokens.
    accumulation: micro-batches per step and process; the result does not depend on it but for rounding.
    evaluations: points of the validation curve after the one at step zero, log-spaced, the last at the end.
    looks: tokens after which it has a point besides, as where shorter runs end that are compared with it.
    skip: batches of the seed's stream that are left out at its beginning, those that earlier stages saw.
    """

    tokens: int
    lr: "float | Search"
    batch: int = 4
    context: int = 128
    seed: int = 0
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    final: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    accumulation: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluations: int = 8
    evaluation_tokens: int = 16384
    warmup_tokens: int | None = None
    skip: int = 0
    looks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        batch, context, parts = self.batch, self.context, self.accumulation
        sizes = f"batch {batch}, context {context} and accumulation {parts}"
        require(min(batch, context, parts) >= 1, f"{sizes} must be at least 1")
        trains = isinstance(self.lr, Recipe) or self.lr > 0
        require(trains, f"learning rate {self.lr} must be above 0; raise --lr")
        few = f"{self.tokens:,} tokens are fewer than one step of {batch} x {context}; raise the tokens"
        require(self.tokens >= batch * context, few)
        require(batch % parts == 0, f"batch {batch} does not divide into {parts} micro-batches")
        warm = self.warmup_tokens or 0
        require(0 <= warm <= self.tokens, f"a warm-up of {warm:,} tokens must lie in 0..{self.tokens:,}")
        require(self.skip >= 0, f"skip is {self.skip}: a stream begins at batch 0")

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.context)

    @property
    def evaluated_steps(self) -> tuple[int, ...]:
        """Steps after which the loss is measured: 0, log-spaced from 1 % to the end, and those of `looks`."""
        n = max(self.evaluations, 1)
        points = {round(self.steps * 0.01 ** (1 - i / (n - 1))) if n > 1 else self.steps for i in range(n)}
        looks = {min(tokens // (self.batch * self.context), self.steps) for tokens in self.looks}
        return tuple(sorted({0, self.steps} | {max(point, 1) for point in points} | looks))


class Run:
    """What every training is counted by: its `start` and its `training`."""

    start: Recipe
    training: Training

    spec = property(attrgetter("start.spec"))

    @property
    def tokens(self) -> int:
        return self.training.steps * self.training.batch * self.training.context

    @property
    def flops(self) -> int:
        """Training, and the forward passes of the validation curve."""
        looked = len(self.training.evaluated_steps) * self.training.evaluation_tokens
        return self.tokens * self.flops_per_token + looked * self.spec.forward_flops(self.training.context)

    @property
    def flops_per_token(self) -> int:
        return self.spec.training_flops(self.training.context)


@dataclass(frozen=True)
class Trained(Run, Recipe):
    """`start`, trained on next-token cross-entropy."""

    start: Recipe
    corpus: Corpus
    training: Training


@dataclass(frozen=True)
class Anchor(Run, Recipe):
    """One step of the knowledge chain: `start`, distilled from `teacher` (stepwise distillation, section 3).

    `inherited` and `from_random` make the two kinds of start that are compared; a public checkpoint may be
    given as `start` too. shared_vocab: tokens of the one tokenizer whose table teacher and student pad to
    different sizes (such as Qwen's); the divergence leaves the padding out.
    """

    teacher: Recipe
    start: Recipe
    corpus: Corpus
    training: Training
    loss: Loss = Loss("reverse_kl", cross_entropy=0.0)
    shared_vocab: int | None = None

    def __post_init__(self) -> None:
        theirs, ours, shared = self.teacher.spec.vocab, self.start.spec.vocab, self.shared_vocab
        require(
            shared is not None or theirs == ours,
            f"teacher and student have vocabularies of {theirs:,} and {ours:,}: distillation on logits needs "
            "one tokenizer; use a bridge (`Bridged`), or, where the tables are those of one tokenizer padded "
            "differently, name its size as shared_vocab",
        )
        most = min(theirs, ours)
        require(shared is None or 0 < shared <= most, f"shared_vocab {shared} must lie in 1..{most:,}")
        aligns = "alignment compares blocks and channels: start from leading slices of the teacher itself"
        require(not self.loss.inner or self._cut_from_teacher, f"{aligns} (`Anchor.boomerang`)")
        groups = [spec.heads // spec.kv for spec in (self.teacher.spec, self.start.spec)]
        wrong = f"attention compares leading heads, but {groups[0]} and {groups[1]} of them share a key"
        fits = not self.loss.attention or groups[0] == groups[1]
        require(fits, f"{wrong}: choose kv_heads so that they are as many")

    @property
    def flops_per_token(self) -> int:
        """With the teacher's pass, also where its states were read: equal compute hangs on no disk."""
        context = self.training.context
        return self.spec.training_flops(context) + self.teacher.spec.forward_flops(context)

    @classmethod
    def inherited(
        cls,
        teacher: Recipe,
        spec: ModelSpec,
        corpus: Corpus,
        training: Training,
        loss: Loss,
        basis: Sorted | Rotated | None = None,
    ) -> Self:
        """An anchor that starts from the leading slices of its teacher, sorted or in another basis."""
        return cls(teacher, Transferred(basis or Sorted(teacher), spec), corpus, training, loss)

    @classmethod
    def boomerang(cls, teacher: Recipe, layers: int, corpus: Corpus, training: Training, loss: Loss) -> Self:
        """A student cut evenly from the teacher, in depth alone, whose blocks can be put back (`PATCH`)."""
        start = Transferred(teacher, replace(teacher.spec, layers=layers), PATCH.trans)
        return cls(teacher, start, corpus, training, loss)

    @property
    def learns_from_states(self) -> bool:
        """Whether the teacher's final hidden states are all that it gives."""
        return self.loss.divergence != "none" and not self.loss.inner

    @property
    def _cut_from_teacher(self) -> bool:
        """Whether the start is the teacher without blocks and channels that the numbers tell."""
        start, teacher = self.start, self.teacher
        if not isinstance(start, Transferred) or start.model != teacher:
            return False
        told = start.trans.cut_layers != "importance"
        leading = start.spec.width == teacher.spec.width or start.trans.cut_width == "leading"
        return told and leading and encloses(start.spec, teacher.spec, start.spec)

    @property
    def aligned(self) -> tuple[tuple[int, int], ...]:
        """The states that are compared, (student's, teacher's), counted in blocks that come before."""
        if not self.loss.inner:
            return ()
        ours, theirs = self.start.spec.layers, self.teacher.spec.layers
        return tuple(enumerate((*kept(theirs, ours, self.start.trans.cut_layers), theirs)))

    @classmethod
    def from_random(
        cls, teacher: Recipe, spec: ModelSpec, corpus: Corpus, training: Training, loss: Loss
    ) -> Self:
        """An anchor that starts from its own random weights (an *independent* anchor)."""
        return cls(teacher, Random(spec, corpus, training.seed + 1000), corpus, training, loss)


@dataclass(frozen=True)
class Nested(Run, Recipe):
    """One model whose slices are the sizes `specs`, trained all at once: a rival of the whole chain.

    The sandwich rule of slimmable networks (arXiv 1903.05134), which MatFormer (arXiv 2310.07707) brought to
    transformers: each step trains the smallest size, the largest, and `drawn` others, on one batch. Ours:
    every size learns from `teacher` as an anchor does, and slices are cut by Trans in depth and in width.
    The model has the shape of `start`, of which only what lies in the largest size is trained. specs: from
    small to large.
    """

    teacher: Recipe
    start: Recipe
    specs: tuple[ModelSpec, ...]
    corpus: Corpus
    training: Training
    loss: Loss = Loss("reverse_kl", cross_entropy=0.0)
    drawn: int = 2

    def __post_init__(self) -> None:
        sizes = [spec.parameters for spec in self.specs]
        require(len(sizes) > 1 and sizes == sorted(set(sizes)), "a nested run has sizes from small to large")
        outside = [spec.name for spec in self.specs if not encloses(spec, self.start.spec, spec)]
        whole = self.start.spec.name
        require(not outside, f"{', '.join(outside)} cannot be cut from {whole}: choose smaller sizes")

    @property
    def flops_per_token(self) -> int:
        """With the mean of the sizes that may be drawn."""
        context = self.training.context
        first, *inner, last = (spec.training_flops(context) for spec in self.specs)
        others = min(self.drawn, len(inner)) * sum(inner) // max(len(inner), 1)
        return first + others + last + self.teacher.spec.forward_flops(context)


@dataclass(frozen=True)
class Search(Run, Recipe):
    """The rate and warm-up with which `start` ends lowest in validation loss when it is trained so.

    Used as `Training.lr`: the run that uses it then depends on, and pays for, the whole search, which
    `cbd.training.search` describes. It begins at the rate and warm-up of `training`. seeds: orders of
    batches; the first walks the grid, all of them together choose between the two best points. others: what
    the seeds after the first start from, where that is not `start` itself (other draws of random weights).
    least: nats by which a neighbour has to be better for the walk to go on from there.
    """

    version: ClassVar[int] = 2  # its grid reaches a warm-up of the whole run

    start: Recipe
    corpus: Corpus
    training: Training
    seeds: tuple[int, ...]
    others: tuple[Recipe, ...] = ()
    least: float = 0.0

    def __post_init__(self) -> None:
        begins = isinstance(self.training.lr, float) and self.training.warmup_tokens
        require(begins, "a search begins at a rate and at a warm-up in tokens: give both")
        require(self.seeds, "a search needs at least one seed")
        each = not self.others or len(self.others) == len(self.seeds) - 1
        require(each, "a search that names other starts names one for each seed after the first")

    @property
    def starts(self) -> tuple[Recipe, ...]:
        """What each seed starts from."""
        return (self.start, *(self.others or (self.start,) * (len(self.seeds) - 1)))

    @property
    def fewest(self) -> int:
        """Runs of a search whose beginning is best: it, its four neighbours, and two with the other seeds."""
        return 5 + 2 * (len(self.seeds) - 1)

    @property
    def tokens(self) -> int:
        """Of the fewest runs; the record of a finished search has those of all."""
        return self.fewest * super().tokens

    @property
    def flops(self) -> int:
        """As `tokens`."""
        run = Trained(self.start, self.corpus, self.training)
        return self.fewest * run.flops


@dataclass(frozen=True)
class Fitted(Recipe):
    """Two anchors mixed by union, with alphas found by gradient descent on alpha alone: no weight is trained.

    Ours; arXiv 2605.07783 sets alpha by hand. It begins at the rule's alpha. per: what has an alpha of its
    own: the model, each block (what lies outside of them is one more), or each tensor. training: the text
    and its order; its lr is Adam's for the alphas, and falls to nothing along a cosine.
    """

    light = True

    small: Recipe
    large: Recipe
    spec: ModelSpec
    corpus: Corpus
    training: Training
    per: Literal["model", "block", "tensor"] = "tensor"

    __post_init__ = check_choices

    @property
    def tokens(self) -> int:
        return self.training.steps * self.training.batch * self.training.context

    @property
    def flops(self) -> int:
        """A whole backward pass each step, as in training."""
        return self.tokens * self.spec.training_flops(self.training.context)


@dataclass(frozen=True)
class Scored(Recipe):
    """The likelihoods that `teacher` gives to the first `sample` training tokens of `corpus`.

    A likelihood a group of tokens that covers the same bytes in both vocabularies. context: tokens that the
    teacher sees at most, half of them only as context. top: how many sorted probabilities of its next token
    are kept after each group (for `BridgeLoss("uld")`).
    """

    teacher: Recipe
    corpus: Corpus | SelfWritten
    sample: int
    context: int = 256
    top: int = 32

    spec = property(attrgetter("teacher.spec"))

    @cached_property
    def inputs(self) -> tuple[Recipe, ...]:
        """A corpus that a source wrote holds its tokens; the documents are in the texts that it came from."""
        texts = self.corpus.texts if isinstance(self.corpus, SelfWritten) else ()
        return (self.teacher, self.corpus, *texts)

    @property
    def flops(self) -> int:
        """Counted as if the teacher's tokens were as many as the corpus'; each is seen twice."""
        return 2 * self.sample * self.spec.forward_flops(self.context)


@dataclass(frozen=True)
class BridgeLoss:
    """(1 - cross_entropy) * divergence + cross_entropy * CE, in nats per token of the student.

    divergence: "alm", between the probabilities p and q that teacher and student give to a group of tokens:
    KL(Bernoulli(p^(1/temperature)) || Bernoulli(q^(1/temperature))) * temperature, after approximate
    likelihood matching (tokenkit; arXiv 2503.20083). "uld": the sum of absolute differences between the
    sorted next-token probabilities after each group, after universal logit distillation (arXiv 2402.12030).
    """

    divergence: Literal["alm", "uld"] = "alm"
    cross_entropy: float = 0.5
    temperature: float = 100.0

    __post_init__ = _check_mixture


@dataclass(frozen=True)
class Bridged(Run, Recipe):
    """`start`, trained to match a teacher of another vocabulary: the likelihood-level bridge.

    It sees only the text that was scored.
    """

    start: Recipe
    scored: Scored
    training: Training
    loss: BridgeLoss = BridgeLoss()

    corpus = property(attrgetter("scored.corpus"))

    def __post_init__(self) -> None:
        enough = self.loss.divergence != "uld" or self.scored.top > 0
        require(enough, "uld needs sorted probabilities: score with top > 0")


@dataclass(frozen=True)
class Tuned(Run, Recipe):
    """`start`, fine-tuned on prompts and responses; the loss is on the responses alone.

    training.tokens is a budget of places, padding included: `steps` batches of `batch` pairs.
    """

    light = True

    start: Recipe
    pairs: Pairs
    training: Training
