"""MiniLLM (arXiv 2306.08543): the reverse KL of whole texts, by policy gradient (`recipes.onpolicy.MiniLLM`).

With q the student, p the teacher, m = mixed * p + (1 - mixed) * q the mixture that wrote a text y, and q_old
the student that took part in it, a token's loss is

    w_t KL(q_t || p_t)  -  min(rho_t R_t, clip(rho_t, 1 - e, 1 + e) R_t)

The first part is the gradient of the next token's divergence, exact over the vocabulary (single-step
decomposition); w_t = q_old(y_t) / m(y_t) is the importance weight of that token alone, as in the paper. The
second is what the token does to the rest: rho_t = q(y_t) / m(y_t), and the return R_t is the mean over the
*later* tokens of log p(y_s) - log q_old(y_s), which is why it does not depend on padding. The paper's text
clips no more precisely than "as PPO"; its code clips rho, so do we. Its code also whitens and scales returns;
we do not.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cbd.data.tokens import Tokens
from cbd.models.forward import hidden_states
from cbd.recipes.onpolicy import MiniLLM
from cbd.recipes.training import Loss, Training
from cbd.training.lessons import Objective, Prepared, Text, tokens_for
from cbd.training.losses import IGNORED, Sums, chunked
from cbd.training.onpolicy import rows, sample, teacher_of


def length_normalised(rewards: Tensor, counts: Tensor) -> Tensor:
    """(B, n): the mean reward of the later tokens that count, zero where there are none."""
    rewards, counts = rewards * counts, counts.to(rewards.dtype)
    later, number = (x.flip(1).cumsum(1).flip(1) - x for x in (rewards, counts))
    return later / number.clamp(min=1)


def policy_loss(
    logits: Tensor,
    teacher: Tensor,
    labels: Tensor,
    mixed: Tensor,
    weights: Tensor,
    returns: Tensor,
    clip: float,
) -> tuple[Tensor, Tensor]:
    """The loss of the module's formula and the reverse KL, summed over n tokens.

    logits, teacher: (n, V). labels, mixed (log m), weights (w), returns (R): (n,).
    """
    ours, theirs = logits.log_softmax(-1), teacher.log_softmax(-1)
    divergence = (ours.exp() * (ours - theirs)).sum(-1)
    ratio = (ours.gather(-1, labels[:, None]).squeeze(-1) - mixed).exp()
    gained = torch.minimum(ratio * returns, ratio.clamp(1 - clip, 1 + clip) * returns)
    return (weights * divergence - gained).sum(), divergence.sum()


class PolicyObjective(Objective):
    """forward(input_ids, labels, mixed, weights, returns, text, balance): `Sums` over the tokens written.

    input_ids, labels, mixed, weights, returns: (b, T), the rows that were written. text: (b, T + 1), windows
    of the corpus. balance: (b,), the tokens written over those of the text, in the whole step.
    forward(input_ids, labels, per_row=True): (B,) cross-entropy of each row.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, clip: float, pretraining: float):
        super().__init__(student, Loss(), teacher)
        self.clip, self.pretraining = clip, pretraining

    def forward(
        self, input_ids: Tensor, labels: Tensor, per_row: bool = False, **written: Tensor
    ) -> Sums | Tensor:
        if per_row:
            return super().forward(input_ids, labels, per_row=True)
        text = written["text"]
        hidden, head = hidden_states(self.student, torch.cat([input_ids, text[:, :-1]]))
        own, plain = hidden.split([len(input_ids), len(text)])
        loss, divergence = self._policy(input_ids, labels, own, head, written)
        taught = chunked(plain.flatten(0, 1), head, text[:, 1:].flatten(), self.loss)
        balance = written["balance"][0]
        total = loss + self.pretraining * balance * taught.total
        return Sums(total, balance * taught.cross_entropy, divergence.detach())

    def _policy(
        self, input_ids: Tensor, labels: Tensor, own: Tensor, head: Tensor, written: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Row by row, and computed again for the gradient: logits are never kept."""
        with torch.no_grad():
            theirs, teacher_head = hidden_states(self._teacher[0], input_ids)
        sums = torch.zeros(2, device=own.device)
        with torch.autocast(own.device.type, enabled=False):
            for i, row in enumerate(labels):
                kept = row != IGNORED
                known = [written[name][i][kept] for name in ("mixed", "weights", "returns")]
                states = own[i][kept].float(), theirs[i][kept].float()
                passed = (*states, head, teacher_head, row[kept], *known)
                sums = sums + checkpoint(self._row, *passed, use_reentrant=False)
        return sums.unbind()

    def _row(self, own: Tensor, theirs: Tensor, head: Tensor, teacher_head: Tensor, *rest: Tensor) -> Tensor:
        return torch.stack(policy_loss(own @ head.T, theirs @ teacher_head.T, *rest, self.clip))


@dataclass(frozen=True)
class Rollouts(Text):
    """Texts that student and teacher write, several batches at once, each used for several steps.

    kept: those at work, which a killed run goes on with (`cbd.training.loop`).
    """

    tokens: Tokens
    student: nn.Module
    teacher: nn.Module
    recipe: MiniLLM
    kept: dict[str, Tensor] = field(default_factory=dict)

    def parts(self, training: Training, step: int) -> dict[str, np.ndarray]:
        recipe = self.recipe
        number, place = divmod(step - training.skip, recipe.collected * recipe.passes)
        if not self.kept or int(self.kept["number"]) != number:
            self._collect(training, number)
        text = self.tokens.batch(training.seed, step, training.batch // 2, training.context)
        batches = {name: tensor.chunk(recipe.collected) for name, tensor in self.kept.items() if tensor.ndim}
        found = {name: parts[place % recipe.collected].numpy() for name, parts in batches.items()}
        written = (found["labels"] != IGNORED).sum() / text[:, 1:].size
        return found | {"text": text, "balance": np.full(len(text), written, np.float32)}

    def _collect(self, training: Training, number: int) -> None:
        recipe, device = self.recipe, next(self.student.parameters()).device
        draw = np.random.default_rng([training.seed, training.skip, number])
        seeds = draw.integers(2**62, size=2).tolist()  # of the prompts, and of what is written
        count = recipe.collected * training.batch // 2
        drawn = self.tokens.batch(seeds[0], 0, count, training.context)
        prompts = torch.from_numpy(drawn[:, : recipe.prompt]).to(device)
        models, shares = (self.student, self.teacher), (1 - recipe.mixed, recipe.mixed)
        new = training.context + 1 - recipe.prompt
        written = sample(models, shares, prompts, new, self.tokens.eos, seeds[1])
        inputs, labels = rows(prompts, written)
        ours, theirs = written.logs
        known = {
            "mixed": written.mixed,
            "weights": (ours - written.mixed).exp(),
            "returns": length_normalised(theirs - ours, written.counts),
        }
        before = inputs.new_zeros(count, recipe.prompt - 1, dtype=torch.float32)
        wide = {name: torch.cat([before, tensor], 1) for name, tensor in known.items()}
        content = {"input_ids": inputs, "labels": labels, "number": torch.tensor(number)} | wide
        self.kept.update({name: tensor.cpu().contiguous() for name, tensor in content.items()})


@dataclass(frozen=True)
class MiniLLMLesson:
    """What a teacher makes of the texts that its student and it write together."""

    corpus: Path
    teacher: Path
    recipe: MiniLLM

    def prepare(self, student: nn.Module, start: Path, training: Training, device: torch.device) -> Prepared:
        tokens, recipe = tokens_for(self.corpus, student), self.recipe
        teacher = teacher_of(student, self.teacher, device)
        objective = PolicyObjective(student, teacher, recipe.clip, recipe.pretraining)
        return objective, Rollouts(tokens, student, teacher, recipe)
