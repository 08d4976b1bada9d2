"""What a run learns from: the objective that is minimised, and the batches for it.

A lesson names the folders of finished recipes. Its `prepare` gives the objective around the student, which
was loaded from `start`, and the feed of batches; `device` is where a teacher goes. It raises `CbdError` when
vocabularies do not fit. A feed gives the `parts` of each step, as arrays with rows first (`input_ids` and
`labels`, (B, T) each, and what else the objective's forward takes), and the `held_out` rows that the points
of the run's curve are measured on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cbd.data.tokens import Tokens
from cbd.errors import require
from cbd.evaluation.held_out import HeldOut
from cbd.models.forward import hidden_states, inside, keep_attentions, load
from cbd.recipes.training import BridgeLoss, Loss, Training
from cbd.training.bridge import bridged
from cbd.training.likelihoods import Likelihoods
from cbd.training.losses import Sums, check_vocabularies, chunked, per_row_loss
from cbd.training.responses import Responses
from cbd.training.states import States

StatePairs = tuple[tuple[int, int], ...]


class Objective(nn.Module):
    """A student with its loss, so that DDP and FSDP see one forward call (gathered weights, synchronised
    gradients).

    forward(input_ids, labels): (B, T) ids and next tokens (-100 ignored) -> `Sums` over all positions. A
    bridge loss takes the other arrays of `Likelihoods.parts`, too; `taught` (B, T, D) are the teacher's final
    hidden states where they are known.
    forward(..., per_row=True): (B,) mean cross-entropy of each row, for evaluation.
    """

    def __init__(
        self,
        student: nn.Module,
        loss: Loss | BridgeLoss,
        teacher: nn.Module | None = None,
        shared_vocab: int | None = None,
        aligned: StatePairs = (),
    ):
        super().__init__()
        self.student = student
        self.loss = loss
        self.shared_vocab = shared_vocab
        self.aligned = aligned
        self._teacher = (teacher,)  # in a tuple: not a submodule, never wrapped, trained or saved

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        per_row: bool = False,
        taught: Tensor | None = None,
        **likelihoods: Tensor,
    ) -> Sums | Tensor:
        if self.aligned and not per_row:
            return self._aligned(input_ids, labels)
        hidden, head = hidden_states(self.student, input_ids)
        if per_row:
            return per_row_loss(hidden, head, labels)
        if isinstance(self.loss, BridgeLoss):
            return bridged(hidden, head, labels, self.loss, **likelihoods)
        teacher, llm = None, self._teacher[0]
        if taught is not None:
            teacher = (taught, llm.get_output_embeddings().weight)
        elif llm is not None:
            with torch.no_grad():
                teacher = hidden_states(llm, input_ids)
        return self._chunked(hidden, head, labels, teacher)

    def _aligned(self, input_ids: Tensor, labels: Tensor) -> Sums:
        """What tells states or attentions apart is added."""
        attentions = self.loss.attention > 0
        ours = inside(self.student, input_ids, attentions)
        with torch.no_grad():
            theirs = inside(self._teacher[0], input_ids, attentions)
        sums = self._chunked(ours.states[-1], ours.head, labels, (theirs.states[-1], theirs.head))
        total = sums.total
        if self.loss.alignment:
            pairs = [(ours.states[i], theirs.states[j]) for i, j in self.aligned]
            total = total + self.loss.alignment * cosine_distance(pairs)
        if attentions:  # of the blocks that come after these states
            pairs = [(ours.attentions[i], theirs.attentions[j]) for i, j in self.aligned[:-1]]
            total = total + self.loss.attention * attention_divergence(pairs)
        return sums._replace(total=total)

    def _chunked(
        self, hidden: Tensor, head: Tensor, labels: Tensor, teacher: tuple[Tensor, Tensor] | None
    ) -> Sums:
        if teacher is not None:
            teacher = (teacher[0].flatten(0, 1), self._real(teacher[1]))
        return chunked(hidden.flatten(0, 1), self._real(head), labels.flatten(), self.loss, teacher)

    def _real(self, head: Tensor) -> Tensor:
        """The rows of tokens that exist, without those that only pad the table."""
        return head if self.shared_vocab is None else head[: self.shared_vocab]


Pairs = list[tuple[Tensor, Tensor]]
"""The student's and the teacher's."""


def cosine_distance(pairs: Pairs) -> Tensor:
    """Cosine distance of states (B, T, d) and (B, T, D), of which the first d channels count.

    The mean over pairs, summed over positions.
    """
    pairs = [(own.float(), other[..., : own.shape[-1]].float()) for own, other in pairs]
    alike = [cosine_similarity(*pair, dim=-1) for pair in pairs]
    return (1 - torch.stack(alike)).mean(0).sum()


def attention_divergence(pairs: Pairs) -> Tensor:
    """KL(theirs || ours) of attentions (B, h, T, T) and (B, H, T, T), of which the first h heads count.

    The mean over heads and pairs, summed over positions.
    """
    least, apart = torch.finfo(torch.float32).tiny, []  # least: of the tokens to come, which have none
    for own, other in pairs:
        p, q = other[:, : own.shape[1]].float(), own.float()
        apart.append((p * (p.clamp(min=least) / q.clamp(min=least)).log()).sum(-1).mean(1))
    return torch.stack(apart).mean(0).sum()


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
class Taught(Text):
    """The same, with a teacher's final hidden states, which runs that read the same batches share."""

    teacher: nn.Module
    states: States

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        parts = super().parts(training, step)
        compute = lambda: self._compute(parts["input_ids"], training.precision)  # noqa: E731
        return parts | {"taught": self.states.at(step, compute)}

    def _compute(self, input_ids: np.ndarray, precision: str) -> np.ndarray:
        """In the precision in which the objective would."""
        device = self.teacher.device
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
        with torch.no_grad(), autocast:
            states, _ = hidden_states(self.teacher, torch.from_numpy(input_ids).to(device))
        return states.float().cpu().numpy()


Prepared = tuple[nn.Module, Text | Likelihoods | Responses]


@dataclass(frozen=True)
class PlainLesson:
    """The next tokens of a corpus."""

    corpus: Path

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        return Objective(student, Loss()), Text(tokens_for(self.corpus, student))


@dataclass(frozen=True)
class DistilledLesson:
    """The output distributions of a teacher with the student's tokenizer, on the text of a corpus.

    shared_vocab: tokens that the two share where their tables are padded differently. aligned: the states,
    (student's, teacher's), that the loss compares. states: a folder of the teacher's final states that this
    run and others read and fill; None: the teacher is asked at every step.
    """

    corpus: Path
    teacher: Path
    loss: Loss
    shared_vocab: int | None = None
    aligned: StatePairs = ()
    states: Path | None = None

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        tokens_for(self.corpus, student)  # refused before the teacher is loaded
        teacher = load(self.teacher).to(device).requires_grad_(False)
        if self.shared_vocab is None:
            check_vocabularies(student.config.vocab_size, teacher.config.vocab_size)
        if self.loss.attention:
            for model in (student, teacher):
                keep_attentions(model)
        text = Text(tokens_for(self.corpus, teacher))
        if self.states is not None:
            text = Taught(text.tokens, teacher, States(self.states))
        return Objective(student, self.loss, teacher, self.shared_vocab, self.aligned), text


@dataclass(frozen=True)
class BridgedLesson:
    """The likelihoods that a teacher of another vocabulary gave to the text of a corpus."""

    corpus: Path
    likelihoods: Path
    loss: BridgeLoss

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        return Objective(student, self.loss), Likelihoods(self.likelihoods, tokens_for(self.corpus, student))


@dataclass(frozen=True)
class TunedLesson:
    """The responses of pairs, whose prompts are given."""

    pairs: Path

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        return Objective(student, Loss()), Responses(self.pairs, start, training.context)


Lesson = PlainLesson | DistilledLesson | BridgedLesson | TunedLesson


def tokens_for(corpus: Path, model: nn.Module) -> Tokens:
    """The corpus, whose ids the model must know."""
    tokens, known = Tokens(corpus), model.config.vocab_size
    wrong = f"the model's vocabulary ({known}) is smaller than the corpus' ({tokens.vocab_size})"
    require(known >= tokens.vocab_size, f"{wrong}: tokenize the corpus with the model's tokenizer")
    return tokens
