"""Orders of units: another order is the same function, and a scrambled copy is brought back exactly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from conftest import random_model

from cbd.models.basis import Order, Reordered, as_it_is, compare, nested
from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import load
from cbd.models.interpolation import rewrite, transfer
from cbd.recipes.operators import Trans
from cbd.recipes.specs import ModelSpec, gpt2, llama, pythia, qwen3

SPECS = {
    "gpt2": gpt2(4, 48, head_dim=8, vocab=90, positions=16),
    "gpt_neox": pythia(4, 48, head_dim=8, vocab=90, positions=16),
    "llama": llama(4, 48, 6, 3, 80, vocab=90, positions=16),
    "qwen3": qwen3(4, 48, 6, 3, 80, head_dim=12, vocab=90, positions=16),
}


@pytest.fixture(params=SPECS)
def model(request, tmp_path) -> Checkpoint:
    random_model(SPECS[request.param]).save_pretrained(tmp_path / "model")
    return Checkpoint(tmp_path / "model")


def logits(folder: Path) -> torch.Tensor:
    ids = torch.arange(32).reshape(2, 16) * 7 % 90
    with torch.no_grad():
        return load(folder)(ids).logits


def scrambled(spec: ModelSpec, seed: int = 0) -> Order:
    """A random order that keeps groups of query heads together."""
    draw, order = random.Random(seed), as_it_is(spec)
    mixed = lambda n: tuple(draw.sample(range(n), n))  # noqa: E731
    found = {place: mixed(len(units)) for place, units in order.items()}
    for layer in range(spec.layers):
        groups = found["kv", layer]
        found["heads", layer] = tuple(g * spec.group + i for g in groups for i in mixed(spec.group))
    return found


def written(model: Checkpoint, order: Order, folder: Path) -> Checkpoint:
    folder.mkdir()
    rewrite(Reordered(model, order), folder)
    return Checkpoint(folder)


def test_another_order_is_the_same_function_of_other_weights(model, tmp_path):
    copy = written(model, scrambled(model.spec), tmp_path / "copy")
    assert torch.allclose(logits(copy.folder), logits(model.folder), atol=1e-5)
    table = model.family.roles[0].name
    assert not torch.equal(copy.tensor(table), model.tensor(table))


def test_a_scrambled_copy_is_found_and_brought_back_to_the_bit(model, tmp_path):
    copy = written(model, scrambled(model.spec), tmp_path / "copy")
    found = compare(model, copy)
    assert found.kind == "permuted" and min(found.stream, found.blocks) == pytest.approx(1, abs=1e-5)
    back = Reordered(copy, found.order)
    for _, _, name in model.family.tensors(model.spec):
        assert torch.equal(back.tensor(name), model.tensor(name)), name


def test_a_smaller_model_is_found_in_a_scrambled_larger_one(model, tmp_path):
    """Slices of it at fewer blocks: the matched units are those that it was cut from."""
    (tmp_path / "small").mkdir()
    spec = model.spec.resized(2, model.spec.width // 2 if model.spec.kv == 6 else model.spec.width)
    transfer(model, spec, tmp_path / "small", Trans())
    small, copy = Checkpoint(tmp_path / "small"), written(model, scrambled(model.spec), tmp_path / "copy")
    assert compare(small, model).kind == "same"
    found = compare(small, copy)
    assert found.kind == "permuted" and found.blocks == pytest.approx(1, abs=1e-5)
    view, place = Reordered(copy, found.order), model.family.roles[0].name
    assert torch.equal(view.tensor(place)[:, : spec.width], small.tensor(place))


def test_models_that_share_nothing_are_apart(model, tmp_path):
    random_model(model.spec, seed=9).save_pretrained(tmp_path / "other")
    found = compare(model, Checkpoint(tmp_path / "other"))
    assert found.kind == "apart" and found.blocks < 0.4


def test_an_order_inside_another_moves_its_leading_units_alone():
    outer, inner = as_it_is(gpt2(3, 48, head_dim=8)), as_it_is(gpt2(2, 16, head_dim=8))
    inner["stream", 0] = tuple(reversed(range(16)))
    inner["heads", 1] = (1, 0)
    found = nested(outer, inner, (0, 2))
    assert found["stream", 0] == (*reversed(range(16)), *range(16, 48))
    assert found["heads", 2] == (1, 0, 2, 3, 4, 5) and found["heads", 1] == outer["heads", 1]
