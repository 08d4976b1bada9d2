"""The divergences written from their definition: the reference for the fast path that training uses."""

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from cbd.recipes.training import Loss


def divergence(student_logits: Tensor, teacher_logits: Tensor, loss: Loss) -> Tensor:
    """The divergence at every position, in nats: (..., V) and (..., V) give (...).

    Differentiated by autograd, in both arguments. The loss' `cross_entropy` weight does not enter. Source:
    arXiv 2306.13649 (JSD, whose ends are the two KLs), arXiv 1503.02531 (T^2).
    """
    student, teacher = (
        log_softmax(x.to(torch.promote_types(x.dtype, torch.float32)) / loss.temperature, dim=-1)
        for x in (student_logits, teacher_logits)
    )
    beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": loss.beta}[loss.divergence]
    if beta in (0, 1):
        found = _kl(student, teacher) if beta else _kl(teacher, student)
    else:
        log_weight = torch.tensor([beta, 1 - beta], dtype=student.dtype, device=student.device).log()
        mixture = torch.logaddexp(teacher + log_weight[0], student + log_weight[1])
        found = beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)
    return loss.temperature**2 * found


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) from log probabilities."""
    return (p.exp() * (p - q)).sum(-1)
