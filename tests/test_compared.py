"""A model beside its teacher: divergences, canonical correlations and effective rank against references."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import kl_div

from cbd.errors import CbdError
from cbd.evaluation.held_out import HeldOut
from cbd.models.forward import inside
from cbd.realize import realize
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import DEPTHS, Compared
from cbd.recipes.models import Random, Sorted
from cbd.recipes.specs import gpt2, llama
from cbd.training.compared import canonical_correlation, compare, effective_rank

SMALL, LARGE = (
    gpt2(2, 32, head_dim=16, vocab=300, positions=64),
    gpt2(5, 48, head_dim=16, vocab=300, positions=64),
)


def values(found: dict) -> dict[str, float]:
    alike = {f"similar {i}": each for i, each in enumerate(found["similarity"])}
    return {name: each["value"] for name, each in (found | alike).items() if name != "similarity"}


similar = [f"similar {i}" for i in range(len(DEPTHS))]


@pytest.fixture(scope="module")
def text() -> HeldOut:
    windows = np.random.default_rng(0).integers(0, 300, (40, 33))
    return HeldOut(windows[:, :-1], windows[:, 1:], 3.0)


@pytest.mark.parametrize("spec", [SMALL, llama(3, 32, 4, 2, 48, vocab=300, positions=64)], ids=str)
def test_divergences_are_those_of_whole_distributions(spec, text):
    student, teacher = random_model(spec, seed=1), random_model(LARGE, seed=2)
    found = values(compare(student, teacher, text, torch.device("cpu")))
    with torch.no_grad():
        ours, theirs = (m(torch.from_numpy(text.inputs)).logits.log_softmax(-1) for m in (student, teacher))
    each = text.labels.size
    assert found["forward_kl"] == pytest.approx(
        kl_div(ours, theirs, reduction="sum", log_target=True).item() / each, rel=1e-4
    )
    assert found["reverse_kl"] == pytest.approx(
        kl_div(theirs, ours, reduction="sum", log_target=True).item() / each, rel=1e-4
    )
    assert set(found) == {"forward_kl", "reverse_kl", "effective_rank", *similar}


def test_targets_that_do_not_count_are_left_out_of_the_divergence(text):
    student, teacher = random_model(SMALL, seed=1), random_model(LARGE, seed=2)
    half = HeldOut(text.inputs, text.labels.copy(), text.bytes_per_token)
    half.labels[:, 16:] = -100
    short = HeldOut(text.inputs[:, :16], text.labels[:, :16], text.bytes_per_token)
    ours, theirs = (compare(student, teacher, t, torch.device("cpu"))["forward_kl"] for t in (half, short))
    assert ours["stderr"] == pytest.approx(theirs["stderr"], rel=1e-4) and ours["stderr"] > 0
    ours, theirs = ours["value"], theirs["value"]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_states_are_compared_at_equal_shares_of_the_blocks(text):
    student, teacher = random_model(SMALL, seed=1), random_model(LARGE, seed=2)
    found = values(compare(student, teacher, text, torch.device("cpu")))
    with torch.no_grad():
        both = [inside(m, torch.from_numpy(text.inputs)).states for m in (student, teacher)]
    for i, (ours, theirs) in enumerate(zip((0, 0, 1, 2, 2), (0, 1, 2, 4, 5), strict=True)):
        pair = (
            states[place].flatten(0, 1).double() for states, place in zip(both, (ours, theirs), strict=True)
        )
        assert found[f"similar {i}"] == pytest.approx(canonical_correlation(*pair))


def test_a_model_in_another_order_is_no_different(tiny_corpus):
    """Sorting permutes channels, heads and neurons: the function stays, and states are a linear map apart."""
    teacher = Random(LARGE, tiny_corpus)
    measured = Compared(Sorted(teacher), teacher, tiny_corpus, 32 * 60, 32)
    found = values(json.loads((realize(measured) / "metrics.json").read_text()))
    assert found["forward_kl"] == pytest.approx(0, abs=1e-6) and found["reverse_kl"] == pytest.approx(
        0, abs=1e-6
    )
    assert [found[name] for name in similar] == pytest.approx([1] * len(DEPTHS), abs=1e-6)


def test_two_vocabularies_are_refused():
    other = Random(gpt2(2, 32, head_dim=16, vocab=400, positions=64), Corpus())
    with pytest.raises(CbdError, match="vocabularies of 300 and 400 tokens have no divergence"):
        Compared(Random(SMALL, Corpus()), other, Corpus())


# Likeness and rank ---------------------------------------------------------------------------------------


def reference(first: torch.Tensor, second: torch.Tensor) -> float:
    """By the eigenvalues of the covariances' product, as the textbook has it."""
    x, y = (part.numpy() - part.numpy().mean(0) for part in (first, second))
    product = np.linalg.solve(x.T @ x, x.T @ y) @ np.linalg.solve(y.T @ y, y.T @ x)
    values = np.sort(np.linalg.eigvals(product).real)[::-1][: min(x.shape[1], y.shape[1])]
    return float(np.sqrt(values.clip(0, 1)).mean())


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))


@given(sizes, st.floats(0, 2))
def test_canonical_correlation_is_the_textbooks(case, mixed):
    first, second, seed = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, first, generator=generator, dtype=torch.float64)
    y = torch.randn(60, second, generator=generator, dtype=torch.float64)
    y = y + mixed * x @ torch.randn(first, second, generator=generator, dtype=torch.float64)
    assert canonical_correlation(x, y) == pytest.approx(reference(x, y), abs=1e-8)
    assert canonical_correlation(y, x) == pytest.approx(canonical_correlation(x, y))


@given(sizes)
def test_no_linear_map_changes_what_is_alike(case):
    width, _, seed = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, width, generator=generator, dtype=torch.float64)
    turned, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    assert canonical_correlation(x, x @ turned * 3 + 1) == pytest.approx(1)


@given(sizes)
def test_effective_rank_counts_equal_directions_and_lies_between_one_and_the_width(case):
    width, equal, seed = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, width, generator=generator, dtype=torch.float64)
    assert 1 - 1e-9 <= effective_rank(x) <= width + 1e-9
    assert effective_rank(x[:, :1] @ torch.ones(1, width, dtype=torch.float64)) == pytest.approx(1)
    flat, _ = torch.linalg.qr(x.new_tensor(np.random.default_rng(seed).normal(size=(40, equal))))
    flat = flat - flat.mean(0)
    even = torch.linalg.svd(flat, full_matrices=False)[0]
    assert effective_rank(even - even.mean(0)) == pytest.approx(equal)
