"""Text that is written while a student learns, and distillation on it (`cbd.recipes.onpolicy.OnPolicy`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from cbd.data.tokens import Tokens
from cbd.errors import require
from cbd.models.forward import load
from cbd.recipes.training import Loss, Training
from cbd.training.lessons import Objective, Prepared, Text, tokens_for
from cbd.training.losses import IGNORED, check_vocabularies


class Sampled(NamedTuple):
    """What was written after prompts, n tokens a row.

    tokens: (B, n), after a row's end the end-of-text token again. counts: (B, n), false after the end.
    logs: (m, B, n), the log-probability that each of the m models gave to the token. mixed: (B, n), that of
    the mixture from which it was drawn.
    """

    tokens: Tensor
    counts: Tensor
    logs: Tensor
    mixed: Tensor


@torch.no_grad()
def sample(
    models: Sequence[nn.Module], shares: Sequence[float], prompts: Tensor, new: int, end: int, seed: int
) -> Sampled:
    """Draw `new` tokens after each prompt (B, P) from the mixture of the models' next-token distributions.

    A pure function of the models and the arguments. end: the token that ends a text.
    """
    draws = torch.Generator(prompts.device).manual_seed(seed)
    weights = torch.tensor(shares, device=prompts.device).log()[:, None, None]
    caches, ids = [None] * len(models), prompts
    alive = torch.ones(len(prompts), dtype=torch.bool, device=prompts.device)
    found: list[tuple[Tensor, ...]] = []
    for _ in range(new):
        logs = []
        for i, model in enumerate(models):
            out = model(input_ids=ids, past_key_values=caches[i], use_cache=True, logits_to_keep=1)
            caches[i] = out.past_key_values
            logs.append(out.logits[:, -1].float().log_softmax(-1))
        each = torch.stack(logs)
        mixture = (each + weights).logsumexp(0)
        ids = torch.multinomial(mixture.exp(), 1, generator=draws).where(alive[:, None], torch.tensor(end))
        picked = each.gather(-1, ids.expand(len(models), -1, -1)).squeeze(-1)
        found.append((ids.squeeze(1), alive, picked.T, mixture.gather(-1, ids).squeeze(-1)))
        alive = alive & (ids.squeeze(1) != end)
    tokens, counts, logs, mixed = (torch.stack(part, 1) for part in zip(*found, strict=True))
    return Sampled(tokens, counts, logs.movedim(-1, 0), mixed)


def rows(prompts: Tensor, written: Sampled) -> tuple[Tensor, Tensor]:
    """Inputs and labels, (B, P + n - 1) each; labels are -100 for the prompt and after a text's end."""
    whole = torch.cat([prompts, written.tokens], 1)
    labels = whole[:, 1:].clone()
    first = prompts.shape[1] - 1
    labels[:, :first] = IGNORED
    labels[:, first:].masked_fill_(~written.counts, IGNORED)
    return whole[:, :-1], labels


@dataclass(frozen=True)
class OwnText(Text):
    """Windows of the corpus, or, at a share of the steps, what the student writes after their beginnings."""

    tokens: Tokens
    student: nn.Module
    share: float
    prompt: int

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        given = super().parts(training, step)
        # of the step alone, so that a killed run goes on
        draw = np.random.default_rng([training.seed, step])
        if draw.random() >= self.share:
            return given
        prompts = torch.from_numpy(given["input_ids"][:, : self.prompt]).to(_device(self.student))
        new, seed = training.context + 1 - self.prompt, int(draw.integers(2**62))
        written = sample([self.student], [1.0], prompts, new, self.tokens.eos, seed)
        inputs, labels = rows(prompts, written)
        return {"input_ids": inputs.cpu().numpy(), "labels": labels.cpu().numpy()}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@dataclass(frozen=True)
class OnPolicyLesson:
    """What a teacher makes of the text that its student writes."""

    corpus: Path
    teacher: Path
    loss: Loss
    share: float
    prompt: int

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        tokens = tokens_for(self.corpus, student)
        teacher = teacher_of(student, self.teacher, device)
        return Objective(student, self.loss, teacher), OwnText(tokens, student, self.share, self.prompt)


def teacher_of(student: nn.Module, folder: Path, device: torch.device) -> nn.Module:
    """The teacher of a student that writes. Raises `CbdError` where that cannot be."""
    alone = PartialState().num_processes == 1
    require(alone, "a student that writes while it learns has one process: start it without torchrun")
    teacher = load(folder).to(device).requires_grad_(False)
    check_vocabularies(student.config.vocab_size, teacher.config.vocab_size)
    return teacher
