"""The Step Law: learning rate and batch size of a training from random weights, by model and data size.

Predictable Scale: Part I (arXiv 2503.04715), which the paper cites: lr = 1.79 N^-0.713 D^0.307 and a batch of
0.58 D^0.571 tokens, with N parameters without embeddings and D training tokens.
"""

from dataclasses import replace

from cbd.errors import require
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Training

ROWS = 8  # a batch is a multiple of this, so that it divides into processes and micro-batches
_POSITIVE = "the Step Law needs positive numbers of parameters and tokens"


def learning_rate(parameters: int, tokens: int) -> float:
    """Peak learning rate for `parameters` (embeddings left out) and `tokens`."""
    require(min(parameters, tokens) > 0, _POSITIVE)
    return 1.79 * parameters**-0.713 * tokens**0.307


def batch_tokens(tokens: int) -> float:
    """Tokens a step."""
    require(tokens > 0, _POSITIVE)
    return 0.58 * tokens**0.571


def by_step_law(training: Training, spec: ModelSpec, tokens: int) -> Training:
    """`training` with this budget and the law's rate and batch, in whole sequences of its context."""
    blocks = spec.layers * spec.layer_parameters
    rows = max(1, round(batch_tokens(tokens) / training.context / ROWS)) * ROWS
    rate = float(f"{learning_rate(blocks, tokens):.4g}")  # a recipe's key must not hang on the last bit
    return replace(training, tokens=tokens, lr=rate, batch=rows)
