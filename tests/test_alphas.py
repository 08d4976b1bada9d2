"""Learned alphas: the gradient against finite differences, the written mixture against its own alphas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import random_model
from safetensors.torch import load_file

from cbd.data.tokens import Tokens
from cbd.evaluation.held_out import HeldOut, evaluate
from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import load
from cbd.models.interpolation import Mixer, initialize
from cbd.recipes.operators import UNION
from cbd.recipes.specs import gpt2, llama
from cbd.recipes.training import Loss, Training
from cbd.training import alphas
from cbd.training.lessons import Objective, Text, tokens_for

SPECS = {
    "gpt2": [gpt2(layers, width, vocab=300, positions=32) for layers, width in ((2, 64), (3, 64), (3, 128))],
    "llama": [
        llama(layers, width, heads, 1, 2 * width, vocab=300, positions=32)
        for layers, width, heads in ((1, 32, 2), (2, 32, 2), (2, 64, 4))
    ],
}
TRAINING = Training(tokens=40 * 4 * 16, lr=0.05, batch=4, context=16, seed=3)


@pytest.fixture(scope="module", params=SPECS)
def pair(request, tmp_path_factory) -> tuple[Path, Path, object]:
    """A smaller and a larger model of random weights, and a size between them."""
    small, target, large = SPECS[request.param]
    folders = []
    for seed, spec in enumerate((small, large)):
        folder = tmp_path_factory.mktemp("anchor")
        random_model(spec, seed=seed).save_pretrained(folder)
        folders.append(folder)
    return *folders, target


@pytest.fixture
def fit(pair, tiny_corpus_folder, tmp_path):
    def run(per: str, name: str = "out") -> tuple[Path, dict]:
        out = tmp_path / name
        out.mkdir()
        small, large, spec = pair
        done = alphas.fit(small, large, spec, tiny_corpus_folder, TRAINING, per, out, tmp_path / "state")
        return out, done

    return run


def loaded(pair, place: Path, per: str):
    small, large, spec = Checkpoint(pair[0]), Checkpoint(pair[1]), pair[2]
    place.mkdir()
    initialize(small, large, spec, place, 0.5, UNION)
    model = load(place)
    return model, alphas.parts_of(model, small, large, spec, per)


@pytest.mark.parametrize("per", ["model", "block", "tensor"])
def test_the_gradient_of_an_alpha_is_that_of_finite_differences(pair, tiny_corpus_folder, tmp_path, per):
    model, parts = loaded(pair, tmp_path / "begin", per)
    model.double()
    for part in parts:
        part.large, part.adds = part.large.double(), part.adds.double()
    objective, text = Objective(model, Loss()), Text(tokens_for(tiny_corpus_folder, model))
    batch = {name: torch.from_numpy(array) for name, array in text.parts(TRAINING, 0).items()}
    groups = 1 + max(part.group for part in parts)
    at = torch.linspace(0.3, 0.7, groups, dtype=torch.float64)

    def loss(values: torch.Tensor) -> torch.Tensor:
        alphas.mix(parts, values)
        return objective(**batch).total

    loss(at).backward()
    found, step = alphas.gradients(parts, groups), 1e-3  # in a Llama some sums stay in float32
    for i in range(0, groups, max(1, groups // 6)):
        moved = step * torch.eye(groups, dtype=torch.float64)[i]
        with torch.no_grad():
            measured = (loss(at + moved) - loss(at - moved)) / (2 * step)
        assert float(found[i]) == pytest.approx(float(measured), rel=3e-3, abs=0.02)


def test_groups_are_the_model_the_blocks_or_the_tensors(pair, tmp_path):
    counts = {}
    for per in ("model", "block", "tensor"):
        _, parts = loaded(pair, tmp_path / per, per)
        counts[per] = 1 + max(part.group for part in parts)
    assert counts["model"] == 1 and counts["tensor"] == len(parts)
    shared = min(spec.layers for spec in (Checkpoint(pair[0]).spec, pair[2]))
    assert counts["block"] == shared + 1, (
        "and one for what lies outside; a block of one anchor alone has none"
    )


def test_what_is_written_is_the_mixture_at_its_alphas(pair, fit):
    out, done = fit("tensor")
    small, large = Checkpoint(pair[0]), Checkpoint(pair[1])
    assert all(0 <= alpha <= 1 for alpha in done["alphas"].values()) and len(set(done["alphas"].values())) > 3
    tensors = load_file(out / "model.safetensors")
    for role, layer, name in small.family.tensors(pair[2]):
        alpha = done["alphas"].get(name, 0.5)  # what one anchor alone has, has no alpha
        expected = Mixer(small, large, pair[2], alpha, UNION).tensor(role, layer)
        torch.testing.assert_close(tensors[name], expected, rtol=0, atol=1e-6)


def test_one_learned_alpha_is_a_mixture_like_any_other(pair, fit, tmp_path):
    out, done = fit("model")
    (alpha,) = set(done["alphas"].values())
    (tmp_path / "same").mkdir()
    initialize(*pair[:2], pair[2], tmp_path / "same", alpha, UNION)
    ours, theirs = (load_file(place / "model.safetensors") for place in (out, tmp_path / "same"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (out / "config.json").read_text() == (tmp_path / "same" / "config.json").read_text()


def test_learning_lowers_the_loss_and_more_alphas_lower_it_more(pair, fit, tiny_corpus_folder, tmp_path):
    """On the text that it learns from; few alphas cannot fit its batches by heart."""
    held_out = HeldOut.of(Tokens(tiny_corpus_folder), "train", 2048, TRAINING.context)
    loss = lambda folder: evaluate(Objective(load(folder), Loss()), held_out, torch.device("cpu"))["loss"]  # noqa: E731
    (tmp_path / "rule").mkdir()
    initialize(*pair[:2], pair[2], tmp_path / "rule", "distance", UNION)
    one, many = fit("model", name="one")[0], fit("tensor", name="many")[0]
    assert loss(many) < loss(one) - 0.01 < loss(tmp_path / "rule") - 0.01
