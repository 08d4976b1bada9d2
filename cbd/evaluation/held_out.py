"""Held-out loss: nats per token and bits per byte, on the same windows for every model."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cbd.data.tokens import Tokens

BATCH = 16


@dataclass(frozen=True)
class HeldOut:
    """Fixed rows of held-out text, and what turns nats per token into bits per byte.

    inputs, labels: (n, T) int64 each; labels are the next tokens, -100 where none is scored.
    """

    inputs: np.ndarray
    labels: np.ndarray
    bytes_per_token: float

    @classmethod
    def of(cls, corpus: Tokens, split: str, sample: int, context: int) -> "HeldOut":
        """The first `sample` tokens of a split in windows of `context` tokens that do not overlap."""
        windows = corpus.windows(split, sample, context)
        return cls(windows[:, :-1], windows[:, 1:], corpus.bytes_per_token(split))


def evaluate(objective: nn.Module, held_out: HeldOut, device: torch.device) -> dict[str, float]:
    """Mean cross-entropy of `objective` (see `cbd.training.lessons.Objective`) on held-out rows.

    Returns loss (nats per token, the mean of the rows'), stderr (over rows), bits_per_byte and tokens. Every
    process of a distributed run evaluates all rows, so that FSDP's collective calls match.
    """
    inputs, labels = (torch.from_numpy(a).split(BATCH) for a in (held_out.inputs, held_out.labels))
    with torch.no_grad():
        batches = zip(inputs, labels, strict=True)
        means = [objective(x.to(device), y.to(device), per_row=True).double().cpu() for x, y in batches]
    losses = torch.cat(means)
    loss = losses.mean().item()
    return {
        "loss": loss,
        "stderr": losses.std().item() / math.sqrt(len(losses)) if len(losses) > 1 else math.nan,
        "bits_per_byte": loss / math.log(2) / held_out.bytes_per_token,
        "tokens": int((held_out.labels >= 0).sum()),
    }
