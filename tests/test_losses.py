"""The losses against stored numbers, the definition, and the fast path against the plain one."""

from __future__ import annotations

import math
from itertools import product
from typing import get_args

import pytest
import torch
from dense import divergence
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, log_softmax, softmax

from cbd.errors import CbdError
from cbd.recipes.training import Divergence, Loss
from cbd.training.losses import Sums, chunked

# Generator seed 42, randn(2, 3, 5) twice; stored, since a generator's stream may change with the release.
STUDENT = torch.tensor(
    [
        [1.9269152879714966, 1.4872840642929077, 0.9007171988487244, -2.1055209636688232, 0.6784184575080872],
        [
            -1.2345448732376099,
            -0.04306747764348984,
            -1.6046669483184814,
            -0.7521352767944336,
            1.6487230062484741,
        ],
        [
            -0.3924786448478699,
            -1.4036071300506592,
            -0.7278813123703003,
            -0.5594301819801331,
            -2.316922664642334,
        ],
        [
            -0.21680472791194916,
            -1.3846737146377563,
            -0.8712361454963684,
            -0.223365917801857,
            1.7173614501953125,
        ],
        [
            0.3188803195953369,
            -0.42451897263526917,
            -0.8285542726516724,
            0.3308984339237213,
            -1.5575724840164185,
        ],
        [
            0.9956361055374146,
            -0.8797858357429504,
            -0.6011420488357544,
            -1.2741512060165405,
            2.1227850914001465,
        ],
    ]
).view(2, 3, 5)
TEACHER = torch.tensor(
    [
        [
            -1.0891753435134888,
            -0.3552866280078888,
            -0.9138230085372925,
            -0.6581372618675232,
            0.07802387326955795,
        ],
        [
            0.5258087515830994,
            -0.48799172043800354,
            1.1913690567016602,
            -1.386365532875061,
            -1.2862155437469482,
        ],
        [
            -1.4032478332519531,
            0.03600366786122322,
            -0.06347727030515671,
            0.6756148934364319,
            0.19707036018371582,
        ],
        [
            -1.1441359519958496,
            0.3383229672908783,
            1.6991702318191528,
            0.01086814422160387,
            -0.33874234557151794,
        ],
        [
            -1.3406795263290405,
            -0.5853705406188965,
            -0.5644400119781494,
            1.056300163269043,
            -1.4691500663757324,
        ],
        [1.4331552982330322, 0.7439519762992859, -0.4815843999385834, -1.0494661331176758, 0.603898823261261],
    ]
).view(2, 3, 5)
LABELS = torch.tensor([[-100, 1, 2], [-100, -100, 3]])

ORACLES = [
    (0.0, 1.0, 0.9773357),
    (0.25, 1.0, 0.1566863),
    (0.5, 1.0, 0.2030073),
    (1.0, 1.0, 1.0041627),
    (0.0, 2.0, 0.2686145),
]
LOSSES = [
    Loss(),
    *(
        Loss(kind, weight, temperature, beta)
        for (kind, beta), weight, temperature in product(
            [
                *((kind, 0.5) for kind in get_args(Divergence) if kind != "none"),
                ("jsd", 0.0),
                ("jsd", 0.1),
                ("jsd", 1.0),
            ],
            [0.0, 0.3, 1.0],
            [1.0, 2.5],
        )
    ),
]


def _problem(rows=7, vocab=11, width=4, teacher_width=6, masked=(2, 5), dtype=torch.float64, spread=1.0):
    """Hidden states, head, labels and teacher, from a generator of their own."""
    generator = torch.Generator().manual_seed(7)
    hidden, head, teacher_hidden, teacher_head = (
        spread * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((rows, width), (vocab, width), (rows, teacher_width), (vocab, teacher_width))
    )
    labels = torch.randint(vocab, (rows,), generator=generator)
    labels[list(masked)] = -100
    return hidden.requires_grad_(), head.requires_grad_(), labels, (teacher_hidden, teacher_head)


def _dense(hidden, head, labels, loss, teacher) -> Sums:
    """`chunked` written plainly."""
    logits, kept = hidden @ head.T, labels != -100
    hard = cross_entropy(logits, labels, reduction="sum", ignore_index=-100)
    soft = torch.zeros(())
    if loss.divergence != "none":
        soft = divergence(logits, teacher[0] @ teacher[1].T, loss)[kept].sum()
    return Sums((1 - loss.cross_entropy) * soft + loss.cross_entropy * hard, hard, soft)


def _gradients(sums: Sums, *inputs):
    return torch.autograd.grad(sums.total, inputs)


def _identity(logits):
    """Logits as (hidden, head): the head is the identity."""
    return logits, torch.eye(logits.shape[-1], dtype=logits.dtype)


# Against stored numbers.


@pytest.mark.parametrize(("beta", "temperature", "expected"), ORACLES)
def test_divergence_matches_the_stored_values(beta, temperature, expected):
    # The stored value at temperature 2 is of the bare divergence, without the factor T^2.
    loss = Loss("jsd", 0.0, temperature, beta)
    value = divergence(STUDENT, TEACHER, loss)[LABELS != -100].mean() / temperature**2
    assert value.item() == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize(("beta", "temperature", "expected"), ORACLES)
def test_chunked_matches_the_stored_values(beta, temperature, expected):
    loss = Loss("jsd", 0.0, temperature, beta)
    hidden, head = _identity(STUDENT.view(6, 5))
    sums = chunked(hidden, head, LABELS.view(6), loss, _identity(TEACHER.view(6, 5)), chunk=2)
    assert sums.divergence.item() / 3 / temperature**2 == pytest.approx(expected, abs=3e-7)
    assert sums.total.item() == sums.divergence.item()


@pytest.mark.parametrize(("kind", "beta"), [("forward_kl", 0.0), ("reverse_kl", 1.0)])
def test_the_ends_of_the_jsd_family_are_the_two_kls(kind, beta):
    assert torch.equal(
        divergence(STUDENT, TEACHER, Loss(kind, 0.0)),
        divergence(STUDENT, TEACHER, Loss("jsd", 0.0, beta=beta)),
    )


# The definition.


def test_divergence_is_that_of_torch_distributions():
    student, teacher = (torch.distributions.Categorical(logits=x.double()) for x in (STUDENT, TEACHER))
    kl = torch.distributions.kl_divergence
    for kind, expected in (("forward_kl", kl(teacher, student)), ("reverse_kl", kl(student, teacher))):
        torch.testing.assert_close(divergence(STUDENT.double(), TEACHER.double(), Loss(kind, 0.0)), expected)


def test_divergence_is_differentiable_by_autograd():
    student, teacher = STUDENT[:, :1].double().requires_grad_(), TEACHER[:, :1].double().requires_grad_()
    for loss in (Loss("forward_kl", 0.0, 2.0), Loss("reverse_kl", 0.0), Loss("jsd", 0.0, beta=0.3)):
        assert torch.autograd.gradcheck(lambda s, t, loss=loss: divergence(s, t, loss), (student, teacher))


def test_jsd_over_beta_tends_to_forward_kl():
    student, teacher = STUDENT.double(), TEACHER.double()
    expected = divergence(student, teacher, Loss("forward_kl", 0.0))
    for beta, tolerance in ((1e-3, 1e-2), (1e-6, 1e-5)):
        close = divergence(student, teacher, Loss("jsd", 0.0, beta=beta)) / beta
        torch.testing.assert_close(close, expected, rtol=tolerance, atol=0)


def test_chunked_jsd_keeps_its_digits_at_a_small_beta():
    # In float32, where log(M / p_s) computed from M would have lost all of them.
    hidden, head = _identity(STUDENT.view(6, 5))
    labels, teacher = torch.zeros(6, dtype=torch.int64), _identity(TEACHER.view(6, 5))
    expected = chunked(hidden, head, labels, Loss("forward_kl", 0.0), teacher).divergence
    close = chunked(hidden, head, labels, Loss("jsd", 0.0, beta=1e-6), teacher).divergence / 1e-6
    torch.testing.assert_close(close, expected, rtol=1e-4, atol=0)


def test_jsd_is_symmetric_at_one_half_only():
    half, other = Loss("jsd", 0.0, beta=0.5), Loss("jsd", 0.0, beta=0.3)
    torch.testing.assert_close(divergence(STUDENT, TEACHER, half), divergence(TEACHER, STUDENT, half))
    assert not torch.allclose(divergence(STUDENT, TEACHER, other), divergence(TEACHER, STUDENT, other))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss.cross_entropy == 0], ids=str)
def test_equal_logits_give_zero_and_no_gradient(loss):
    hidden, head, labels, _ = _problem(dtype=torch.float32)
    logits = hidden @ head.T
    assert divergence(logits, logits, loss).abs().max() < 1e-6
    sums = chunked(hidden, head, labels, loss, (hidden, head), chunk=3)
    assert sums.divergence.abs() < 1e-5
    assert max(gradient.abs().max() for gradient in _gradients(sums, hidden, head)) < 1e-5


def test_soft_cross_entropy_is_forward_kl_plus_the_teachers_entropy():
    student, teacher = STUDENT.double().requires_grad_(), TEACHER.double()
    p, log_p = softmax(teacher, -1), log_softmax(teacher, -1)
    soft = -(p * log_softmax(student, -1)).sum(-1)
    kl = divergence(student, teacher, Loss("forward_kl", 0.0))
    torch.testing.assert_close(soft, kl - (p * log_p).sum(-1))
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), student)[0] for x in (soft, kl)))


# The fast path against the plain one.


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("chunk", [1, 3, 5, 64, None])
def test_chunked_is_dense(loss, chunk):
    problem = _problem()
    fast = chunked(*problem[:3], loss, problem[3], chunk=chunk)
    plain = _dense(*problem[:3], loss, problem[3])
    torch.testing.assert_close(fast, plain, check_dtype=False)
    for a, b in zip(_gradients(fast, *problem[:2]), _gradients(plain, *problem[:2]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("loss", [LOSSES[0], *LOSSES[3:40:4]], ids=str)
def test_chunked_passes_gradcheck(loss):
    hidden, head, labels, teacher = _problem(rows=4, vocab=5, width=3, masked=(1,))
    assert torch.autograd.gradcheck(
        lambda h, w: chunked(h, w, labels, loss, teacher, 2).total, (hidden, head)
    )


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_float32_is_close_to_float64(loss):
    """Over several chunks of more than one block each, with a vocabulary of a few thousand."""
    exact = _problem(rows=100, vocab=3001, width=16, teacher_width=8, spread=0.7)
    hidden, head = (x.detach().float().requires_grad_() for x in exact[:2])
    fast = chunked(hidden, head, exact[2], loss, tuple(x.float() for x in exact[3]), chunk=50)
    plain = _dense(*exact[:3], loss, exact[3])
    torch.testing.assert_close(fast, plain, check_dtype=False, rtol=3e-6, atol=1e-5)
    for a, b in zip(_gradients(fast, hidden, head), _gradients(plain, *exact[:2]), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=3e-6)


@pytest.mark.parametrize("loss", LOSSES[::5], ids=str)
def test_all_masked_gives_zero_with_zero_gradients(loss):
    hidden, head, labels, teacher = _problem(masked=range(7))
    sums = chunked(hidden, head, labels, loss, teacher)
    assert [x.item() for x in sums] == [0, 0, 0]
    assert all(torch.equal(g, torch.zeros_like(g)) for g in _gradients(sums, hidden, head))


def test_masked_rows_do_not_matter_even_when_not_finite():
    hidden, head, labels, teacher = _problem()
    loss = Loss("reverse_kl", 0.3)
    expected = chunked(hidden, head, labels, loss, teacher).total
    with torch.no_grad():
        hidden[labels == -100] = math.nan
        teacher[0][labels == -100] = math.inf
    sums = chunked(hidden, head, labels, loss, teacher)
    assert torch.equal(sums.total, expected)
    assert _gradients(sums, hidden)[0][labels == -100].abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES[::7], ids=str)
def test_parts_add_up(loss):
    """Sums over micro-batches, of whatever number of tokens, are those of the batch, and so are their
    gradients.
    """
    hidden, head, labels, teacher = _problem(rows=9)
    whole = chunked(hidden, head, labels, loss, teacher)
    parts = [
        chunked(hidden[a:b], head, labels[a:b], loss, (teacher[0][a:b], teacher[1]))
        for a, b in ((0, 1), (1, 6), (6, 9))
    ]
    torch.testing.assert_close(Sums(*map(sum, zip(*parts, strict=True))), whole)
    expected = _gradients(whole, hidden, head)
    for part in parts:
        part.total.backward()
    torch.testing.assert_close((hidden.grad, head.grad), expected)


# How autograd sees it.


def test_total_may_be_scaled_and_a_tied_head_shared():
    hidden, head, labels, teacher = _problem()
    loss = Loss("reverse_kl", 0.2)

    def step(function):
        # The head also makes the hidden states, as a tied embedding does.
        states = (hidden @ head.T @ head).tanh()
        (function(states, head, labels, loss, teacher).total / 5 + head.square().sum()).backward()
        found = hidden.grad, head.grad
        hidden.grad = head.grad = None
        return found

    torch.testing.assert_close(step(chunked), step(_dense))


def test_only_the_total_is_differentiable():
    hidden, head, labels, teacher = _problem()
    sums = chunked(hidden, head, labels, Loss("jsd", 0.5), teacher)
    assert [x.requires_grad for x in sums] == [True, False, False]


def test_the_teacher_gets_no_gradient():
    hidden, head, labels, teacher = _problem()
    teacher = tuple(x.requires_grad_() for x in teacher)
    chunked(hidden, head, labels, Loss("forward_kl", 0.5), teacher).total.backward()
    assert teacher[0].grad is None and teacher[1].grad is None


@pytest.mark.parametrize("frozen", [0, 1])
def test_an_input_that_needs_no_gradient_gets_none(frozen):
    hidden, head, labels, teacher = _problem()
    loss, inputs = Loss("reverse_kl", 0.0), [hidden, head]
    expected = _gradients(chunked(hidden, head, labels, loss, teacher), hidden, head)[1 - frozen]
    inputs[frozen] = inputs[frozen].detach()
    chunked(*inputs, labels, loss, teacher).total.backward()
    assert inputs[frozen].grad is None
    assert torch.equal(inputs[1 - frozen].grad, expected)


def test_without_gradients_none_are_computed(monkeypatch):
    hidden, head, labels, teacher = _problem()
    loss = Loss("reverse_kl", 0.3, 2.0)
    expected = chunked(hidden, head, labels, loss, teacher)

    def refuse(*_, **__):
        raise AssertionError("a gradient was computed")

    monkeypatch.setattr(torch.Tensor, "addmm_", refuse)
    monkeypatch.setattr(torch.Tensor, "addcmul_", refuse)
    with torch.no_grad():
        sums = chunked(hidden, head, labels, loss, teacher)
    assert not sums.total.requires_grad
    torch.testing.assert_close(sums, Sums(*(x.detach() for x in expected)), rtol=0, atol=0)


def test_second_derivatives_are_refused():
    hidden, head, labels, teacher = _problem()
    total = chunked(hidden, head, labels, Loss(), teacher).total
    (gradient,) = torch.autograd.grad(total.square(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_inputs_are_left_alone():
    hidden, head, labels, teacher = _problem()
    before = [x.detach().clone() for x in (hidden, head, labels, *teacher)]
    chunked(hidden, head, labels, Loss("jsd", 0.4, 2.0), teacher).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (hidden, head, labels, *teacher), strict=True))


# Precision.


@pytest.mark.parametrize("loss", LOSSES[::3], ids=str)
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_extreme_logits_stay_finite(loss, scale):
    hidden, head, labels, teacher = _problem(rows=16, masked=(), dtype=torch.float32)
    with torch.no_grad():
        hidden *= scale
    sums = chunked(hidden, head, labels, loss, (-scale * teacher[0], teacher[1]))
    assert all(x.isfinite() for x in sums)
    assert all(g.isfinite().all() for g in _gradients(sums, hidden, head))
    exact = _dense(
        *(x.detach().double() for x in (hidden, head)),
        labels,
        loss,
        [-scale * teacher[0].double(), teacher[1].double()],
    )
    torch.testing.assert_close(sums.divergence.double(), exact.divergence.double(), rtol=1e-4, atol=1e-4)


def test_a_large_common_offset_cancels():
    """The logits are shifted by their maximum before they are subtracted from each other."""
    rows = STUDENT.view(6, 5)
    labels, teacher, loss = (
        torch.zeros(6, dtype=torch.int64),
        _identity(TEACHER.view(6, 5)),
        Loss("reverse_kl", 0.0),
    )
    shifted = (rows * 64).round() / 64 + 8192
    near = chunked(shifted - 8192, torch.eye(5), labels, loss, teacher).total
    assert torch.equal(chunked(shifted, torch.eye(5), labels, loss, teacher).total, near)


@pytest.mark.parametrize("loss", [Loss(), Loss("reverse_kl", 0.0), Loss("jsd", 0.4, 2.0)], ids=str)
def test_bfloat16_is_widened_inside_and_returned_outside(loss):
    hidden, head, labels, teacher = _problem(vocab=300, dtype=torch.bfloat16)
    low = chunked(hidden, head, labels, loss, teacher)
    wide = [x.detach().float().requires_grad_() for x in (hidden, head)]
    reference = chunked(*wide, labels, loss, tuple(x.float() for x in teacher))
    assert low.total.dtype == torch.float32
    torch.testing.assert_close(low, reference, rtol=0, atol=0)
    for a, b in zip(_gradients(low, hidden, head), _gradients(reference, *wide), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b.bfloat16())
    logits = hidden.detach() @ head.detach().T
    if loss.divergence != "none":
        assert divergence(logits, logits, loss).dtype == torch.float32


def test_autocast_does_not_lower_the_precision():
    hidden, head, labels, teacher = _problem(dtype=torch.float32)
    loss = Loss("reverse_kl", 0.1)
    outside = chunked(hidden, head, labels, loss, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        inside = chunked(hidden, head, labels, loss, teacher)
        mixed = chunked(hidden.bfloat16(), head, labels, loss, teacher)
        gradients = _gradients(inside, hidden, head)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    torch.testing.assert_close(gradients, _gradients(outside, hidden, head), rtol=0, atol=0)
    torch.testing.assert_close(mixed.total, outside.total, rtol=1e-2, atol=0)
    assert _gradients(mixed, hidden)[0].dtype == torch.float32


# Errors.


def test_another_vocabulary_is_refused():
    hidden, head, labels, teacher = _problem()
    with pytest.raises(CbdError, match=r"vocabularies differ \(student 11, teacher 10\).*bridge"):
        chunked(hidden, head, labels, Loss("reverse_kl", 0.0), (teacher[0], teacher[1][:10]))


def test_misuse_is_refused():
    hidden, head, labels, teacher = _problem()
    kl = Loss("reverse_kl", 0.0)
    with pytest.raises(CbdError, match="needs a teacher"):
        chunked(hidden, head, labels, kl)
    with pytest.raises(CbdError, match="teacher's hidden"):
        chunked(hidden, head, labels, kl, (teacher[0][:3], teacher[1]))
    with pytest.raises(CbdError, match="do not fit"):
        chunked(hidden, head, labels[:3], kl, teacher)
    with pytest.raises(CbdError, match="do not fit"):
        chunked(hidden[None], head, labels, kl, teacher)
    with pytest.raises(CbdError, match="chunk 0"):
        chunked(hidden, head, labels, kl, teacher, chunk=0)


# Properties.

numbers = st.floats(-50, 50, width=32)
losses = st.builds(
    Loss,
    st.sampled_from(["forward_kl", "reverse_kl", "jsd"]),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.sampled_from([0.0, 0.01, 0.5, 0.9, 1.0]),
)
pairs = st.integers(2, 6).flatmap(
    lambda vocab: st.lists(st.lists(numbers, min_size=vocab, max_size=vocab), min_size=4, max_size=4)
)


@settings(max_examples=60, deadline=None)
@given(losses, pairs, st.integers(1, 3))
def test_properties(loss, rows, chunk):
    """Not negative, equal to the dense value, and gradients in each row of logits that sum to zero."""
    logits = torch.tensor(rows, dtype=torch.float64)
    hidden, head = _identity(logits[:2].requires_grad_())
    teacher, labels = _identity(logits[2:].detach()), torch.tensor([0, 1])
    sums = chunked(hidden, head, labels, loss, teacher, chunk)
    assert sums.divergence >= -1e-9 and sums.cross_entropy >= 0
    torch.testing.assert_close(sums, _dense(hidden, head, labels, loss, teacher))
    gradient = _gradients(sums, hidden)[0]
    assert gradient.sum(1).abs().max() < 1e-9
    if loss.divergence == "jsd" and 0 < loss.beta < 1:
        bound = -(loss.beta * math.log(loss.beta) + (1 - loss.beta) * math.log1p(-loss.beta))
        assert sums.divergence <= 2 * loss.temperature**2 * bound + 1e-9
