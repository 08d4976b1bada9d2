"""Recipes of bridge distillation: how a chain begins at a source of another architecture or vocabulary.

Chain-based Distillation (arXiv 2605.07783, section 3): a *proxy* with the chain's architecture ("anchor
zero") learns from the source, and the chain goes on from it. Sequence-level, as in the paper: it is trained
on text that the source generated (`Generated`, `Written`), so that vocabularies need not match.
Likelihood-level, beyond the paper: it learns the likelihoods that the source gives to text, compared over
groups of tokens that cover the same bytes (`Scored`, `Bridged`). Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cbd.errors import CbdError
from cbd.recipes import Corpus, Recipe, Trained, Training
from cbd.specs import ModelSpec


@dataclass(frozen=True)
class Sampling:
    """How the source writes.

    documents: how many continuations. prompt: tokens of a training document's beginning that are given. new:
    tokens written at most (fewer where the source ends its text). temperature, top_k: the distribution that
    is sampled (0: all tokens). batch: continuations written side by side.
    """

    documents: int
    prompt: int = 16
    new: int = 112
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch: int = 64

    def __post_init__(self) -> None:
        if min(self.documents, self.prompt, self.new, self.batch) < 1:
            raise CbdError("documents, prompt, new and batch of a sampling must be at least 1")
        if self.temperature <= 0 or self.top_k < 0:
            raise CbdError(
                f"temperature {self.temperature} must be positive and top_k {self.top_k} not negative"
            )


@dataclass(frozen=True)
class Generated(Recipe):
    """Text that `source` wrote: continuations of the beginnings of the corpus' training documents.

    Shared by all that name the same source, corpus and sampling.
    """

    source: Recipe
    corpus: Corpus
    sampling: Sampling

    @property
    def spec(self) -> ModelSpec:
        return self.source.spec

    @property
    def flops(self) -> int:
        """One forward pass a token, at most, thanks to the key-value cache."""
        length = self.sampling.prompt + self.sampling.new
        return self.sampling.documents * length * self.source.spec.forward_flops(length)


@dataclass(frozen=True)
class Written(Recipe):
    """Generated text as training data, in the ids of the corpus' tokenizer.

    The held-out splits are the corpus' own, so that curves compare.
    """

    text: Generated
    corpus: Corpus


@dataclass(frozen=True)
class Scored(Recipe):
    """The likelihoods that `teacher` gives to the first `sample` training tokens of `corpus`.

    A likelihood a group of tokens that covers the same bytes in both vocabularies. context: tokens that the
    teacher sees at most, half of them only as context. top: how many sorted probabilities of its next token
    are kept after each group (for `BridgeLoss("uld")`).
    """

    teacher: Recipe
    corpus: Corpus
    sample: int
    context: int = 256
    top: int = 32

    @property
    def spec(self) -> ModelSpec:
        return self.teacher.spec

    @property
    def flops(self) -> int:
        """Counted as if the teacher's tokens were as many as the corpus'; each is seen twice."""
        return 2 * self.sample * self.teacher.spec.forward_flops(self.context)


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

    def __post_init__(self) -> None:
        if self.divergence not in ("alm", "uld"):
            raise CbdError(f"divergence {self.divergence!r} across vocabularies: choose alm or uld")
        if not 0 <= self.cross_entropy <= 1:
            raise CbdError(f"cross_entropy {self.cross_entropy} must lie in [0, 1]")
        if self.temperature <= 0:
            raise CbdError(f"temperature {self.temperature} must be positive")


@dataclass(frozen=True)
class Bridged(Recipe):
    """`start`, trained to match a teacher of another vocabulary: the likelihood-level bridge.

    It sees only the text that was scored.
    """

    start: Recipe
    scored: Scored
    training: Training
    loss: BridgeLoss = BridgeLoss()

    spec = Trained.spec
    tokens = Trained.tokens
    flops = Trained.flops
    flops_per_token = Trained.flops_per_token

    def __post_init__(self) -> None:
        if self.loss.divergence == "uld" and not self.scored.top:
            raise CbdError("uld needs sorted probabilities: score with top > 0")

    @property
    def corpus(self) -> Corpus:
        return self.scored.corpus


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

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def flops(self) -> int:
        """Counted as if a token were three bytes."""
        return self.sample // 3 * self.model.spec.forward_flops(self.window // 3)
