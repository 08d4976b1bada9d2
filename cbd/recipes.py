"""Recipes: every model and measurement of the paper as a frozen dataclass that names its inputs.

A recipe does nothing. `cbd.realize.realize` makes it, `cbd.costs` counts it, and `Recipe.key` names it: a
hash of the recipe's own fields, its inputs' keys and the version of the step that makes it. Nothing here
imports torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Literal

from cbd.errors import CbdError
from cbd.operators import LITERAL, Operator, Trans
from cbd.specs import ModelSpec


@dataclass(frozen=True)
class Recipe:
    """What every recipe shares.

    `version` is raised by hand in a subclass when the step's *result* changes, so that moving code keeps
    finished work and changing its meaning does not.
    """

    version: ClassVar[int] = 1

    @cached_property
    def key(self) -> str:
        """Twenty hexadecimal digits that name this recipe's content, never its files' times or places."""
        content = {"recipe": type(self).__name__, "version": self.version, "fields": _content(self)}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def inputs(self) -> tuple[Recipe, ...]:
        """The recipes that must be finished before this one, in the order of the fields."""
        return tuple(_recipes_in(self))

    @property
    def flops(self) -> int:
        """What this step itself costs, without its inputs (`cbd.costs.flops` counts the whole tree)."""
        return 0

    @property
    def tokens(self) -> int:
        """Training tokens that this step itself consumes."""
        return 0

    def describe(self) -> dict[str, Any]:
        """This step's own fields as JSON, its inputs by key, defaults left out."""
        return {"recipe": type(self).__name__, "version": self.version} | _content(self, places=True)

    def tree(self) -> dict[str, Any]:
        """Everything that the recipe is made from, itself last: key -> description. Its provenance."""
        return {key: recipe.describe() for key, recipe in walk([self]).items()}


def _content(item: Any, places: bool = False) -> Any:
    """A value as the key sees it: an input by its key, fields marked `key=False` left out (unless `places`).

    So is a field at its default: an option added later keeps the work that was finished without it.
    """
    if is_dataclass(item):
        values = {
            f.name: getattr(item, f.name) for f in fields(item) if places or f.metadata.get("key", True)
        }
        changed = {
            name: value for name, value in values.items() if value != _defaults(type(item)).get(name, _NONE)
        }
        return {n: v.key if isinstance(v, Recipe) else _content(v, places) for n, v in changed.items()}
    if isinstance(item, (tuple, list)):
        return [value.key if isinstance(value, Recipe) else _content(value, places) for value in item]
    return item


_NONE = object()


@cache
def _defaults(kind: type) -> dict[str, Any]:
    made = {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}
    return made | {f.name: f.default for f in fields(kind) if f.default is not MISSING}


def _recipes_in(item: Any) -> Iterator[Recipe]:
    values = [getattr(item, f.name) for f in fields(item)] if is_dataclass(item) else item
    for value in values:
        if isinstance(value, Recipe):
            yield value
        elif is_dataclass(value) or isinstance(value, (tuple, list)):
            yield from _recipes_in(value)


@dataclass(frozen=True)
class Corpus(Recipe):
    """Text, its split by document and its tokenizer, packed into ids.

    kind: "embedded" (text inside pip packages), "folder" (.txt or .jsonl files) or "hub" (a data set that the
        `datasets` library can load, by name or as a local folder of that format).
    location: the folder or data set name; a folder's place is not part of the key, its `fingerprint` (hash of
        the files' content) is.
    vocab_size: size of the byte-level BPE to train on the training split; ignored when `tokenizer` names a
        folder or hub id whose tokenizer is used instead.
    """

    kind: Literal["embedded", "folder", "hub"] = "embedded"
    name: str = "embedded"
    location: str = field(default="", metadata={"key": False})
    config: str | None = None
    column: str = "text"
    fingerprint: str = ""
    vocab_size: int = 2048
    tokenizer: str | None = None
    held_out: float = 0.04
    max_documents: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.held_out <= 0.25:
            raise CbdError(
                f"held_out is {self.held_out}: the share of each held-out split must lie in (0, 0.25]"
            )
        if self.tokenizer is None and self.vocab_size < 257:
            raise CbdError(
                f"vocab_size {self.vocab_size} is too small: 256 bytes and one end-of-text token need 257"
            )


@dataclass(frozen=True)
class Loss:
    """What training minimises: (1 - cross_entropy) * divergence + cross_entropy * CE, in nats per token.

    divergence: "none" (plain language modelling; `cross_entropy` is then 1), "forward_kl" KL(teacher ||
        student), "reverse_kl" KL(student || teacher) (the paper's), or "jsd", the generalised Jensen-Shannon
        divergence with mixture beta * teacher + (1 - beta) * student (arXiv 2306.13649).
    temperature: divides both logits in the divergence, which is multiplied by its square (arXiv 1503.02531).
    """

    divergence: Literal["none", "forward_kl", "reverse_kl", "jsd"] = "none"
    cross_entropy: float = 1.0
    temperature: float = 1.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        if self.divergence not in ("none", "forward_kl", "reverse_kl", "jsd"):
            raise CbdError(f"divergence {self.divergence!r}: choose none, forward_kl, reverse_kl or jsd")
        if not 0 <= self.cross_entropy <= 1:
            raise CbdError(f"cross_entropy {self.cross_entropy} must lie in [0, 1]")
        if self.divergence == "none" and self.cross_entropy != 1:
            raise CbdError("without a divergence the loss is cross-entropy alone: set cross_entropy to 1")
        if self.temperature <= 0:
            raise CbdError(f"temperature {self.temperature} must be positive")
        if not 0 <= self.beta <= 1:
            raise CbdError(f"beta {self.beta} must lie in [0, 1]")


@dataclass(frozen=True)
class Training:
    """Everything about a run of the training loop except its model and its data.

    tokens: budget; the run takes `steps` optimiser steps of `batch` sequences of `context` tokens.
    lr: peak learning rate, or a `TunedRate` whose winner is used.
    schedule: "cosine" to `final` of the peak, or "wsd": constant, then linear to `final` over the last
        `decay` share.
    accumulation: micro-batches per step and process; the result does not depend on it but for rounding.
    evaluations: points of the validation curve after the one at step zero, log-spaced, the last at the end.
    """

    tokens: int
    lr: float | TunedRate
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

    def __post_init__(self) -> None:
        if min(self.batch, self.context, self.accumulation) < 1:
            raise CbdError(
                f"batch {self.batch}, context {self.context} and accumulation {self.accumulation} must be "
                f"at least 1"
            )
        if self.precision not in ("fp32", "bf16"):
            raise CbdError(f"precision {self.precision!r}: choose fp32 or bf16")
        if self.tokens < self.batch * self.context:
            raise CbdError(
                f"{self.tokens:,} tokens are fewer than one step of {self.batch} x {self.context}; raise "
                f"the tokens"
            )
        if self.batch % self.accumulation:
            raise CbdError(f"batch {self.batch} does not divide into {self.accumulation} micro-batches")
        if self.schedule not in ("cosine", "wsd"):
            raise CbdError(f"schedule {self.schedule!r}: choose cosine or wsd")

    @property
    def steps(self) -> int:
        return self.tokens // (self.batch * self.context)

    @property
    def evaluated_steps(self) -> tuple[int, ...]:
        """Steps after which the validation loss is measured: 0, then log-spaced from 1 % to the end."""
        n = max(self.evaluations, 1)
        points = {round(self.steps * 0.01 ** (1 - i / (n - 1))) if n > 1 else self.steps for i in range(n)}
        return tuple(sorted({0, self.steps} | {max(point, 1) for point in points}))


@dataclass(frozen=True)
class Source(Recipe):
    """A model that exists already: a hub id, a local folder in Hugging Face's format, or a GGUF file.

    What is local is named by its content (`fingerprint`), a hub id by id and revision, a file inside a pip
    package by its release. `cbd.sources.local` and `.hub` make them.

    location: the folder. package: the pip package, "name==version", that holds `gguf`. gguf: the file's name;
    it is turned into a Hugging Face checkpoint, in fp32.
    """

    name: str
    spec: ModelSpec
    location: str = field(default="", metadata={"key": False})
    revision: str | None = None
    fingerprint: str = ""
    package: str = ""
    gguf: str = ""


@dataclass(frozen=True)
class Random(Recipe):
    """A model initialised at random by its Hugging Face class, with the corpus' tokenizer beside it."""

    spec: ModelSpec
    corpus: Corpus
    seed: int = 0


@dataclass(frozen=True)
class Sorted(Recipe):
    """`model` with channels, heads and neurons permuted by falling importance: the same function, ready to
    slice.

    Anchors inherit leading slices of it, so a target between the two shares one basis with both.
    """

    model: Recipe

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec


@dataclass(frozen=True)
class Transferred(Recipe):
    """Trans(model) at another shape: one anchor alone, cut or grown."""

    model: Recipe
    spec: ModelSpec
    trans: Trans = field(default_factory=Trans)


@dataclass(frozen=True)
class Interpolated(Recipe):
    """alpha * Trans(small) + (1 - alpha) * Trans(large): the paper's initialisation (section 3).

    alpha: a number in [0, 1], or "distance": (N_large - N_target) / (N_large - N_small), in parameters.
    """

    small: Recipe
    large: Recipe
    spec: ModelSpec
    alpha: float | Literal["distance"] = "distance"
    operator: Operator = LITERAL

    def __post_init__(self) -> None:
        if isinstance(self.alpha, int):
            object.__setattr__(self, "alpha", float(self.alpha))  # 1 and 1.0 are one recipe: one key


@dataclass(frozen=True)
class Trained(Recipe):
    """`start`, trained on next-token cross-entropy."""

    start: Recipe
    corpus: Corpus
    training: Training

    teacher: ClassVar[None] = None
    loss: ClassVar[Loss] = Loss()

    @property
    def spec(self) -> ModelSpec:
        return self.start.spec

    @property
    def tokens(self) -> int:
        return self.training.steps * self.training.batch * self.training.context

    @property
    def flops(self) -> int:
        return self.tokens * self.flops_per_token + evaluation_flops(self.spec, self.training)

    @property
    def flops_per_token(self) -> int:
        return self.spec.training_flops(self.training.context)


@dataclass(frozen=True)
class Anchor(Recipe):
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

    spec = Trained.spec
    tokens = Trained.tokens
    flops = Trained.flops

    def __post_init__(self) -> None:
        sizes = self.teacher.spec.vocab, self.start.spec.vocab
        if self.shared_vocab is None and sizes[0] != sizes[1]:
            raise CbdError(
                f"teacher and student have vocabularies of {sizes[0]:,} and {sizes[1]:,}: distillation on "
                f"logits needs one tokenizer; use a bridge (cbd.bridges), or, where the tables are those of "
                f"one tokenizer padded differently, name its size as shared_vocab"
            )
        if self.shared_vocab is not None and not 0 < self.shared_vocab <= min(sizes):
            raise CbdError(f"shared_vocab {self.shared_vocab:,} must lie in 1..{min(sizes):,}")

    @property
    def flops_per_token(self) -> int:
        context = self.training.context
        return self.spec.training_flops(context) + self.teacher.spec.forward_flops(context)

    @classmethod
    def inherited(
        cls, teacher: Recipe, spec: ModelSpec, corpus: Corpus, training: Training, loss: Loss
    ) -> Anchor:
        """An anchor that starts from the leading slices of its sorted teacher."""
        return cls(teacher, Transferred(Sorted(teacher), spec), corpus, training, loss)

    @classmethod
    def from_random(
        cls, teacher: Recipe, spec: ModelSpec, corpus: Corpus, training: Training, loss: Loss
    ) -> Anchor:
        """An anchor that starts from its own random weights (an *independent* anchor)."""
        return cls(teacher, Random(spec, corpus, training.seed + 1000), corpus, training, loss)


def evaluation_flops(spec: ModelSpec, training: Training) -> int:
    """The forward passes of a run's validation curve."""
    points = len(training.evaluated_steps)
    return points * training.evaluation_tokens * spec.forward_flops(training.context)


@dataclass(frozen=True)
class Evaluated(Recipe):
    """The loss of `model` on the first `sample` tokens of a held-out split, in nats per token and bits per
    byte.
    """

    model: Recipe
    corpus: Corpus
    sample: int = 16384
    context: int = 128
    split: Literal["train", "validation", "test"] = "validation"

    @property
    def spec(self) -> ModelSpec:
        return self.model.spec

    @property
    def flops(self) -> int:
        return self.sample * self.spec.forward_flops(self.context)


@dataclass(frozen=True)
class TunedRate(Recipe):
    """The learning rate with the lowest final validation loss among `candidates`, equal but for their rate.

    Used as `Training.lr`: the run that uses it then depends on, and pays for, the whole search.
    """

    candidates: tuple[Trained | Anchor, ...]

    @classmethod
    def search(cls, run: Trained | Anchor, rates: Iterable[float]) -> TunedRate:
        """A search over `rates` for the run given (whose own rate is ignored)."""
        return cls(tuple(replace(run, training=replace(run.training, lr=rate)) for rate in rates))

    @property
    def beyond(self) -> tuple[Trained | Anchor, ...]:
        """The runs at half the lowest and at twice the highest rate.

        Not to choose from: they show whether the search reached far enough for its winner to be the best.
        """
        rates = [run.training.lr for run in self.candidates]
        return self.search(self.candidates[0], (min(rates) / 2, max(rates) * 2)).candidates


@dataclass(frozen=True)
class Chain:
    """A knowledge chain: the source and its anchors, from large to small."""

    models: tuple[Recipe, ...]

    def pair_around(self, spec: ModelSpec) -> tuple[Recipe, Recipe]:
        """The two adjacent anchors (small, large) between whose sizes `spec` lies.

        The large one is sorted as its successor inherited it, so that both share one basis. Raises `CbdError`
        when no pair encloses the shape.
        """
        for large, small in zip(self.models, self.models[1:], strict=False):
            if encloses(small.spec, large.spec, spec):
                return small, aligned(large, small)
        raise CbdError(
            f"{spec.name} lies between no two neighbours of the chain "
            f"{' > '.join(model.spec.name for model in self.models)}; choose a size inside it"
        )


def encloses(small: ModelSpec, large: ModelSpec, spec: ModelSpec) -> bool:
    """Whether `spec` lies between the two on both axes."""
    return small.layers <= spec.layers <= large.layers and small.width <= spec.width <= large.width


def aligned(large: Recipe, small: Recipe) -> Recipe:
    """`large` in the basis that `small` inherited, or as it is when `small` is independent of it."""
    start = getattr(small, "start", None)
    if isinstance(start, Transferred) and isinstance(start.model, Sorted) and start.model.model == large:
        return start.model
    return large


def walk(recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    """All recipes that these need, each once, inputs before what uses them, by key."""
    found: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.key not in found:
            for source in recipe.inputs:
                visit(source)
            found[recipe.key] = recipe

    for recipe in recipes:
        visit(recipe)
    return found
