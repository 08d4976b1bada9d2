"""The laptop scale: tiny models, many controls, hours on two cores."""

from dataclasses import replace

from cbd.experiments.scales import base
from cbd.recipes.data import Items, Pairs
from cbd.recipes.evaluation import CLOZE, CONTINUATION, REPLY
from cbd.recipes.models import Sampling
from cbd.recipes.training import Loss, Training


def laptop() -> base.Scale:
    shape = base.family_shapes("gpt2", 2048, 128)
    training = Training(
        tokens=1_200_000, lr=2e-3, batch=4, context=128, evaluations=14, evaluation_tokens=16384
    )
    return base.Scale(
        name="laptop",
        cost="about two hours on two CPU cores; the bridge takes three more, scratch against CBD one and a "
        "half, the families one",
        corpus=base.EMBEDDED,
        source=shape(6, 192),
        source_training=training,
        anchors=(shape(6, 144), shape(4, 96), shape(2, 32)),
        anchor_training=replace(training, tokens=400_000, lr=1e-3),
        loss=Loss("reverse_kl", cross_entropy=0.5),
        ladder=tuple(shape(*s) for s in ((2, 64), (3, 64), (4, 64), (3, 80), (3, 96), (4, 80), (5, 128))),
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
        bridge=base.Bridge(
            sources=(base.SMOLLM2,),
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
        evaluation=base.Evaluation(
            choice=(CONTINUATION, CLOZE),
            generation=(REPLY,),
            tuning=replace(training, tokens=262_144, batch=16, lr=1e-3, evaluations=1),
            pairs=Pairs(base.EMBEDDED, count=8000, tests=200),
            items=Items(base.EMBEDDED, count=600),
        ),
        scratch_vs_cbd=base.ScratchVsCbd(
            targets=(shape(3, 64), shape(4, 80)),
            ladder=tuple(9_375 * 2**i for i in range(8)),  # to 1.2 M tokens
            searched=(150_000, 600_000),
            seeds=5,
            equal_targets=(shape(2, 48), shape(3, 64), shape(4, 80), shape(5, 112)),
            equal_budgets=(150_000, 300_000),
        ),
        families=base.Families(
            vocabularies=(("gpt2", 2048), ("gpt_neox", 2048), ("llama", 3072), ("qwen3", 2048)),
            sizes=((5, 160), (5, 128), (3, 64)),
            targets=((4, 96), (4, 128)),
            source_training=replace(training, tokens=600_000),
            anchor_training=replace(training, tokens=250_000, lr=1e-3),
        ),
    )
