"""The paper scale: its sizes and tokens, through accelerate."""

from __future__ import annotations

from cbd.experiments.scales.base import Scale, ScratchVsCbd
from cbd.experiments.scales.hub import OPENWEBTEXT, hub_bridge, hub_evaluation, public
from cbd.recipes.specs import GPT2_B, GPT2_L, GPT2_M, GPT2_XL, SLM_138M, SLM_380M, SLM_537M, gpt2
from cbd.recipes.training import Loss, Training


def paper() -> Scale:
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
        source=public("gpt2-xl", GPT2_XL),
        source_training=None,
        # the paper: GPT2-XL -> L -> M -> B, each from its public checkpoint
        anchors=(public("gpt2-large", GPT2_L), public("gpt2-medium", GPT2_M), public("gpt2", GPT2_B)),
        anchor_training=training,
        loss=Loss("reverse_kl", cross_entropy=0.0),  # the paper: reverse KL on the output distribution
        # the paper: 138M to 537M (51M lies below its chain)
        ladder=(SLM_138M, gpt2(18, 896), SLM_380M, SLM_537M),
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
        bridge=hub_bridge(training, 1_000_000, GPT2_L, (GPT2_M, GPT2_B), SLM_138M),
        evaluation=hub_evaluation(training),
        scratch_vs_cbd=ScratchVsCbd(
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
