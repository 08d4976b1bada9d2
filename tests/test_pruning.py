"""Blocks left out one by one, each the one that the loss on a text misses least."""

import json

import numpy as np
import pytest
import torch
from conftest import random_model
from transformers import AutoModelForCausalLM

from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint, Selected
from cbd.models.interpolation import rewrite
from cbd.realize import realize, store
from cbd.recipes.models import Interpolated, Pruned, Random, Sorted, Transferred
from cbd.recipes.operators import UNION, kept
from cbd.recipes.specs import gpt2, llama, pythia, qwen3
from cbd.training import pruning
from cbd.training.pruning import least_missed

DEEP = 6
SIZES = {"vocab": 60, "positions": 32}
SHAPES = {
    "gpt2": gpt2(DEEP, 32, head_dim=16, **SIZES),
    "gpt_neox": pythia(DEEP, 32, head_dim=16, **SIZES),
    "llama": llama(DEEP, 32, 2, 1, 48, **SIZES),
    "qwen3": qwen3(DEEP, 32, 2, 1, 48, head_dim=24, **SIZES),
}
WINDOWS = np.random.default_rng(0).integers(0, 60, (20, 17))  # more rows than one batch holds


def loss_of(folder) -> float:
    """By transformers itself, in nats per token."""
    model, ids = AutoModelForCausalLM.from_pretrained(folder).eval(), torch.from_numpy(WINDOWS)
    with torch.no_grad():
        return model(ids, labels=ids).loss.item()


@pytest.fixture(params=SHAPES)
def deep(request, tmp_path):
    """A model of each family, in memory and as a checkpoint."""
    model = random_model(SHAPES[request.param], seed=3)
    model.save_pretrained(tmp_path / "deep")
    return model, Checkpoint(tmp_path / "deep")


def chosen(deep, layers: int, keep: int, state) -> dict[str, list]:
    model, checkpoint = deep
    state.mkdir(exist_ok=True)
    return least_missed(model, checkpoint.family, WINDOWS, layers, keep, state, "test")


@pytest.mark.parametrize("keep", [0, 2, 3])
def test_each_round_leaves_out_the_block_without_which_a_written_model_is_best(deep, keep, tmp_path):
    before = {name: tensor.clone() for name, tensor in deep[0].state_dict().items()}
    found = chosen(deep, 3, keep, tmp_path / "state")
    left = list(range(DEEP))
    assert found["losses"][0] == pytest.approx(loss_of(deep[1].folder), abs=1e-5)
    for i, (removed, loss) in enumerate(zip(found["removed"], found["losses"][1:], strict=True)):
        tried = {}
        for block in left:
            place = tmp_path / f"{i}-{block}"
            place.mkdir()
            rewrite(Selected(deep[1], [b for b in left if b != block]), place)
            tried[block] = loss_of(place)
        free = {block: tried[block] for block in left if block not in kept(DEEP, keep, "ends")}
        assert removed == min(free, key=free.__getitem__)
        assert loss == pytest.approx(tried[removed], abs=1e-5)
        left.remove(removed)
    assert found["blocks"] == left and set(kept(DEEP, keep, "ends")) <= set(left)
    after = deep[0].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), (
        "the model is whole again"
    )


def test_a_deeper_cut_goes_on_where_a_lesser_one_ends(deep, tmp_path):
    lesser, deeper = (chosen(deep, layers, 2, tmp_path / str(layers)) for layers in (4, 2))
    assert deeper["removed"][:2] == lesser["removed"] and deeper["losses"][:3] == lesser["losses"]
    (tmp_path / "lesser").mkdir()
    rewrite(Selected(deep[1], lesser["blocks"]), tmp_path / "lesser")
    cut = Checkpoint(tmp_path / "lesser")
    model = AutoModelForCausalLM.from_pretrained(cut.folder).eval()
    again = chosen((model, cut), 2, 2, tmp_path / "again")
    assert [lesser["blocks"][i] for i in again["blocks"]] == deeper["blocks"]


def test_a_killed_search_for_blocks_goes_on(deep, tmp_path, monkeypatch):
    whole = chosen(deep, 3, 0, tmp_path / "whole")
    rounds, trials = [], pruning._without

    def killed(*given):
        if len(rounds) == 2:
            raise KeyboardInterrupt
        rounds.append(given)
        return trials(*given)

    monkeypatch.setattr(pruning, "_without", killed)
    with pytest.raises(KeyboardInterrupt):
        chosen(deep, 3, 0, tmp_path / "state")
    assert len(json.loads((tmp_path / "state" / "removed.json").read_text())["removed"]) == 2
    rounds.clear()
    assert chosen(deep, 3, 0, tmp_path / "state") == whole and len(rounds) == 1


@pytest.mark.parametrize(("layers", "keep"), [(0, 0), (7, 0), (3, 4)])
def test_more_blocks_than_can_stay_are_refused(deep, layers, keep, tmp_path):
    with pytest.raises(CbdError, match=f"of 6 blocks {layers} cannot stay, {keep} of them the outermost"):
        chosen(deep, layers, keep, tmp_path / "state")


def test_a_block_that_is_not_there_is_refused(deep):
    with pytest.raises(CbdError, match=r"has blocks 0 to 5, not all of \[0, 6\]"):
        Selected(deep[1], [0, 6])


def test_a_pruned_model_is_a_plain_checkpoint_that_mixes_with_its_anchor(tiny_corpus):
    """The mixture's blocks that the smaller anchor has no share in are the larger one's that were chosen."""
    spec = gpt2(5, 32, head_dim=16, vocab=tiny_corpus.vocab_size, positions=32)
    large = Sorted(Random(spec, tiny_corpus))
    small = Random(gpt2(2, 32, head_dim=16, vocab=tiny_corpus.vocab_size, positions=32), tiny_corpus, 1)
    target = gpt2(3, 32, head_dim=16, vocab=tiny_corpus.vocab_size, positions=32)
    left = Pruned(large, 3, tiny_corpus, keep=2, sample=256, context=16)
    mixed = Interpolated(small, left, target, 1.0, UNION)
    alone = Transferred(left, target, UNION.trans)
    folders = [realize(recipe) for recipe in (large, small, left, mixed, alone)]
    whole, two, three, mix, same = (Checkpoint(folder) for folder in folders)
    blocks = store.record(left)["blocks"]
    assert blocks[0] == 0 and blocks[-1] == 4, "the two that the smaller anchor stands for"
    for role, layer, name in three.family.tensors(three.spec):
        there = whole.tensor(role.name.format(layer=layer if layer is None else blocks[layer]))
        assert torch.equal(three.tensor(name), there) and torch.equal(same.tensor(name), there)
        if layer is not None:
            share = {0: two.tensor(role.name.format(layer=0)), 2: two.tensor(role.name.format(layer=1))}
            assert torch.equal(mix.tensor(name), share.get(layer, there))
    assert AutoModelForCausalLM.from_pretrained(three.folder).config.num_hidden_layers == 3
