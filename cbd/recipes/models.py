"""Recipes of models that exist or come from others without training, and of the text that one writes."""

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal

from cbd.errors import CbdError, require
from cbd.recipes.base import Recipe, check_choices
from cbd.recipes.data import Corpus
from cbd.recipes.operators import LITERAL, Operator, Trans
from cbd.recipes.specs import ModelSpec


@dataclass(frozen=True)
class Source(Recipe):
    """A model that exists already: a hub id, a local folder in Hugging Face's format, or a GGUF file.

    What is local is named by its content (`fingerprint`), a hub id by id and revision, a file inside a pip
    package by its release. `cbd.models.sources.local` and `.hub` make them.

    location: the folder. package: the pip package, "name==version", that holds `gguf`. gguf: the file's name;
    it is turned into a Hugging Face checkpoint, in fp32. parts: the pip packages that hold it in pieces, in
    order; `fingerprint` is then the whole file's SHA-256.
    """

    name: str
    spec: ModelSpec
    location: str = field(default="", metadata={"key": False})
    revision: str | None = None
    fingerprint: str = ""
    package: str = ""
    gguf: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Random(Recipe):
    """A model initialised at random by its Hugging Face class, with the corpus' tokenizer beside it."""

    light = True

    spec: ModelSpec
    corpus: Corpus
    seed: int = 0


@dataclass(frozen=True)
class Sorted(Recipe):
    """`model`, its channels, heads and neurons permuted by falling importance: the same function, to slice.

    Anchors inherit leading slices of it, so a target between the two shares one basis with both.
    """

    light = True

    model: Recipe

    spec = property(attrgetter("model.spec"))


@dataclass(frozen=True)
class Rotated(Recipe):
    """`model` in its principal axes on the first `sample` training tokens of a corpus, to slice.

    The same function, but for a tied head's last gain (`cbd.models.rotation`; SliceGPT, arXiv 2401.15024).
    Heads and neurons are ordered by what they add to the stream there. context: tokens a row. axes: where
    False, channels are ordered by how much of the stream they carry instead (the importance of Minitron,
    arXiv 2407.14679, and of weight subcloning, arXiv 2312.09299): the same function without any loss.
    """

    model: Recipe
    corpus: Corpus
    sample: int = 16384
    context: int = 128
    axes: bool = True

    spec = property(attrgetter("model.spec"))

    @property
    def flops(self) -> int:
        """One forward pass."""
        return self.sample * self.spec.forward_flops(self.context)


@dataclass(frozen=True)
class Pruned(Recipe):
    """`model` with fewer blocks: one by one those are left out that it misses least.

    Greedy, on the first `sample` training tokens of a corpus. keep: how many blocks stay in any case, counted
    from both ends: those that a smaller anchor stands for, so that it can still be mixed in. context: tokens
    a row. precision: as in `Evaluated`.

    score: what says how much a block is missed: the "loss" itself (SLEB, arXiv 2402.09025, has the same
        rule), the "kl" divergence from the whole model, or how far the "logits" that are its highest turn
        away from it (the Logit Disruption Score, `cbd.training.judge`).
    corrected: whether the norms behind a gap get the whole model's mean and variance back there (Activation
        Statistics Correction, `cbd.models.correction`).
    """

    light = True

    model: Recipe
    layers: int
    corpus: Recipe
    keep: int = 0
    sample: int = 4096
    context: int = 256
    precision: Literal["fp32", "bf16"] = "fp32"
    score: Literal["loss", "kl", "logits"] = "loss"
    corrected: bool = False

    __post_init__ = check_choices

    @property
    def spec(self) -> ModelSpec:
        return replace(self.model.spec, layers=self.layers)

    @property
    def flops(self) -> int:
        """A pass of all blocks, and in each round that of every trial, on half of the blocks on average."""
        passes = self.sample * self.model.spec.forward_flops(self.context)
        rounds = range(self.layers + 1, self.model.spec.layers + 1)
        more = passes + self.sample * self.spec.forward_flops(self.context) if self.corrected else 0
        return passes + sum(passes * (left - self.keep) // 2 for left in rounds) + more


@dataclass(frozen=True)
class Factorised(Recipe):
    """`model` at another depth, made of factors that its blocks share (`cbd.models.factors`).

    share: of the directions of each matrix that the factors keep.
    """

    light = True

    model: Recipe
    layers: int
    share: float = 0.5

    @property
    def spec(self) -> ModelSpec:
        return replace(self.model.spec, layers=self.layers)


@dataclass(frozen=True)
class Patched(Recipe):
    """A boomerang student with its teacher's blocks put back, in the order that brings it nearest to it.

    Nearest: by the KL divergence from the teacher on the first `sample` training tokens of a corpus; greedy,
    a group of blocks at a time (`cbd.training.patching`). The paper's order is that of the blocks
    (`operators.patched`). student: cut evenly from the teacher. context, precision: as in `Pruned`.
    """

    student: Recipe
    teacher: Recipe
    layers: int
    corpus: Recipe
    sample: int = 4096
    context: int = 256
    precision: Literal["fp32", "bf16"] = "fp32"

    __post_init__ = check_choices

    @property
    def spec(self) -> ModelSpec:
        return replace(self.teacher.spec, layers=self.layers)

    @property
    def flops(self) -> int:
        """The teacher's pass, and in each round one of every trial, as deep as the target at most."""
        ours, theirs = (self.sample * s.forward_flops(self.context) for s in (self.spec, self.teacher.spec))
        rounds = range(self.layers - self.student.spec.layers)
        return theirs + sum(ours * max(self.student.spec.layers - done, 0) for done in rounds)


@dataclass(frozen=True)
class Transferred(Recipe):
    """Trans(model) at another shape: one anchor alone, cut or grown."""

    light = True

    model: Recipe
    spec: ModelSpec
    trans: Trans = Trans()


@dataclass(frozen=True)
class Learngene(Recipe):
    """Random weights below the last blocks of `model`: Learngene (arXiv 2305.02279), a rival of the paper.

    A few whole layers of a large model, the learngene, are put above layers that are drawn at random. Which,
    and what of a language model's embeddings, is left open; ours: by Trans the last half of the target's
    blocks, and everything else is random.
    """

    light = True

    model: Recipe
    spec: ModelSpec
    corpus: Corpus
    seed: int = 0

    @property
    def first(self) -> int:
        """The lowest block that is inherited."""
        return self.spec.layers // 2


@dataclass(frozen=True)
class Interpolated(Recipe):
    """alpha * Trans(small) + (1 - alpha) * Trans(large): the paper's initialisation (section 3).

    alpha: a number in [0, 1], or "distance": (N_large - N_target) / (N_large - N_small), in parameters.
    """

    light = True

    small: Recipe
    large: Recipe
    spec: ModelSpec
    alpha: float | Literal["distance"] = "distance"
    operator: Operator = LITERAL

    def __post_init__(self) -> None:
        if isinstance(self.alpha, int):
            object.__setattr__(self, "alpha", float(self.alpha))  # 1 and 1.0 are one recipe: one key


@dataclass(frozen=True)
class Chain:
    """A knowledge chain: the source and its anchors, from large to small."""

    models: tuple[Recipe, ...]

    def pair_around(self, spec: ModelSpec) -> tuple[Recipe, Recipe]:
        """The two adjacent anchors (small, large) between whose sizes `spec` lies.

        The large one is read as its successor inherited it, so that both share one basis. Raises `CbdError`
        when no pair encloses the shape.
        """
        for large, small in zip(self.models, self.models[1:], strict=False):
            if encloses(small.spec, large.spec, spec):
                return small, aligned(large, small)
        chain = " > ".join(model.spec.name for model in self.models)
        raise CbdError(
            f"{spec.name} lies between no two neighbours of the chain {chain}; choose one inside it"
        )


def encloses(small: ModelSpec, large: ModelSpec, spec: ModelSpec) -> bool:
    """Whether `spec` lies between the two on both axes."""
    return small.layers <= spec.layers <= large.layers and small.width <= spec.width <= large.width


def aligned(large: Recipe, small: Recipe) -> Recipe:
    """`large` in the basis that `small` inherited, or as it is when `small` is independent of it."""
    start = getattr(small, "start", None)
    basis = getattr(start, "model", None)
    if isinstance(start, Transferred) and isinstance(basis, Sorted | Rotated) and basis.model == large:
        return basis
    return large


@dataclass(frozen=True)
class Sampling:
    """How the source writes.

    documents: how many texts. opening: what each begins with. "document": the first `prompt` tokens of a
        training document; "text": nothing but the token that begins a text; "user": the chat template up to
        the empty user turn, which the source fills, in at most half of its tokens, and then answers (the
        self-synthesis of Magpie, arXiv 2406.08464).
    new: tokens written at most (fewer where the source ends its text). batch: texts written side by side.
    temperature, top_k (0: all tokens), top_p: the distribution that is sampled.
    precision: of the weights on a CPU; on cards they are bf16.
    """

    documents: int
    prompt: int = 16
    new: int = 112
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0
    batch: int = 64
    opening: Literal["document", "text", "user"] = "document"
    top_p: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        check_choices(self)
        least = min(self.documents, self.prompt, self.new, self.batch)
        require(least >= 1, "documents, prompt, new and batch of a sampling must be at least 1")
        asked = f"temperature {self.temperature} must be positive and top_k {self.top_k} not negative"
        require(self.temperature > 0 and self.top_k >= 0, asked)
        require(0 < self.top_p <= 1, f"top_p {self.top_p} must lie in (0, 1]")
        enough = self.opening != "user" or self.new >= 2
        require(enough, "a user turn and its answer need at least 2 new tokens")


@dataclass(frozen=True)
class Generated(Recipe):
    """Text that `source` wrote: continuations of the corpus' training documents, or, with none, from nothing.

    Shared by all that name the same source, corpus and sampling.
    """

    source: Recipe
    corpus: Corpus | None
    sampling: Sampling

    spec = property(attrgetter("source.spec"))

    def __post_init__(self) -> None:
        told = (self.corpus is not None) == (self.sampling.opening == "document")
        require(told, "only text that continues documents has a corpus, and that needs one")

    @property
    def flops(self) -> int:
        """One forward pass a token, at most, thanks to the key-value cache."""
        length = self.sampling.new + (self.sampling.prompt if self.corpus else 0)
        return self.sampling.documents * length * self.spec.forward_flops(length)
