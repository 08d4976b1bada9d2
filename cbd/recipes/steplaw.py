"""The Step Law: learning rate and batch size of a training from random weights, by model and data size.

Predictable Scale: Part I (arXiv 2503.04715), which the paper cites: lr = 1.79 N^-0.713 D^0.307 and a batch of
0.58 D^0.571 tokens, with N parameters without embeddings and D training tokens.
"""

from dataclasses import replace

from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Training

ROWS = 8  # a batch is a multiple of this, so that it divides into processes and micro-batches


def by_step_law(training: Training, spec: ModelSpec, tokens: int) -> Training:
    """`training` with this budget and the law's rate and batch, in whole sequences of its context."""
    lr = 1.79 * (spec.layers * spec.layer_parameters) ** -0.713 * tokens**0.307
    rows = max(1, round(0.58 * tokens**0.571 / training.context / ROWS)) * ROWS
    # four digits: a recipe's key must not hang on the last bit
    return replace(training, tokens=tokens, lr=float(f"{lr:.4g}"), batch=rows)
