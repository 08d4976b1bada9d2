"""Nested training: its slices against checkpoints that were cut, its gradient against theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import dying_at, random_model

from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import hidden_states, load
from cbd.models.interpolation import transfer
from cbd.recipes.data import Corpus
from cbd.recipes.models import Random
from cbd.recipes.operators import Trans
from cbd.recipes.specs import gpt2, llama
from cbd.recipes.training import Loss, Nested, Training
from cbd.training.lessons import Objective
from cbd.training.loop import train
from cbd.training.losses import per_row_loss
from cbd.training.nested import NestedLesson, NestedText

SIZES = {
    "gpt2": [
        gpt2(n, w, head_dim=16, vocab=300, positions=32) for n, w in ((1, 32), (2, 32), (2, 48), (3, 64))
    ],
    "llama": [
        llama(n, w, w // 16, w // 32, 2 * w, vocab=300, positions=32)
        for n, w in ((1, 32), (2, 32), (3, 32), (3, 64))
    ],
}
LOSS = Loss("reverse_kl", cross_entropy=0.5)
TRAINING = Training(
    tokens=60 * 4 * 16, lr=3e-3, batch=4, context=16, seed=3, evaluations=2, evaluation_tokens=256
)


@pytest.fixture(scope="module", params=SIZES)
def whole(request, tmp_path_factory):
    """A model of random weights, twice as a folder (itself and its teacher), and the sizes cut from it."""
    *specs, spec = SIZES[request.param]
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "teacher")]
    for seed, folder in enumerate(folders):
        random_model(spec, seed=seed).save_pretrained(folder)
    return *folders, tuple(specs)


def prepared(whole, corpus, drawn: int = 1):
    start, teacher, specs = whole
    student = load(start)
    lesson = NestedLesson(corpus, teacher, specs, LOSS, drawn)
    objective, text = lesson.prepare(student, start, TRAINING, torch.device("cpu"))
    return student, objective, text


def batch(text: NestedText, step: int = 0) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in text.parts(TRAINING, step).items()}


def test_a_slice_is_the_model_that_trans_cuts(whole, tiny_corpus_folder, tmp_path):
    _, objective, text = prepared(whole, tiny_corpus_folder)
    ids = batch(text)["input_ids"]
    for i, (one, spec) in enumerate(zip(objective._slices, whole[2], strict=True)):
        place = tmp_path / str(i)
        place.mkdir()
        transfer(whole[0], spec, place, Trans())
        for ours, theirs in zip(one.states(ids), hidden_states(load(place), ids), strict=True):
            assert torch.equal(ours, theirs)


def test_the_gradient_is_the_mean_of_those_of_the_models_that_are_cut(whole, tiny_corpus_folder, tmp_path):
    student, objective, text = prepared(whole, tiny_corpus_folder)
    part = batch(text)
    sums = objective(**part)
    sums.total.backward()
    chosen = [0, int(part["others"][0, 0]), len(whole[2]) - 1]
    teacher, totals = load(whole[1]), []
    wanted = {name: torch.zeros_like(p) for name, p in student.named_parameters()}
    for i in chosen:
        place = tmp_path / str(i)
        place.mkdir()
        transfer(whole[0], whole[2][i], place, Trans())
        alone = load(place)
        result = Objective(alone, LOSS, teacher)(part["input_ids"], part["labels"])
        result.total.backward()
        totals.append(result.total)
        one, family = objective._slices[i], Checkpoint(place).family
        for role, layer, name in family.tensors(whole[2][i]):
            source, _ = one._trans._old_layer(layer)
            into = wanted[family.parameter(role.name.format(layer=source))]
            gradient = alone.get_parameter(family.parameter(name)).grad
            into[_leading(into, role, whole[2][i], one._trans.old)] += gradient / len(chosen)
    torch.testing.assert_close(sums.total, torch.stack(totals).mean())
    for name, p in student.named_parameters():
        found = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(found, wanted[name], rtol=1e-4, atol=1e-5)


def _leading(into: torch.Tensor, role, spec, old) -> tuple:
    """Where the units of a size lie in a tensor of the whole model."""
    places = []
    for axis in role.axes:
        block, units = axis.block(old), axis.units(old)
        at = np.arange(axis.size(old)).reshape(axis.repeat, units, block)[:, : axis.units(spec)]
        places.append(at.ravel())
    return np.ix_(*places)


def test_every_size_learns_and_a_killed_run_goes_on(whole, tiny_corpus_folder, tmp_path):
    start, teacher, specs = whole
    lesson = NestedLesson(tiny_corpus_folder, teacher, specs, LOSS, 1)

    def run(name: str):
        for folder in ("out", "state"):
            (tmp_path / name / folder).mkdir(parents=True, exist_ok=True)
        return train(start, lesson, TRAINING, TRAINING.lr, tmp_path / name / "out", tmp_path / name / "state")

    run("whole")
    _, before, text = prepared(whole, tiny_corpus_folder)
    _, after, _ = prepared((tmp_path / "whole" / "out", teacher, specs), tiny_corpus_folder)
    part = batch(text, 1000)
    for one, other in zip(before._slices, after._slices, strict=True):
        first, last = (
            per_row_loss(*piece.states(part["input_ids"]), part["labels"]).mean() for piece in (one, other)
        )
        assert last < first - 0.1

    with dying_at(20, NestedText):
        run("killed")
    run("killed")
    ours, theirs = (tmp_path / name / "out" / "model.safetensors" for name in ("whole", "killed"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_each_size_in_between_is_drawn_as_often_as_another(tiny_corpus_folder):
    text = NestedText(Tokens(tiny_corpus_folder), 6, 2)
    drawn = [text.parts(TRAINING, step)["others"] for step in range(400)]
    assert all((rows == rows[0]).all() and len(set(rows[0])) == 2 for rows in drawn)
    counts = np.bincount(np.concatenate([rows[0] for rows in drawn]), minlength=6)
    assert counts[0] == counts[5] == 0 and (abs(counts[1:5] - 200) < 50).all()
    few = NestedText(Tokens(tiny_corpus_folder), 2, 2).parts(TRAINING, 0)
    assert few["others"].shape == (4, 0)


def test_sizes_that_do_not_nest_are_refused():
    small, middle, wide, large = SIZES["gpt2"]
    start = Random(large, Corpus())

    def nested(*specs):
        return Nested(start, start, specs, Corpus(), TRAINING)

    assert nested(small, middle, wide).flops_per_token == sum(
        spec.training_flops(16) for spec in (small, middle, wide)
    ) + large.forward_flops(16)
    with pytest.raises(CbdError, match="from small to large"):
        nested(middle, small)
    with pytest.raises(CbdError, match="from small to large"):
        nested(small)
    outside = gpt2(4, 64, head_dim=16, vocab=300, positions=32)
    with pytest.raises(CbdError, match="4x64 cannot be cut from 3x64"):
        nested(small, outside)
