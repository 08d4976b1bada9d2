"""What the scales share that begin at public models and data of the hub."""

from dataclasses import dataclass, replace

from cbd.experiments.scales.base import Bridge, Decisions, Evaluation
from cbd.recipes.data import Corpus, Pairs
from cbd.recipes.evaluation import DOLLY, XLSUM
from cbd.recipes.models import Sampling, Source
from cbd.recipes.specs import NAMED, ModelSpec, pythia
from cbd.recipes.training import Training

CHECKPOINTS = {
    "GPT2-B": "openai-community/gpt2",
    "GPT2-M": "openai-community/gpt2-medium",
    "GPT2-L": "openai-community/gpt2-large",
    "GPT2-XL": "openai-community/gpt2-xl",
    "Llama3-8B": "meta-llama/Meta-Llama-3-8B",
    "Pythia-70m": "EleutherAI/pythia-70m",
    "Pythia-160m": "EleutherAI/pythia-160m",
    "Pythia-410m": "EleutherAI/pythia-410m",
    "Qwen3-0.6B": "Qwen/Qwen3-0.6B",
    "Qwen3-1.7B": "Qwen/Qwen3-1.7B",
    "Qwen3-4B": "Qwen/Qwen3-4B",
}


def public(name: str) -> Source:
    """The public checkpoint of a named shape."""
    return Source(CHECKPOINTS[name], NAMED[name], revision="main")


def hub_bridge(training: Training, documents: int, proxy: Source, anchors, target: ModelSpec) -> Bridge:
    """The paper's bridged sources, Llama3-8B and Qwen3-4B; its sampling is not stated: ours."""
    return Bridge(
        sources=(public("Llama3-8B"), public("Qwen3-4B")),
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


HUB_DECISIONS = Decisions((0.25, 0.5, 0.75, 0.8, 0.9, 1.0), ("hellaswag", "piqa", "arc_easy"), limit=1000)
OPENWEBTEXT = Corpus(
    kind="hub", name="Skylion007/openwebtext", tokenizer="openai-community/gpt2", held_out=0.005
)


@dataclass(frozen=True)
class Public:
    """Two public checkpoints of a family, and sizes between them: `cbd run public_checkpoints`."""

    small: Source
    large: Source
    targets: tuple[ModelSpec, ...]


# The paper's targets, as far as they lie between two checkpoints: its 51 M lies below every pair of GPT-2's
# (and of Pythia's: 6x512 to 12x768 begins at 70 M). One size between Qwen3's two: ours.
PUBLIC = (
    Public(public("GPT2-B"), public("GPT2-M"), (NAMED["SLM-138M"], NAMED["SLM-220M"])),
    Public(public("GPT2-M"), public("GPT2-L"), (NAMED["SLM-380M"], NAMED["SLM-537M"])),
    Public(public("Pythia-70m"), public("Pythia-160m"), (NAMED["SLM-134M"], pythia(9, 640))),
    Public(public("Pythia-160m"), public("Pythia-410m"), (pythia(18, 896),)),
    Public(public("Qwen3-0.6B"), public("Qwen3-1.7B"), (NAMED["Qwen3-0.6B"].resized(28, 1536, heads=16),)),
)
WIKITEXT = Corpus(kind="hub", name="Salesforce/wikitext", config="wikitext-2-raw-v1", held_out=0.05)
