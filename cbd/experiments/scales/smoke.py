"""The smoke scale: minutes, in CI; proves that everything runs."""

from dataclasses import replace

from cbd.experiments.scales import base
from cbd.recipes.data import Items, Pairs
from cbd.recipes.evaluation import CLOZE, CONTINUATION, REPLY
from cbd.recipes.models import Sampling
from cbd.recipes.specs import llama
from cbd.recipes.training import Loss, Training


def smoke() -> base.Scale:
    shape = base.family_shapes("gpt2", 1024, 64)
    training = Training(tokens=30_720, lr=3e-3, batch=8, context=64, evaluations=5, evaluation_tokens=8192)
    corpus = replace(base.EMBEDDED, vocab_size=1024, max_documents=1500)
    other = llama(3, 96, 6, 2, 256, vocab=1536, positions=128)
    return base.Scale(
        name="smoke",
        cost="minutes on two CPU cores; proves that everything runs, not that anything is true",
        corpus=corpus,
        source=shape(4, 96),
        source_training=training,
        anchors=(shape(4, 80), shape(2, 48)),
        anchor_training=replace(training, tokens=10_240, lr=2e-3),
        # the paper: reverse KL; with cross-entropy it learns faster here, ours
        loss=Loss("reverse_kl", cross_entropy=0.5),
        ladder=(shape(2, 64), shape(3, 64), shape(3, 80)),
        alpha_targets=(shape(3, 64),),
        alphas=(0.0, 0.3, 0.6, 0.9, 1.0),
        convergence_targets=(shape(2, 64),),
        recovery=replace(training, tokens=5_120, lr=1e-3, evaluations=4),
        budgets=(5_120, 10_240),
        scratch=20_480,
        tuning=base.Tuning(1e-3, 1_024, 4e-3, 2_048, seeds=(1000, 1001)),
        seeds=2,
        sample=4096,
        bridge=base.Bridge(
            sources=(base.HomeGrown("Llama, trained here", other, replace(training, tokens=15_360)),),
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
        evaluation=base.Evaluation(
            choice=(CONTINUATION, CLOZE),
            generation=(REPLY,),
            tuning=replace(training, tokens=10_240, batch=16, lr=1e-3, evaluations=1),
            pairs=Pairs(corpus, count=400, tests=16, words=16, answer=8),
            items=Items(corpus, count=24, words=16, answer=6),
        ),
        scratch_vs_cbd=base.ScratchVsCbd(
            targets=(shape(2, 64),),
            ladder=(2_560, 5_120, 10_240, 20_480),
            seeds=2,
            equal_targets=(shape(2, 32), shape(2, 64)),  # the first lies below the chain (E13)
            equal_budgets=(10_240,),
        ),
        pruned=True,
        scores=True,
        densities=((1,), (0, 1)),
        rivals=("stacking", "learngene"),
        nested=True,
        distillers=base.Distillers(
            (1.0, 2.0), Sampling(documents=96, prompt=8, new=56, batch=48), every=True
        ),
        decisions=base.Decisions((0.5, 0.8, 1.0), (CONTINUATION,)),
        fitting=replace(training, tokens=2048, lr=0.05),
        families=base.Families(
            vocabularies=(("gpt2", 1024), ("gpt_neox", 1024), ("llama", 1536), ("qwen3", 1024)),
            sizes=((3, 96), (3, 64), (2, 32)),
            targets=((2, 64),),
            source_training=replace(training, tokens=10_240),
            anchor_training=replace(training, tokens=5_120, lr=2e-3),
            turned=("gpt2",),
        ),
    )
