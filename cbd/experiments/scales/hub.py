"""What the scales share that begin at public models and data of the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cbd.experiments.scales.base import Bridge, Evaluation
from cbd.recipes.data import Corpus, Pairs
from cbd.recipes.evaluation import DOLLY, XLSUM
from cbd.recipes.models import Sampling, Source
from cbd.recipes.specs import (
    GPT2_B,
    GPT2_L,
    GPT2_M,
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
    ModelSpec,
    pythia,
)
from cbd.recipes.training import Training


def hub_bridge(training: Training, documents: int, proxy: ModelSpec, anchors, target: ModelSpec) -> Bridge:
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


def hub_evaluation(training: Training) -> Evaluation:
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


OPENWEBTEXT = Corpus(
    kind="hub", name="Skylion007/openwebtext", tokenizer="openai-community/gpt2", held_out=0.005
)


def public(name: str, spec: ModelSpec) -> Source:
    return Source(f"openai-community/{name}", spec, revision="main")


@dataclass(frozen=True)
class Public:
    """Two public checkpoints of a family, and sizes between them: `cbd run public_checkpoints`."""

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
    Public(public("gpt2", GPT2_B), public("gpt2-medium", GPT2_M), (SLM_138M, SLM_220M)),
    Public(public("gpt2-medium", GPT2_M), public("gpt2-large", GPT2_L), (SLM_380M, SLM_537M)),
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
WIKITEXT = Corpus(kind="hub", name="Salesforce/wikitext", config="wikitext-2-raw-v1", held_out=0.05)
