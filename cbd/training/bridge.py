"""Likelihood-level bridge distillation: losses between models of different vocabularies.

Per group of tokens that covers the same bytes: the student's log-likelihood of the group against the
teacher's ("alm"), or its sorted next-token probabilities after the group against the teacher's ("uld"). See
`cbd.recipes.training.BridgeLoss` for the formulas and sources.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cbd.recipes.training import BridgeLoss
from cbd.training.losses import IGNORED, LARGEST_CHUNK, Sums

SMALLEST = 1e-6  # nats: a likelihood of exactly one has no logarithm of its complement


def bridged(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    loss: BridgeLoss,
    groups: Tensor,
    likelihoods: Tensor,
    sorted: Tensor | None = None,
) -> Sums:
    """The bridge loss from the student's hidden states (B, T, D) and head (V, D).

    labels, groups, likelihoods, sorted: as `likelihoods.Likelihoods.parts` gives them.
    """
    top = sorted if loss.divergence == "uld" else None
    picked, gap = token_likelihoods(hidden, head, labels, top)
    cross_entropy = -picked.sum()
    divergence = gap if top is not None else alm(picked, groups, likelihoods, loss.temperature)
    total = (1 - loss.cross_entropy) * divergence + loss.cross_entropy * cross_entropy
    return Sums(total, cross_entropy.detach(), divergence.detach())


def token_likelihoods(
    hidden: Tensor, head: Tensor, labels: Tensor, sorted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of the labels, and the summed `sorted_gap`, without all logits in memory at once.

    hidden: (B, T, D). head: (V, D). labels: (B, T), -100 where a position does not count (zero there).
    sorted: (B, T, k) or None. Returns (B, T) in nats and a scalar. Logits are worked out again for the
    gradient, a row of the batch or 512 positions at a time.
    """
    rows = hidden.flatten(0, 1).split(LARGEST_CHUNK)
    answers = labels.flatten().split(LARGEST_CHUNK)
    tops = [None] * len(rows) if sorted is None else sorted.flatten(0, 1).split(LARGEST_CHUNK)
    found = [
        checkpoint(_part, h, head, y, top, use_reentrant=False)
        for h, y, top in zip(rows, answers, tops, strict=True)
    ]
    return torch.cat([picked for picked, _ in found]).view(labels.shape), sum(gap for _, gap in found)


def _part(hidden: Tensor, head: Tensor, labels: Tensor, sorted: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = (hidden @ head.T).float()
    norm = logits.logsumexp(1)
    picked = logits.gather(1, labels.clamp(min=0)[:, None]).squeeze(1) - norm
    gap = hidden.new_zeros(()) if sorted is None else sorted_gap(logits, norm, sorted)
    return torch.where(labels != IGNORED, picked, 0.0), gap


def sorted_gap(logits: Tensor, norm: Tensor, sorted: Tensor) -> Tensor:
    """Sum of |p - q| over the k largest probabilities of either side, and over the mass of the rest.

    logits: (N, V). norm: (N,), their logsumexp. sorted: (N, k), the teacher's, falling; all zero where a
    position does not count. Source: universal logit distillation (arXiv 2402.12030), cut off after k.
    """
    k = min(sorted.shape[1], logits.shape[1])
    mine = (logits.topk(k, dim=1).values - norm[:, None]).exp()
    theirs = sorted[:, :k]
    gaps = (mine - theirs).abs().sum(1) + (mine.sum(1) - theirs.sum(1)).abs()
    return torch.where(theirs[:, 0] > 0, gaps, 0.0).sum()


def alm(picked: Tensor, groups: Tensor, likelihoods: Tensor, temperature: float) -> Tensor:
    """The summed divergence between the probabilities that both models give to each group, in nats.

    picked: (B, T) the student's log-likelihoods of its tokens. groups: (B, T), counted within a row, -1
    where a token belongs to none. likelihoods: (B, T), the teacher's of each token's group. A group's
    probability p becomes p^(1/temperature); its Bernoulli KL(teacher || student) is multiplied by the
    temperature. Source: approximate likelihood matching (arXiv 2503.20083).
    """
    length = picked.shape[1]
    rows = torch.arange(len(picked), device=picked.device)[:, None] * length
    place = torch.where(groups >= 0, groups + rows, picked.numel())  # one place more: for what counts not
    student = picked.new_zeros(picked.numel() + 1).index_add(0, place.flatten(), picked.flatten())
    teacher = picked.new_zeros(picked.numel() + 1).index_copy(0, place.flatten(), likelihoods.flatten())
    used = torch.zeros(picked.numel() + 1, dtype=torch.bool, device=picked.device)
    used[place.flatten()] = True
    used[-1] = False
    return temperature * bernoulli_kl(teacher[used] / temperature, student[used] / temperature).sum()


def bernoulli_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(Bernoulli(p) || Bernoulli(q)) from log p and log q, in nats, exact also close to one."""
    log_p, log_q = log_p.clamp(max=-SMALLEST), log_q.clamp(max=-SMALLEST)
    rest = torch.log(-torch.expm1(log_p)) - torch.log(-torch.expm1(log_q))
    return log_p.exp() * (log_p - log_q) - torch.expm1(log_p) * rest
