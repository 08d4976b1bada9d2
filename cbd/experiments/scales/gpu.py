"""The gpu scale: the GPT-2 family from the hub, on one card."""

from dataclasses import replace

from cbd.experiments.scales.base import Scale, ScratchVsCbd, Tuning
from cbd.experiments.scales.hub import HUB_DECISIONS, OPENWEBTEXT, hub_bridge, hub_evaluation, public
from cbd.recipes.specs import NAMED, gpt2
from cbd.recipes.starts import RIVALS
from cbd.recipes.training import Loss, Training


def gpu() -> Scale:
    slm_138m = NAMED["SLM-138M"]
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
        cost="about two days on one card",
        corpus=replace(OPENWEBTEXT, max_documents=2_000_000),
        source=public("GPT2-L"),
        source_training=None,
        anchors=(public("GPT2-M"), public("GPT2-B")),
        anchor_training=training,
        loss=Loss("reverse_kl", cross_entropy=0.0),
        ladder=(gpt2(14, 768), gpt2(16, 768), gpt2(12, 896), gpt2(18, 896), gpt2(24, 896)),
        alpha_targets=(slm_138m, gpt2(18, 896)),
        alphas=(0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
        convergence_targets=(slm_138m, gpt2(12, 896), gpt2(18, 896)),
        recovery=training,
        budgets=(78_000_000, 100_000_000),  # E4
        scratch=500_000_000,  # E5
        tuning=Tuning(2e-4, 2_000_000, 6e-4, 10_000_000, seeds=(1000,), budgets=(78_000_000,)),
        seeds=3,
        sample=1_048_576,
        bridge=hub_bridge(training, 100_000, public("GPT2-M"), (NAMED["GPT2-B"],), gpt2(18, 896)),
        evaluation=hub_evaluation(training),
        scratch_vs_cbd=ScratchVsCbd(
            targets=(slm_138m, gpt2(18, 896)),
            ladder=tuple(4_000_000 * 2**i for i in range(8)),
            seeds=3,
            equal_targets=(slm_138m, gpt2(12, 896), gpt2(18, 896)),
            equal_budgets=(78_000_000, 100_000_000),
            step_law=True,
        ),
        decisions=HUB_DECISIONS,
        densities=((1,), (0, 1)),
        rivals=tuple(RIVALS),
        fitting=replace(training, tokens=2_097_152, lr=0.05),
        jobs=1,
        threads=None,
        machine="h100",
    )
