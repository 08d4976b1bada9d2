"""Held-out loss: nats per token and bits per byte, on the same windows for every model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cbd.data import Tokens


@dataclass(frozen=True)
class HeldOut:
    """Fixed, non-overlapping windows of a split, and what turns nats per token into bits per byte."""

    windows: np.ndarray  # (n, context + 1) int64
    bytes_per_token: float

    @classmethod
    def of(cls, corpus: Tokens, split: str, sample: int, context: int) -> HeldOut:
        """The first `sample` tokens of a split in windows of `context` tokens."""
        return cls(corpus.windows(split, sample, context), corpus.bytes_per_token(split))


def evaluate(
    objective: nn.Module, held_out: HeldOut, device: torch.device, batch: int = 16
) -> dict[str, float]:
    """Mean cross-entropy of `objective` (see `cbd.training.Objective`) on held-out windows.

    Returns loss (nats per token), stderr (over windows), bits_per_byte and tokens. Every process of a
    distributed run evaluates all windows, so that FSDP's collective calls match.
    """
    means = []
    with torch.no_grad():
        for first in range(0, len(held_out.windows), batch):
            rows = torch.from_numpy(held_out.windows[first : first + batch]).to(device)
            means.append(objective(rows[:, :-1], rows[:, 1:], per_row=True).double().cpu())
    losses = torch.cat(means)
    loss = losses.mean().item()
    return {
        "loss": loss,
        "stderr": losses.std().item() / math.sqrt(len(losses)) if len(losses) > 1 else math.nan,
        "bits_per_byte": loss / math.log(2) / held_out.bytes_per_token,
        "tokens": int(held_out.windows[:, 1:].size),
    }
