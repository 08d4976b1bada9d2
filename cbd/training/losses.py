"""Distillation losses from hidden states, whose logits never exist at once.

Forward KL is KL(teacher || student), reverse KL is KL(student || teacher), and the generalised Jensen-Shannon
divergence is beta * KL(teacher || M) + (1 - beta) * KL(student || M) with the mixture
M = beta * teacher + (1 - beta) * student (arXiv 2306.13649). As there, its ends are the two KLs, not the
limits of JSD_beta, which are zero: beta 0 means forward, beta 1 reverse KL. A temperature T divides both
logits, and the divergence is multiplied by T^2 (arXiv 1503.02531). Everything is computed in float32, or in
float64 if the inputs are.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cbd.errors import require
from cbd.recipes.training import Loss

IGNORED = -100

# Memory for one chunk of logits. Smaller chunks cost time, because every matrix product streams a whole head;
# beyond this size there is little left to gain.
CHUNK_BYTES = 32 << 20
LARGEST_CHUNK = 512

# Memory for the rows that the passes between the products work on at a time: three such blocks fit in the
# second-level cache of one core.
BLOCK_BYTES = 512 << 10

# A log ratio beyond this says that one probability is below 1e-34 of the other: the clamp changes nothing but
# keeps its exponential finite.
LARGEST_LOG_RATIO = 80.0


class Sums(NamedTuple):
    """Sums over the unmasked positions, in nats (scalars).

    total: (1 - w) * divergence + w * cross_entropy, with w the loss' `cross_entropy`; differentiable.
    cross_entropy: of the student at temperature 1; detached, for the log.
    divergence: with its T^2; detached, zero when the loss has none.
    """

    total: Tensor
    cross_entropy: Tensor
    divergence: Tensor


def chunked(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    loss: Loss,
    teacher: tuple[Tensor, Tensor] | None = None,
    chunk: int | None = None,
) -> Sums:
    """The loss from the hidden states; a few buffers of (chunk, V) are all that it needs.

    The gradients of `hidden` and `head` are computed analytically beside the values, chunk by chunk, and
    handed to autograd, so one call costs one product with each head and two for the gradients. Without
    gradients (under `torch.no_grad`, or for an input that requires none) their products are skipped. Masked
    rows cost nothing.

    hidden: (N, D), the student's final hidden states, row i predicting labels[i] (the caller shifts).
    head: (V, D), the student's output embedding, without bias.
    labels: (N,) integers, -100 where a position does not count.
    loss: what to minimise; its `cross_entropy` weight mixes the two parts.
    teacher: the teacher's (hidden (N, Dt), head (V, Dt)), never differentiated; not used when the loss has no
        divergence.
    chunk: rows per chunk; chosen for the processor's cache when not given. The result does not depend on it
        but for rounding.

    Lower precisions are widened to float32 first (a copy of the heads), also under autocast; gradients come
    back in their input's dtype. Raises `CbdError` when the shapes do not fit, the vocabularies differ, or the
    loss needs a teacher and has none. Sources: the module's; gradients in the forward pass: arXiv 2410.10989.
    """
    _check(hidden, head, labels, loss, teacher)
    require(chunk is None or chunk >= 1, f"chunk {chunk} must be at least one row")
    states, heads = [hidden], [head]
    if loss.divergence != "none":
        states, heads = ([own, other.detach()] for own, other in zip((hidden, head), teacher, strict=True))
    kept = labels != IGNORED
    if not kept.all():
        rows = kept.nonzero().squeeze(1)
        states, labels = [x.index_select(0, rows) for x in states], labels.index_select(0, rows)
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in (hidden, head)]
    chunk = chunk or min(max(CHUNK_BYTES // (4 * len(head)), 16), LARGEST_CHUNK)
    with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
        sums, gradients = _accumulate(states, heads, labels, loss, wanted, chunk)
    return sums._replace(total=_Differentiated.apply(sums.total, states[0], head, *gradients))


class _Differentiated(torch.autograd.Function):
    """A value whose gradients, of hidden states and head, are known already (None where not wanted)."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, hidden: Tensor, head: Tensor, *gradients: Tensor | None) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if gradient is None else gradient * scale for gradient in ctx.saved_tensors)
        return (None, *gradients, None, None)


def _accumulate(
    states: list[Tensor], heads: list[Tensor], labels: Tensor, loss: Loss, wanted: list[bool], chunk: int
) -> tuple[Sums, list[Tensor | None]]:
    """The sums, and those gradients of their total (of the student's hidden, of its head) that are wanted.

    states, heads: of the student and, where there is one, of the teacher. chunk: rows at a time, at most.
    """
    hidden, head = states[0], heads[0]
    dtype = torch.promote_types(torch.promote_types(hidden.dtype, head.dtype), torch.float32)
    heads = [weight.to(dtype) for weight in heads]
    # as small as needs no more chunks, so that the last is no small rest
    chunk = max(-(-len(hidden) // max(-(-len(hidden) // chunk), 1)), 1)
    logits = torch.empty((len(heads), chunk, len(head)), dtype=dtype, device=head.device)
    results = torch.zeros((2, len(hidden), 1), dtype=dtype, device=head.device)
    hidden_gradient = torch.empty_like(hidden) if wanted[0] else None
    head_gradient = torch.zeros_like(head, dtype=dtype) if wanted[1] else None
    for start in range(0, len(hidden), chunk):
        rows = slice(start, min(start + chunk, len(hidden)))
        here = logits[:, : rows.stop - start]
        for one, weight, out in zip(states, heads, here, strict=True):
            torch.mm(one[rows].to(dtype), weight.T, out=out)
        scale = _in_place(here, labels[rows, None], loss, any(wanted), results[:, rows])
        if hidden_gradient is not None:
            hidden_gradient[rows] = torch.mm(here[0], heads[0]).mul_(scale)
        if head_gradient is not None:
            head_gradient.addmm_(here[0].T, hidden[rows].to(dtype) * scale)
    sums, share = results.sum((1, 2), dtype=torch.float64).to(dtype), loss.cross_entropy
    total = (1 - share) * sums[1] + share * sums[0]
    head_gradient = None if head_gradient is None else head_gradient.to(head.dtype)
    return Sums(total, sums[0], sums[1]), [hidden_gradient, head_gradient]


def _in_place(logits: Tensor, labels: Tensor, loss: Loss, gradients: bool, results: Tensor) -> Tensor:
    """Turn the student's logits into their gradient but for a factor a row, which is returned: (rows, 1).

    logits: (1 or 2, rows, V), the student's and the teacher's, both overwritten. labels: (rows, 1). results:
    (2, rows, 1), filled with the cross-entropy and the divergence. Goes by blocks of rows small enough that
    each pass finds in the cache what the one before it left there (see `BLOCK_BYTES`); on a GPU by one, where
    what counts is the number of launches.
    """
    _, rows, vocab = logits.shape
    block = rows
    if logits.device.type == "cpu":
        block = max(BLOCK_BYTES // (vocab * logits.itemsize), 1)
    spare = torch.empty((min(block, rows), vocab), dtype=logits.dtype, device=logits.device)
    scale = torch.empty_like(results[0])
    for start in range(0, rows, block):
        part = slice(start, start + block)
        student = logits[0, part]
        teacher = logits[1, part] if len(logits) > 1 else None
        found = _block(student, teacher, spare[: len(student)], labels[part], loss, gradients)
        for out, value in zip((*results, scale), found, strict=True):
            out[part] = value
    return scale


def _block(
    student: Tensor, teacher: Tensor | None, spare: Tensor, labels: Tensor, loss: Loss, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, divergence and the factor of the gradient in `student`, (rows, 1) each."""
    share, temperature, kind = loss.cross_entropy, loss.temperature, loss.divergence
    if kind == "jsd" and loss.beta in (0, 1):  # the ends of the family are the two KLs
        kind = "reverse_kl" if loss.beta else "forward_kl"
    kernel = _KERNELS[kind]
    student.sub_(student.amax(1, keepdim=True))
    if teacher is not None:
        teacher.sub_(teacher.amax(1, keepdim=True))
    picked = student.gather(1, labels)
    if teacher is None or temperature == 1:
        total, divergence = kernel(student, teacher, spare, share, gradients, loss.beta)
        if gradients and share:
            student.scatter_add_(1, labels, total * -share)
        return total.log() - picked, divergence, total.reciprocal()
    # At another temperature the two parts need the softmax of different logits.
    total = torch.exp(student, out=spare).sum(1, keepdim=True)
    cross_entropy = total.log() - picked
    of_labels = None
    if gradients and share:
        of_labels = spare.mul(share / total).scatter_add_(1, labels, torch.full_like(total, -share))
    student.mul_(1 / temperature)
    teacher.mul_(1 / temperature)
    total, divergence = kernel(student, teacher, spare, 0.0, gradients, loss.beta)
    scale = (1 - share) * temperature / total
    if of_labels is not None:
        student.mul_(scale).add_(of_labels)
        scale = torch.ones_like(scale)
    return cross_entropy, divergence * temperature**2, scale


# The kernels. Each takes the logits of student and teacher less their rows' maxima and spare space, all
# (rows, V), the share of the cross-entropy, and beta. It returns the student's sum of exponentials and the
# divergence, both (rows, 1), and leaves in `student`, when gradients are wanted, that sum times the gradient
# of (1 - share) * divergence + share * logsumexp. They differ from the formulas only in that every
# exponential, logarithm and pass over (rows, V) is done once, in place.


Pair = tuple[Tensor, Tensor]


def _cross_entropy(student, teacher, spare, share, gradients, _) -> Pair:
    total = student.exp_().sum(1, keepdim=True)
    return total, torch.zeros_like(total)


def _forward_kl(student, teacher, spare, share, gradients, _) -> Pair:
    """Gradient p - (1 - share) q, with p the student's and q the teacher's probabilities."""
    exponentials = torch.exp(teacher, out=spare)
    teacher_total = exponentials.sum(1, keepdim=True)
    mean_gap = teacher.sub_(student).mul_(exponentials).sum(1, keepdim=True) / teacher_total
    total = student.exp_().sum(1, keepdim=True)
    if gradients:
        student.addcmul_(exponentials, (share - 1) * total / teacher_total)
    return total, mean_gap + total.log() - teacher_total.log()


def _reverse_kl(student, teacher, spare, share, gradients, _) -> Pair:
    """Gradient (1 - share) p (gap - E[gap]) + share p, with p the student's probabilities, by which E is
    taken, and gap the student's logits less the teacher's.
    """
    teacher_total = torch.exp(teacher, out=spare).sum(1, keepdim=True)
    exponentials = torch.exp(student, out=spare)
    total = exponentials.sum(1, keepdim=True)
    weighted_gap = student.sub_(teacher).mul_(exponentials)
    mean_gap = weighted_gap.sum(1, keepdim=True) / total
    if gradients:
        if share:
            weighted_gap.mul_(1 - share)
        weighted_gap.addcmul_(exponentials, share - (1 - share) * mean_gap)
    return total, mean_gap - total.log() + teacher_total.log()


def _generalised_jsd(student, teacher, spare, share, gradients, beta) -> Pair:
    """Gradient (1 - share) (1 - beta) p (log(p / M) - KL(p || M)) + share p, with p the student's
    probabilities, q the teacher's and M their mixture.

    With x = log(q / p), log(M / p) = log1p(beta * expm1(x)), which neither underflows nor loses small betas.
    """
    teacher_exponentials = torch.exp(teacher, out=spare)
    teacher_total = teacher_exponentials.sum(1, keepdim=True)
    log_ratio = teacher.sub_(student)
    exponentials = student.exp_()
    total = exponentials.sum(1, keepdim=True)
    log_ratio.add_((total / teacher_total).log()).clamp_(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    teacher_ratio = _dot(teacher_exponentials, log_ratio) / teacher_total
    log_mixture = log_ratio.expm1_().mul_(beta).log1p_()  # of M / p
    teacher_mean = _dot(teacher_exponentials, log_mixture) / teacher_total
    student_mean = _dot(exponentials, log_mixture) / total
    if gradients:
        factor = (1 - share) * (1 - beta)
        added = share + factor * student_mean
        student.mul_(torch.add(added, log_mixture, alpha=-factor, out=log_mixture))
    return total, beta * (teacher_ratio - teacher_mean) - (1 - beta) * student_mean


_KERNELS = {
    "none": _cross_entropy,
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jsd": _generalised_jsd,
}


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1, keepdim=True)


def check_vocabularies(student: int, teacher: int) -> None:
    """Raise `CbdError` unless the two sizes are one."""
    wrong = f"the vocabularies differ (student {student:,}, teacher {teacher:,})"
    require(student == teacher, f"{wrong}: give both one tokenizer, or distil through a vocabulary bridge")


def _check(
    hidden: Tensor, head: Tensor, labels: Tensor, loss: Loss, teacher: tuple[Tensor, Tensor] | None
) -> None:
    shapes = f"hidden {tuple(hidden.shape)}, head {tuple(head.shape)} and labels {tuple(labels.shape)}"
    fits = hidden.dim() == head.dim() == 2 and hidden.shape == (*labels.shape, head.shape[1])
    require(fits, f"{shapes} do not fit: flatten them to (N, D), (V, D) and (N,)")
    if loss.divergence != "none":
        require(teacher, f"{loss.divergence} needs a teacher: pass its (hidden, head)")
        check_vocabularies(len(head), len(teacher[1]))
        found, due = tuple(teacher[0].shape), (len(hidden), teacher[1].shape[1])
        require(
            found == due, f"the teacher's hidden {found} should be {due}: the student's rows by its width"
        )


def per_row_loss(hidden: Tensor, head: Tensor, labels: Tensor) -> Tensor:
    """(B,): mean cross-entropy of each row, in nats per token, from (B, T, D), (V, D) and (B, T)."""
    sums = [chunked(h, head, y, Loss()).cross_entropy for h, y in zip(hidden, labels, strict=True)]
    return torch.stack(sums) / (labels >= 0).sum(1)
