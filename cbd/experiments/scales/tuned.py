"""The laptop scale with tuned baselines, a source that knows more and a chain of narrow gaps.

It takes the laptop scale's place when all of its tables are there.
"""

from dataclasses import replace

from cbd.experiments.scales import base
from cbd.experiments.scales.laptop import laptop
from cbd.recipes.starts import RIVALS

# Random weights leave the plateau of the unigrams at a moment of their own in each seed. 2x48 ended at 5.68,
# 5.36 and 5.54 after 150k tokens and at 5.51, 5.22 and 5.35 after 200k, where longer runs stood at 5.46 and
# 5.29; after 50k 4x80 fell behind, too. From 300k on all end 0.07 nats or more below a longer run's curve.
BUDGETS = (300_000, 450_000)


def tuned() -> base.Scale:
    old, shape = laptop(), base.family_shapes("gpt2", 2048, 128)
    training = old.source_training
    middle = (shape(2, 48), shape(4, 80), shape(5, 112))  # one in each gap but the uppermost
    return replace(
        old,
        name="tuned",
        cost="about six hours on two CPU cores, without the bridge and the families",
        source_training=replace(training, tokens=6_000_000),
        # gaps of 2.1 to 3.0 in parameters; the paper's are 2 to 2.9
        anchors=(shape(6, 128), shape(4, 96), shape(3, 64), shape(2, 32)),
        ladder=tuple(
            shape(*size)
            for size in ((2, 48), (3, 48), (4, 64), (4, 80), (5, 112), (5, 128), (6, 144), (6, 160))
        ),
        alpha_targets=(*middle, shape(6, 160)),
        convergence_targets=middle,
        budgets=BUDGETS,
        tuning=base.Tuning(lr=1.5e-3, warmup=25_000, random_lr=6e-3, random_warmup=100_000),
        densities=((3,), (1, 3), (0, 1, 2, 3)),  # gaps of up to 33x, 7x and 3x
        rivals=tuple(RIVALS),
        fitting=replace(training, tokens=16_384, lr=0.05),
        rates=(),
        random_rates=(),
        scratch_vs_cbd=replace(
            old.scratch_vs_cbd,
            targets=middle[:2],
            seeds=3,
            ladder=(*BUDGETS, 600_000, 1_200_000),
            searched=(),
            equal_targets=(shape(2, 16), *middle),  # the first lies below the chain (E13)
            equal_budgets=BUDGETS,
            bridged=False,  # its chain has gaps of its own and a quarter of the tokens: `bridge` compares it
        ),
    )
