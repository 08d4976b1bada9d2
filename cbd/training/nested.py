"""One model whose slices are models of several sizes, all trained at once (`cbd.recipes.training.Nested`).

A step's gradient is the mean of those of the sizes that it trains. Slices are views of the one model's
weights, cut by Trans as a checkpoint would be, so that a slice that is written is the slice that was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModelForCausalLM

from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import hidden_states, load
from cbd.models.trans import Transfer
from cbd.recipes.operators import Trans
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Loss, Training
from cbd.training.lessons import Objective, Prepared, Text, tokens_for
from cbd.training.losses import Sums, check_vocabularies, per_row_loss


class Slice(nn.Module):
    """The model of one size, run on the part of the student's weights that it is (`states`)."""

    def __init__(self, student: nn.Module, whole: Checkpoint, spec: ModelSpec):
        super().__init__()
        family = whole.family
        self.reads: set[str] = set()

        def read(name: str) -> Tensor:
            self.reads.add(family.parameter(name))
            return student.get_parameter(family.parameter(name))  # as it is by then

        self._trans = Transfer(family, whole.spec, spec, Trans(), read)
        self._tensors = [(role, layer, family.parameter(name)) for role, layer, name in family.tensors(spec)]
        config = AutoConfig.for_model(**family.config(spec, whole.config))
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    def weights(self) -> dict[str, Tensor]:
        """Parameter of this size's model -> the part of the student's that it is; differentiable."""
        return {f"model.{name}": self._trans.tensor(role, layer) for role, layer, name in self._tensors}

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        return hidden_states(self.model, input_ids)

    def states(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Final hidden states (B, T, d) of the student's slice, and its head (V, d)."""
        return functional_call(self, self.weights(), (input_ids,))


class NestedObjective(Objective):
    """forward(input_ids, labels, others): `Sums`, the mean over the sizes that the step trains.

    others: (B, k), the places of the sizes that were drawn, in each row alike.
    forward(..., per_row=True): (B,) cross-entropy of each row, the mean over all sizes.
    """

    def __init__(self, student: nn.Module, slices: Sequence[Slice], loss: Loss, teacher: nn.Module):
        super().__init__(student, loss, teacher)
        self._slices = tuple(slices)  # not submodules, as the teacher is none

    def forward(
        self, input_ids: Tensor, labels: Tensor, per_row: bool = False, others: Tensor | None = None
    ) -> Sums | Tensor:
        if per_row:
            rows = [per_row_loss(*one.states(input_ids), labels) for one in self._slices]
            return torch.stack(rows).mean(0)
        with torch.no_grad():
            teacher = hidden_states(self._teacher[0], input_ids)
        chosen = [self._slices[0], *(self._slices[i] for i in others[0].tolist()), self._slices[-1]]
        sums = [self._chunked(*one.states(input_ids), labels, teacher) for one in chosen]
        return Sums(*(torch.stack(part).mean(0) for part in zip(*sums, strict=True)))


@dataclass(frozen=True)
class NestedText(Text):
    """Text, and with each batch the places of the sizes that are drawn, between first and last of `sizes`."""

    sizes: int
    drawn: int

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        inner = np.arange(1, self.sizes - 1)
        draw = np.random.default_rng([training.seed, step])  # of the step alone, so that a killed run goes on
        others = draw.choice(inner, min(self.drawn, len(inner)), replace=False) if len(inner) else inner
        return super().parts(training, step) | {"others": np.tile(others, (training.batch, 1))}


@dataclass(frozen=True)
class NestedLesson:
    """What a teacher knows, for several sizes at once, on the text of a corpus."""

    corpus: Path
    teacher: Path
    specs: tuple[ModelSpec, ...]
    loss: Loss
    drawn: int

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        text = NestedText(tokens_for(self.corpus, student), len(self.specs), self.drawn)
        teacher = load(self.teacher).to(device).requires_grad_(False)
        check_vocabularies(student.config.vocab_size, teacher.config.vocab_size)
        whole = Checkpoint(start)
        slices = [Slice(student, whole, spec).to(device).requires_grad_(False) for spec in self.specs]
        for one in slices:
            one.weights()
        read = set().union(*(one.reads for one in slices))
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(
                name in read
            )  # blocks outside of every size have no gradient to go on from
        return NestedObjective(student, slices, self.loss, teacher), text
