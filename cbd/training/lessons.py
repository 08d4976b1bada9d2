"""What a run learns from: the objective that is minimised, and the batches for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.evaluation.held_out import HeldOut
from cbd.models.forward import hidden_states, load
from cbd.recipes.training import BridgeLoss, Loss, Training
from cbd.training.losses import Sums, chunked, per_row_loss

PLAIN = Loss()


class Objective(nn.Module):
    """A student with its loss, so that DDP and FSDP see one forward call (gathered weights, synchronised
    gradients).

    forward(input_ids, labels): (B, T) ids and next tokens (-100 ignored) -> `Sums` over all positions.
    forward(..., per_row=True): (B,) mean cross-entropy of each row, for evaluation.
    """

    def __init__(
        self,
        student: nn.Module,
        loss: Loss,
        teacher: nn.Module | None = None,
        shared_vocab: int | None = None,
    ):
        super().__init__()
        self.student = student
        self.loss = loss
        self.shared_vocab = shared_vocab
        self._teacher = (teacher,)  # in a tuple: not a submodule, never wrapped, trained or saved

    def forward(self, input_ids: Tensor, labels: Tensor, per_row: bool = False) -> Sums | Tensor:
        hidden, head = hidden_states(self.student, input_ids)
        if per_row:
            return per_row_loss(hidden, head, labels)
        teacher = None
        if self._teacher[0] is not None:
            with torch.no_grad():
                states, teacher_head = hidden_states(self._teacher[0], input_ids)
            teacher = (states.flatten(0, 1), self._real(teacher_head))
        head = self._real(head)
        return chunked(hidden.flatten(0, 1), head, labels.flatten(), self.loss, teacher=teacher)

    def _real(self, head: Tensor) -> Tensor:
        """The rows of tokens that exist, without those that only pad the table."""
        return head if self.shared_vocab is None else head[: self.shared_vocab]


class Feed(Protocol):
    """What a run learns from: the batch of each step, as arrays with rows first, by name."""

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        """`input_ids` and `labels`, (B, T) each, and what else the objective's forward takes."""

    def held_out(self, training: Training) -> HeldOut:
        """What the points of the run's curve are measured on."""


@dataclass(frozen=True)
class Text:
    """Plain text: windows of the training split."""

    tokens: Tokens

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        rows = self.tokens.batch(training.seed, step, training.batch, training.context)
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}

    def held_out(self, training: Training) -> HeldOut:
        return HeldOut.of(self.tokens, "validation", training.evaluation_tokens, training.context)


@dataclass(frozen=True)
class Lesson:
    """What a run learns, and from whom: folders of finished recipes.

    shared_vocab: tokens that teacher and student share where their tables are padded differently.
    scores: a source's likelihoods (`training.likelihoods`), which a `BridgeLoss` needs. pairs: prompts and
    responses (`cbd.training.responses`), learnt instead of the corpus' text.
    """

    corpus: Path | None
    loss: Loss | BridgeLoss = PLAIN
    teacher: Path | None = None
    shared_vocab: int | None = None
    scores: Path | None = None
    pairs: Path | None = None

    @property
    def verb(self) -> str:
        if self.pairs:
            return "tune"
        plain = isinstance(self.loss, Loss) and self.loss.divergence == "none"
        return "train" if plain else "bridge" if self.scores else "distil"


def objective_of(
    student: nn.Module, start: Path, lesson: Lesson, training: Training, device: torch.device
) -> tuple[nn.Module, Feed]:
    """What is minimised, and the batches for it. Raises `CbdError` when vocabularies do not fit."""
    if lesson.pairs is not None:
        from cbd.training.responses import Responses

        return Objective(student, lesson.loss), Responses(lesson.pairs, start, training.context)
    tokens = Tokens(lesson.corpus)
    _check_vocabulary(student, tokens)
    if lesson.scores is not None:
        from cbd.training.bridge import BridgeObjective
        from cbd.training.likelihoods import Scores

        return BridgeObjective(student, lesson.loss), Scores(lesson.scores, tokens)
    guide = None
    if lesson.teacher is not None:
        guide = load(lesson.teacher).to(device).requires_grad_(False)
        _check_vocabulary(guide, tokens)
        if lesson.shared_vocab is None and guide.config.vocab_size != student.config.vocab_size:
            raise CbdError(
                f"the vocabularies differ (student {student.config.vocab_size:,}, teacher "
                f"{guide.config.vocab_size:,}): give both one tokenizer, or use a bridge (`Bridged`)"
            )
    return Objective(student, lesson.loss, guide, lesson.shared_vocab), Text(tokens)


def _check_vocabulary(model: nn.Module, tokens: Tokens) -> None:
    if model.config.vocab_size < tokens.vocab_size:
        raise CbdError(
            f"the model's vocabulary ({model.config.vocab_size}) is smaller than the corpus' "
            f"({tokens.vocab_size}): tokenize the corpus with the model's tokenizer"
        )
