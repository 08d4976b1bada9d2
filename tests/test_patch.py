"""Boomerang distillation (arXiv 2510.05064): a teacher's blocks put back into a student cut from it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import CosineEmbeddingLoss
from torch.nn.functional import kl_div
from transformers import AutoModelForCausalLM, AutoTokenizer

import cbd
from cbd.commands.init import Size
from cbd.data.tokens import Tokens
from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import keep_attentions, load
from cbd.models.interpolation import initialize, put_back, transfer
from cbd.models.sources import local
from cbd.realize import realize, store
from cbd.recipes.data import Corpus
from cbd.recipes.models import Patched, Random, Sorted, Transferred
from cbd.recipes.operators import PATCH, Operator, Trans, kept, patched
from cbd.recipes.specs import ModelSpec, gpt2, llama
from cbd.recipes.training import Anchor, Loss, Training
from cbd.training import patching
from cbd.training.lessons import Objective, attention_divergence
from cbd.training.patching import nearest

TRAINING = Training(tokens=30 * 4 * 16, lr=2e-3, batch=4, context=16, evaluations=1, evaluation_tokens=64)
ALIGNED = Loss("forward_kl", cross_entropy=0.5, alignment=2.0)
SHAPES = {
    "llama": llama(7, 32, 4, 2, 48, vocab=300, positions=64, tied=False),
    "tied llama": llama(7, 32, 4, 2, 48, vocab=300, positions=64),
    "gpt2": gpt2(7, 32, head_dim=16, vocab=300, positions=64),
}


@st.composite
def sizes(draw) -> tuple[int, int, int, str]:
    small = draw(st.integers(1, 12))
    target = draw(st.integers(small, 30))
    return small, draw(st.integers(target, 30)), target, draw(st.sampled_from(["ends", "even", "prefix"]))


@given(sizes())
def test_every_block_has_its_place_and_the_large_ones_stand_at_the_end(case):
    small, large, target, cut = case
    blocks, places = patched(small, large, target, cut), kept(large, small, cut)
    assert len(blocks) == target
    at = [block if block >= 0 else places[-1 - block] for block in blocks]
    assert at == sorted(set(at)), "in the order of the large model, each place once"
    theirs = [block >= 0 for block in blocks]
    assert theirs == sorted(theirs), "a group that is put back in part follows the small block that stays"
    if target == small:
        assert blocks == tuple(-1 - i for i in range(small))
    if target == large > small:
        assert blocks == tuple(range(large))


@pytest.fixture(params=SHAPES, ids=str)
def pair(request, tiny_corpus_folder, tmp_path) -> tuple[Path, Path]:
    """A student of 4 blocks that was cut from a teacher of 7, and moved away from it; and the teacher."""
    spec = SHAPES[request.param]
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    random_model(spec, seed=1, mean=0.0).save_pretrained(teacher)
    AutoTokenizer.from_pretrained(tiny_corpus_folder).save_pretrained(teacher)
    student.mkdir()
    transfer(teacher, replace(spec, layers=4), student, PATCH.trans)
    model = AutoModelForCausalLM.from_pretrained(student)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    model.save_pretrained(student)
    return student, teacher


def body(model: nn.Module) -> tuple[nn.Module, str, str]:
    """The part that holds blocks and final norm, and how it names them."""
    return (
        (model.transformer, "h", "ln_f") if hasattr(model, "transformer") else (model.model, "layers", "norm")
    )


def reference(student: Path, teacher: Path, patches: int) -> nn.Module:
    """As the paper says it, on loaded models: the last `patches` student blocks make way for their groups."""
    small, large = (AutoModelForCausalLM.from_pretrained(f).eval() for f in (student, teacher))
    copied = [0, 2, 4, 6]  # every second block of seven
    (ours, blocks, norm), (theirs, _, _) = body(small), body(large)
    first = len(copied) - 1 - patches  # the last student block stands for itself alone
    mine = list(getattr(ours, blocks))[:first]
    others = list(getattr(theirs, blocks))[copied[first] :]
    setattr(ours, blocks, nn.ModuleList(deepcopy(mine + others)))
    setattr(ours, norm, deepcopy(getattr(theirs, norm)))
    small.config.num_hidden_layers = len(mine) + len(others)
    if not small.config.tie_word_embeddings:
        small.lm_head = deepcopy(large.lm_head)
    for i, block in enumerate(getattr(ours, blocks)):
        for part in block.modules():
            if hasattr(part, "layer_idx"):
                part.layer_idx = i
    return small


@pytest.mark.parametrize("patches", [1, 2])
def test_patched_models_compute_what_the_papers_surgery_does(pair, tmp_path, patches):
    student, teacher = pair
    spec: ModelSpec = replace(Checkpoint(teacher).spec, layers=4 + patches)
    out = tmp_path / "out"
    out.mkdir()
    initialize(student, teacher, spec, out, operator=PATCH)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(out).eval()(ids, use_cache=False).logits
        expected = reference(student, teacher, patches)(ids, use_cache=False).logits
        plain = AutoModelForCausalLM.from_pretrained(student).eval()(ids, use_cache=False).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-2), "else the case says nothing"


def test_a_user_can_patch_and_the_card_says_so(pair, tmp_path):
    student, teacher = pair
    cbd.init_checkpoint(student, teacher, tmp_path / "slm", Size(layers=5, width=32), operator=PATCH)
    assert Checkpoint(tmp_path / "slm").spec.layers == 5
    card = (tmp_path / "slm" / "README.md").read_text()
    assert "blocks of the large one put back" in card and "theta" not in card


@pytest.mark.parametrize(("layers", "whose"), [(4, "student"), (7, "teacher")])
def test_none_put_back_is_the_student_and_all_the_teacher(pair, tmp_path, layers, whose):
    student, teacher = pair
    out = tmp_path / "out"
    out.mkdir()
    initialize(student, teacher, replace(Checkpoint(teacher).spec, layers=layers), out, operator=PATCH)
    given_, made = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in (whose, "out"))
    expected = given_.state_dict()
    for name, weight in made.state_dict().items():
        assert torch.equal(weight, expected[name])


WINDOWS = np.random.default_rng(0).integers(0, 40, (3, 17))


def apart(student: Path, teacher: Path, blocks: tuple[int, ...], out: Path) -> float:
    """KL(teacher || the written model with these blocks), nats per token, by torch."""
    out.mkdir()
    put_back(student, teacher, blocks, out)
    ids = torch.from_numpy(WINDOWS[:, :-1])
    with torch.no_grad():
        ours, theirs = (
            AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits.log_softmax(-1).flatten(0, 1)
            for folder in (out, teacher)
        )
    return kl_div(ours, theirs, log_target=True, reduction="batchmean").item()


def greedily(pair, layers: int, state: Path) -> dict[str, list]:
    state.mkdir(exist_ok=True)
    models = (load(folder) for folder in pair)
    return nearest(*models, Checkpoint(pair[0]).family, WINDOWS, layers, state, "test")


def test_each_round_puts_back_the_blocks_with_which_a_written_model_is_nearest(pair, tmp_path):
    """Of seven blocks four stayed, 0, 2, 4 and 6; each stands for the two from it on, the last for itself."""
    found = greedily(pair, 6, tmp_path / "state")
    groups = {-1: (0, 1), -2: (2, 3), -3: (4, 5), -4: (6,)}
    blocks: tuple[int, ...] = (-1, -2, -3, -4)
    for number, score in enumerate(found["scores"]):
        if number:
            tried = {}
            for own in filter(lambda i: i < 0, blocks):
                at = blocks.index(own)
                trial = (*blocks[:at], *groups[own], *blocks[at + 1 :])
                tried[trial] = apart(*pair, trial, tmp_path / f"{number}{own}")
            blocks = min(tried, key=tried.__getitem__)
            assert score == pytest.approx(tried[blocks], abs=1e-5)
        else:
            assert score == pytest.approx(apart(*pair, blocks, tmp_path / "alone"), abs=1e-5)
    assert found["blocks"] == list(blocks) and len(blocks) == 6


def test_all_put_back_is_no_distance_away(pair, tmp_path):
    found = greedily(pair, 7, tmp_path / "state")
    assert found["blocks"] == list(range(7)) and found["scores"][-1] == pytest.approx(0, abs=1e-6)
    assert min(found["scores"][:-1]) > 1e-3


def test_a_killed_patching_goes_on(pair, tmp_path, monkeypatch):
    whole, trials, rounds = greedily(pair, 6, tmp_path / "whole"), patching._trials, []

    def killed(*given):
        if len(rounds) == 1:
            raise KeyboardInterrupt
        rounds.append(given)
        return trials(*given)

    monkeypatch.setattr(patching, "_trials", killed)
    with pytest.raises(KeyboardInterrupt):
        greedily(pair, 6, tmp_path / "state")
    rounds.clear()
    monkeypatch.setattr(patching, "_trials", lambda *given: rounds.append(given) or trials(*given))
    assert greedily(pair, 6, tmp_path / "state") == whole and len(rounds) == len(whole["scores"]) - 2


@pytest.mark.parametrize("layers", [3, 8])
def test_a_depth_beyond_the_two_is_refused(pair, layers, tmp_path):
    with pytest.raises(CbdError, match=f"{layers} blocks lie not between the student's 4 and its 7"):
        greedily(pair, layers, tmp_path / "state")


@pytest.mark.parametrize("target", [3, 4, 5])
def test_where_no_group_fits_its_last_blocks_are_put_back(target):
    """Of ten blocks two stayed: the first stands for nine, the second for itself."""
    assert set(patching._trials((-1, -2), (0, 9, 10), target - 2)) == {(-1, 9)}, "the last stands for one"
    assert set(patching._trials((-1, 9), (0, 9, 10), target - 2)) == {(-1, *range(11 - target, 9), 9)}


def test_a_patched_recipe_is_a_plain_checkpoint(tiny_corpus):
    spec = gpt2(5, 32, head_dim=16, vocab=tiny_corpus.vocab_size, positions=32)
    teacher = Random(spec, tiny_corpus)
    student = Transferred(teacher, replace(spec, layers=3), PATCH.trans)
    made = Patched(student, teacher, 4, tiny_corpus, sample=256, context=16)
    found = Checkpoint(realize(made))
    assert found.spec == made.spec == replace(spec, layers=4)
    assert len(store.record(made)["blocks"]) == 4


def test_models_that_differ_in_more_than_depth_cannot_be_patched(save_gpt2, tiny_corpus_folder, tmp_path):
    small, large = (
        save_gpt2(layers=n, width=16 * n, heads=n, vocab=300, tokenizer=tiny_corpus_folder) for n in (2, 4)
    )
    with pytest.raises(CbdError, match="differ in more than depth: mix them by another operator"):
        initialize(small, large, replace(Checkpoint(large).spec, layers=3), tmp_path, operator=PATCH)
    chosen = Operator("patch", Trans(cut_layers="importance"))
    with pytest.raises(CbdError, match="chosen by importance"):
        initialize(large, large, Checkpoint(large).spec, tmp_path, operator=chosen)


# Alignment ---------------------------------------------------------------------------------------------


def distances(ours: nn.Module, theirs: nn.Module, ids: torch.Tensor, pairs) -> torch.Tensor:
    """By torch's own loss, on the states that transformers gives, embeddings first."""
    found = []
    for model in (ours, theirs):
        with torch.set_grad_enabled(model is ours):
            found.append(model(ids, output_hidden_states=True, use_cache=False).hidden_states)
    one = torch.ones(ids.numel())
    states = [(found[0][i].flatten(0, 1), found[1][j].flatten(0, 1)) for i, j in pairs]
    return torch.stack([CosineEmbeddingLoss()(*both, one) for both in states]).mean()


def gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def test_alignment_is_the_cosine_distance_at_mapped_blocks(pair):
    student, teacher = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in pair)
    pairs = ((0, 0), (1, 2), (2, 4), (3, 6), (4, 7))
    anchor = Anchor.boomerang(local(pair[1]), 4, Corpus(), TRAINING, ALIGNED)
    assert anchor.aligned == pairs
    ids = torch.arange(60).reshape(2, 30) * 4
    batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    totals, gradients = [], []
    for loss in (ALIGNED, replace(ALIGNED, alignment=0.0)):
        student.zero_grad()
        aligned = anchor.aligned if loss.alignment else ()
        sums = Objective(student, loss, teacher.requires_grad_(False), aligned=aligned)(**batch)
        sums.total.backward()
        totals.append(sums.total.detach())
        gradients.append(gradient(student).clone())
    student.zero_grad()
    expected = distances(student, teacher, batch["input_ids"], pairs) * ids[:, 1:].numel() * ALIGNED.alignment
    expected.backward()
    assert totals[0] - totals[1] == pytest.approx(float(expected.detach()), rel=1e-4)
    own = gradient(student)
    assert torch.allclose(gradients[0] - gradients[1], own, atol=1e-4 * own.abs().max())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_alignment_with_a_wider_teacher_compares_the_channels_that_the_student_has(name):
    spec = SHAPES[name]
    small = spec.resized(4, spec.width // 2)
    teacher, student = random_model(spec).requires_grad_(False), random_model(small, seed=1)
    llm = Random(spec, Corpus())
    anchor = Anchor(llm, Transferred(llm, small), Corpus(), TRAINING, ALIGNED)
    assert anchor.aligned == ((0, 0), (1, 1), (2, 5), (3, 6), (4, 7)), "the outer blocks stay"
    ids = torch.arange(60).reshape(2, 30) * 4
    batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    plain, aligned = (
        Objective(student, loss, teacher, aligned=anchor.aligned if loss.alignment else ())(**batch).total
        for loss in (replace(ALIGNED, alignment=0.0), ALIGNED)
    )
    states = [
        model(batch["input_ids"], output_hidden_states=True, use_cache=False).hidden_states
        for model in (student, teacher)
    ]
    one = torch.ones(batch["input_ids"].numel())
    apart = [
        CosineEmbeddingLoss()(states[0][i].flatten(0, 1), states[1][j][..., : small.width].flatten(0, 1), one)
        for i, j in anchor.aligned
    ]
    expected = torch.stack(apart).mean() * batch["labels"].numel() * ALIGNED.alignment
    assert (aligned - plain).item() == pytest.approx(expected.item(), rel=1e-4)


def test_alignment_without_slices_of_the_teacher_is_refused():
    spec = SHAPES["gpt2"]
    teacher = Random(spec, Corpus())
    small = replace(spec, layers=4)
    narrow = spec.resized(4, spec.width // 2)
    sorted_now = Transferred(teacher, narrow, Trans(cut_width="sorted"))
    for start in (Random(small, Corpus()), Transferred(Sorted(teacher), small), sorted_now):
        with pytest.raises(CbdError, match="start from leading slices of the teacher itself"):
            Anchor(teacher, start, Corpus(), TRAINING, ALIGNED)
    with pytest.raises(CbdError, match="needs a teacher"):
        Loss(alignment=1.0)


LOOKING = replace(ALIGNED, alignment=0.0, attention=3.0)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_attention_is_the_divergence_of_what_mapped_heads_look_at(name):
    """Against attentions of transformers' own, place by place, and its gradient."""
    spec = SHAPES[name]
    small = spec.resized(4, spec.width // 2)
    teacher, student = random_model(spec).requires_grad_(False), random_model(small, seed=1)
    llm = Random(spec, Corpus())
    anchor = Anchor(llm, Transferred(llm, small), Corpus(), TRAINING, LOOKING)
    assert anchor.aligned[:-1] == ((0, 0), (1, 1), (2, 5), (3, 6))
    for model in (student, teacher):
        keep_attentions(model)
    ids = torch.arange(60).reshape(2, 30) * 4
    batch = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    totals, gradients = [], []
    for loss in (LOOKING, replace(LOOKING, attention=0.0)):
        student.zero_grad()
        total = Objective(student, loss, teacher, aligned=anchor.aligned if loss.inner else ())(**batch).total
        total.backward()
        totals.append(total.detach())
        gradients.append(gradient(student).clone())
    student.zero_grad()
    ours, theirs = (m(batch["input_ids"], output_attentions=True).attentions for m in (student, teacher))
    apart = [
        kl_div(ours[i][b, head, t, : t + 1].log(), theirs[j][b, head, t, : t + 1], reduction="sum")
        for i, j in anchor.aligned[:-1]
        for head in range(small.heads)
        for b in range(2)
        for t in range(29)
    ]
    expected = torch.stack(apart).sum() / (4 * small.heads) * LOOKING.attention
    expected.backward()
    assert totals[0] - totals[1] == pytest.approx(float(expected.detach()), rel=1e-4)
    own = gradient(student)
    assert torch.allclose(gradients[0] - gradients[1], own, atol=1e-4 * own.abs().max())


def states_apart(ours: nn.Module, theirs: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return distances(ours, theirs, ids, ((1, 2), (2, 4), (3, 6), (4, 7)))


def attentions_apart(ours: nn.Module, theirs: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    for model in (ours, theirs):
        keep_attentions(model)
    own, other = (model(ids, output_attentions=True).attentions for model in (ours, theirs))
    return attention_divergence([(own[i], other[j]) for i, j in ((0, 0), (1, 2), (2, 4), (3, 6))])


@pytest.mark.parametrize(("part", "apart"), [("alignment", states_apart), ("attention", attentions_apart)])
def test_what_is_compared_comes_together(part, apart, pair, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    teacher, corpus = local(pair[1]), replace(tiny_corpus, tokenizer=local(pair[1]))
    ids = torch.from_numpy(Tokens(realize(corpus)).windows("validation", 128, 32)[:, :-1])
    found = []
    for weight in (8.0, 0.0):
        loss = replace(ALIGNED, **{"alignment": 0.0, part: weight})
        anchor = Anchor.boomerang(teacher, 4, corpus, TRAINING, loss)
        models = [AutoModelForCausalLM.from_pretrained(f).eval() for f in (realize(anchor), pair[1])]
        found.append(float(apart(*models, ids).detach()))
    assert found[0] < 0.9 * found[1]


def test_attention_of_heads_that_share_keys_otherwise_is_refused():
    spec = SHAPES["llama"]
    llm = Random(spec, Corpus())
    single = replace(spec, layers=4, kv_heads=1)
    with pytest.raises(CbdError, match="2 and 4 of them share a key"):
        Anchor(llm, Transferred(llm, single), Corpus(), TRAINING, LOOKING)
    with pytest.raises(CbdError, match="needs a teacher"):
        Loss(attention=1.0)
    with pytest.raises(CbdError, match="at least 0"):
        replace(LOOKING, attention=-1.0)
