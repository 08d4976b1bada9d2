"""Blocks left out one by one, each the one that the loss on a text misses least."""

import json

import numpy as np
import pytest
import torch
from conftest import random_model
from torch.nn.functional import cross_entropy, kl_div
from transformers import AutoModelForCausalLM

from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint, Replaced, Selected
from cbd.models.correction import corrected
from cbd.models.forward import hooked
from cbd.models.interpolation import rewrite
from cbd.realize import realize, store
from cbd.recipes.models import Interpolated, Pruned, Random, Sorted, Transferred
from cbd.recipes.operators import UNION, kept
from cbd.recipes.specs import gpt2, llama, pythia, qwen3
from cbd.training import judge, pruning
from cbd.training.pruning import least_missed

DEEP = 6
SIZES = {"vocab": 60, "positions": 32}
SHAPES = {
    "gpt2": gpt2(DEEP, 32, head_dim=16, **SIZES),
    "gpt_neox": pythia(DEEP, 32, head_dim=16, **SIZES),
    "llama": llama(DEEP, 32, 2, 1, 48, **SIZES),
    "qwen3": qwen3(DEEP, 32, 2, 1, 48, head_dim=24, **SIZES),
}
TOP = 7  # of 60 tokens
WINDOWS = np.random.default_rng(0).integers(0, 60, (20, 17))  # more rows than one batch holds


def logits_of(folder) -> torch.Tensor:
    """(tokens, V), by transformers itself."""
    model, ids = AutoModelForCausalLM.from_pretrained(folder).eval(), torch.from_numpy(WINDOWS[:, :-1])
    with torch.no_grad():
        return model(ids).logits.flatten(0, 1)


def missed(folder, whole, score: str) -> float:
    """The score of a cut model beside the whole one, written anew from its definition."""
    ours, theirs = logits_of(folder), logits_of(whole)
    if score == "loss":
        return cross_entropy(ours, torch.from_numpy(WINDOWS[:, 1:].copy()).flatten()).item()
    if score == "kl":
        return kl_div(
            ours.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean"
        ).item()
    highest = theirs >= theirs.sort(-1).values[:, -TOP, None]
    ours, theirs = (torch.where(highest, logits, 0.0) for logits in (ours, theirs))
    return (1 - (ours * theirs).sum(-1) / ours.norm(dim=-1) / theirs.norm(dim=-1)).mean().item()


@pytest.fixture(params=SHAPES)
def deep(request, tmp_path):
    """A model of each family, in memory and as a checkpoint."""
    model = random_model(SHAPES[request.param], seed=3)
    model.save_pretrained(tmp_path / "deep")
    return model, Checkpoint(tmp_path / "deep")


def chosen(deep, layers: int, keep: int, state, score: str = "loss") -> dict[str, list]:
    model, checkpoint = deep
    state.mkdir(exist_ok=True)
    return least_missed(model, checkpoint.family, WINDOWS, layers, keep, state, "test", score)


@pytest.mark.parametrize(("score", "keep"), [("loss", 0), ("loss", 2), ("loss", 3), ("kl", 0), ("logits", 2)])
def test_each_round_leaves_out_the_block_that_a_written_model_misses_least(
    deep, score, keep, tmp_path, monkeypatch
):
    monkeypatch.setattr(judge, "TOP", TOP)
    before = {name: tensor.clone() for name, tensor in deep[0].state_dict().items()}
    found = chosen(deep, 3, keep, tmp_path / "state", score)
    left, whole = list(range(DEEP)), deep[1].folder
    assert found["scores"][0] == pytest.approx(missed(whole, whole, score), abs=1e-5)
    for i, (removed, least) in enumerate(zip(found["removed"], found["scores"][1:], strict=True)):
        tried = {}
        for block in left:
            place = tmp_path / f"{i}-{block}"
            place.mkdir()
            rewrite(Selected(deep[1], [b for b in left if b != block]), place)
            tried[block] = missed(place, whole, score)
        free = {block: tried[block] for block in left if block not in kept(DEEP, keep, "ends")}
        assert removed == min(free, key=free.__getitem__)
        assert least == pytest.approx(tried[removed], abs=1e-5)
        left.remove(removed)
    assert found["blocks"] == left and set(kept(DEEP, keep, "ends")) <= set(left)
    after = deep[0].state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items()), (
        "the model is whole again"
    )


def test_a_deeper_cut_goes_on_where_a_lesser_one_ends(deep, tmp_path):
    lesser, deeper = (chosen(deep, layers, 2, tmp_path / str(layers)) for layers in (4, 2))
    assert deeper["removed"][:2] == lesser["removed"] and deeper["scores"][:3] == lesser["scores"]
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


def spread(out: torch.Tensor, family) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel; RMSNorm has a mean square alone."""
    mean = out.mean((0, 1)) if family.norm == "layer" else torch.zeros(out.shape[-1])
    return mean, (out - mean).square().mean((0, 1))


def outputs(model, family, spec) -> dict[str, torch.Tensor]:
    """What each norm of the stream gives on the rows, by the name of its gain."""
    seen: dict[str, torch.Tensor] = {}
    with hooked(
        model, [n for r, _, n in family.tensors(spec) if r.norm], lambda n, _, y: seen.update({n: y})
    ):
        model(torch.from_numpy(WINDOWS[:, :-1]))
    return seen


@pytest.mark.parametrize("blocks", [(0, 1, 4, 5), (0, 2, 3), (1, 2, 3, 4, 5)])
@torch.no_grad()
def test_behind_a_gap_every_norm_has_the_statistics_that_it_had_in_the_whole_model(deep, blocks, tmp_path):
    model, checkpoint = deep
    family = checkpoint.family
    for name, parameter in model.named_parameters():  # norms of their own, as trained ones have
        if "norm" in name or "ln_" in name:
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    model.save_pretrained(checkpoint.folder)
    before, whole = outputs(model, family, checkpoint.spec), Checkpoint(checkpoint.folder)
    cut = Selected(whole, blocks)
    found = corrected(model, whole, blocks, torch.from_numpy(WINDOWS[:, :-1]))
    (tmp_path / "cut").mkdir()
    rewrite(Replaced(cut, found), tmp_path / "cut")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "cut").eval()
    after = outputs(plain, family, cut.spec)
    first = next(i for i, block in enumerate(blocks) if i != block)
    for role, layer, name in family.tensors(cut.spec):
        if role.norm:
            there = before[role.name.format(layer=layer if layer is None else blocks[layer])]
            for value, due in zip(spread(after[name], family), spread(there, family), strict=True):
                torch.testing.assert_close(value, due, atol=1e-4, rtol=1e-3)
        if role.kind == "weight" or (layer is not None and layer < first):
            assert name not in found and torch.equal(
                Checkpoint(tmp_path / "cut").tensor(name), cut.tensor(name)
            )


def test_a_model_without_a_gap_needs_no_correction(deep):
    """The statistics of the last norm alone are measured, and they are its own."""
    model, checkpoint = deep
    found = corrected(model, checkpoint, range(DEEP), torch.from_numpy(WINDOWS[:, :-1]))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, checkpoint.tensor(name), atol=1e-5, rtol=1e-5)


def test_a_corrected_recipe_differs_from_a_cut_one_in_its_norms_alone(tiny_corpus):
    spec = gpt2(5, 32, head_dim=16, vocab=tiny_corpus.vocab_size, positions=32)
    how = {"sample": 256, "context": 16, "score": "logits"}
    both = [Pruned(Random(spec, tiny_corpus), 3, tiny_corpus, **how, corrected=c) for c in (False, True)]
    plain, restored = (Checkpoint(realize(recipe)) for recipe in both)
    assert store.record(both[0])["blocks"] == store.record(both[1])["blocks"]
    changed = {
        role.kind
        for role, _, name in plain.family.tensors(plain.spec)
        if not torch.equal(plain.tensor(name), restored.tensor(name))
    }
    assert changed == {"gain", "shift"}


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
