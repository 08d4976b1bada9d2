"""The paper scale: its sizes and tokens, through accelerate. What is not said here is as at the gpu scale."""

from dataclasses import replace

from cbd.experiments.scales.base import Scale
from cbd.experiments.scales.gpu import gpu
from cbd.experiments.scales.hub import OPENWEBTEXT, hub_bridge, hub_evaluation, public
from cbd.recipes.specs import NAMED, gpt2


def paper() -> Scale:
    small = gpu()
    slm_138m, slm_380m, slm_537m = (NAMED[f"SLM-{size}M"] for size in (138, 380, 537))
    # optimiser, schedule, batch and rates are not in the paper: ours, after GPT-2-sized public recipes
    training = replace(
        small.recovery, tokens=500_000_000, batch=512, evaluations=20, evaluation_tokens=1_048_576
    )
    return replace(
        small,  # the paper, as there: reverse KL on the output distribution
        name="paper",
        cost="a node of accelerators for days",
        corpus=OPENWEBTEXT,  # the paper: OpenWebText (and The Pile)
        source=public("GPT2-XL"),
        # the paper: GPT2-XL -> L -> M -> B, each from its public checkpoint
        anchors=(public("GPT2-L"), *small.anchors),
        anchor_training=training,
        densities=((2,), (1, 2), (0, 1, 2)),  # the paper: two anchors and four, its span not stated
        # the paper: 138M to 537M (51M lies below its chain)
        ladder=(slm_138m, gpt2(18, 896), slm_380m, slm_537m),
        alpha_targets=(slm_138m, slm_380m),
        alphas=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
        convergence_targets=(slm_138m, slm_380m, slm_537m),
        recovery=training,
        budgets=(78_000_000, 100_000_000, 500_000_000),  # E4, E5
        scratch=10_000_000_000,  # E3, E5
        bridge=hub_bridge(
            training, 1_000_000, public("GPT2-L"), (NAMED["GPT2-M"], NAMED["GPT2-B"]), slm_138m
        ),
        evaluation=hub_evaluation(training),
        scratch_vs_cbd=replace(
            small.scratch_vs_cbd,
            targets=(slm_138m, slm_380m),  # the paper's two lines of Figure 3
            # the paper: up to 10B; the steps between are ours
            ladder=tuple(10**6 * m for m in (78, 100, 500, 1_000, 2_000, 4_000, 7_000, 10_000)),
            equal_targets=(slm_138m, gpt2(18, 896), slm_380m, slm_537m),
        ),
    )
