"""Trans: what must preserve the function does, what must not does not, and cuts pick what an index would."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint
from cbd.models.families import FAMILIES
from cbd.models.interpolation import transfer
from cbd.models.trans import Transfer, check_transferable, stream_scores, unit_scores
from cbd.recipes.operators import Trans
from cbd.recipes.specs import ModelSpec

GPT2 = FAMILIES["gpt2"]

State = dict[str, Tensor]
PRESERVING = [Trans(grow_width=width) for width in ("pad", "duplicate")]
EPSILONS = [1e-12, 1e-5, 0.05]  # the last one so large that a wrong one shows
# in logits: what fp32 rounds, a few 1e-6, and up to 1.3e-5 for a norm over four channels around a mean of 1
ROUNDING = 2e-5


@dataclass(frozen=True)
class Case:
    """A model's shape, and how much larger it becomes."""

    layers: int
    heads: int
    head_dim: int
    ffn: int
    vocab: int
    epsilon: float
    mean: float
    seed: int
    more_layers: int
    more_heads: int
    more_ffn: int

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(self.layers, self.heads * self.head_dim, self.heads, self.ffn, self.vocab, 8)

    @property
    def grown(self) -> ModelSpec:
        heads = self.heads + self.more_heads
        return replace(
            self.spec,
            layers=self.layers + self.more_layers,
            width=heads * self.head_dim,
            heads=heads,
            ffn=self.ffn + self.more_ffn,
        )


cases = st.builds(
    Case,
    layers=st.integers(1, 4),
    heads=st.integers(1, 4),
    head_dim=st.sampled_from([4, 6, 8]),
    ffn=st.integers(1, 50),
    vocab=st.integers(2, 40),
    epsilon=st.sampled_from(EPSILONS),
    mean=st.sampled_from([0.0, 1.0, -2.0]),
    seed=st.integers(0, 99),
    more_layers=st.integers(0, 4),
    more_heads=st.integers(0, 6),
    more_ffn=st.integers(0, 60),
)


@pytest.fixture(scope="session")
def model_of(make_gpt2) -> Callable[[Case], GPT2LMHeadModel]:
    def make(case: Case) -> GPT2LMHeadModel:
        spec = case.spec
        shape = {"layers": spec.layers, "width": spec.width, "heads": spec.heads, "ffn": spec.ffn}
        shape |= {"vocab": spec.vocab, "positions": spec.positions}
        return make_gpt2(**shape, epsilon=case.epsilon, mean=case.mean, seed=case.seed)

    return make


@torch.no_grad()
def logits(model: GPT2LMHeadModel) -> Tensor:
    ids = torch.arange(24).reshape(3, 8) % model.config.vocab_size
    return model(ids).logits


def through_files(model: GPT2LMHeadModel, spec: ModelSpec, trans: Trans) -> GPT2LMHeadModel:
    """Saved by transformers, moved from folder to folder, loaded by transformers."""
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "before", Path(name) / "after"
        after.mkdir()
        model.save_pretrained(before)
        transfer(before, spec, after, trans)
        loaded, report = AutoModelForCausalLM.from_pretrained(after, output_loading_info=True)
        assert not any(report.values()), report
        return loaded.eval()


def change(before: GPT2LMHeadModel, after: GPT2LMHeadModel) -> float:
    """The largest change of a logit, relative to the largest logit where that is above one."""
    old, new = logits(before), logits(after)
    return ((new - old).abs().max() / old.abs().max().clamp(min=1)).item()


def spec_of(model: GPT2LMHeadModel) -> ModelSpec:
    return GPT2.spec(model.config.to_dict())


def moved(model: GPT2LMHeadModel, spec: ModelSpec, trans: Trans) -> State:
    """Every tensor of Trans(model), by name."""
    state = model.state_dict()
    move = Transfer(GPT2, spec_of(model), spec, trans, state.__getitem__)
    return {name: move.tensor(role, layer) for role, layer, name in GPT2.tensors(spec)}


def assert_same(found: State, expected: State) -> None:
    for name, tensor in found.items():
        assert tensor.shape == expected[name].shape, name
        assert torch.equal(tensor, expected[name]), name


# Growth that preserves the function


@pytest.mark.parametrize("trans", PRESERVING, ids=lambda trans: trans.grow_width)
@settings(deadline=None, max_examples=30)
@given(case=cases)
def test_growth_preserves_the_function(model_of, trans: Trans, case: Case) -> None:
    assert trans.preserving
    model = model_of(case)
    grown = through_files(model, case.grown, trans)
    assert spec_of(grown) == case.grown
    assert change(model, grown) < ROUNDING


@settings(deadline=None, max_examples=15)
@given(case=cases, seed=st.integers(0, 99))
def test_sorting_is_a_permutation_that_preserves_the_function(model_of, case: Case, seed: int) -> None:
    model, trans = model_of(case), Trans(cut_width="sorted")
    ordered = through_files(model, case.spec, trans)
    assert change(model, ordered) < ROUNDING
    before, after = model.state_dict(), ordered.state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    scores = [stream_scores(GPT2, case.spec, after.__getitem__)]
    for unit in ("heads", "ffn"):
        scores += [unit_scores(GPT2, case.spec, unit, i, after.__getitem__) for i in range(case.layers)]
    for each in scores:
        assert all(a >= b * (1 - 1e-5) for a, b in pairwise(each.tolist()))
    # and what is sorted can grow
    assert change(model, through_files(ordered, case.grown, Trans())) < ROUNDING


def test_the_models_of_these_tests_would_show_a_change(model_of) -> None:
    """A permutation that leaves all as it was, or a stream whose mean is zero anyway, would prove nothing."""
    model = model_of(BASE)
    ordered = moved(model, BASE.spec, Trans(cut_width="sorted"))
    assert sum(not torch.equal(tensor, model.state_dict()[name]) for name, tensor in ordered.items()) > 20
    stream = model(torch.arange(8)[None], output_hidden_states=True).hidden_states[1]
    assert stream.mean(-1).abs().min() > 2 * stream.std(-1).mean()


BASE = Case(
    layers=3,
    heads=3,
    head_dim=8,
    ffn=50,
    vocab=31,
    epsilon=1e-2,
    mean=2.0,
    seed=3,
    more_layers=2,
    more_heads=2,
    more_ffn=13,
)


@pytest.mark.parametrize("axis", ["more_layers", "more_heads", "more_ffn"])
@pytest.mark.parametrize("trans", PRESERVING, ids=lambda trans: trans.grow_width)
def test_each_axis_alone(model_of, axis: str, trans: Trans) -> None:
    others = {"more_layers": 0, "more_heads": 0, "more_ffn": 0, axis: 2}
    case = replace(BASE, **others)
    assert change(model_of(case), through_files(model_of(case), case.grown, trans)) < ROUNDING


def test_head_count_and_width_are_told_apart(model_of) -> None:
    """Twice the width with twice the heads keeps every head's own channels."""
    case = replace(BASE, heads=2, more_heads=2)
    for trans in PRESERVING:
        assert change(model_of(case), through_files(model_of(case), case.grown, trans)) < ROUNDING


LOSSY = {
    "copied layers": (Trans(grow_layers="copy"), {"more_heads": 0, "more_ffn": 0}),
    "padding without correcting the norms": (Trans(grow_width="raw_pad"), {"more_layers": 0, "more_ffn": 0}),
    "copies that do not come out even": (Trans(grow_width="tile"), {"more_layers": 0, "more_ffn": 0}),
}


@pytest.mark.parametrize(("trans", "axes"), LOSSY.values(), ids=list(LOSSY))
def test_lossy_growth_does_not_preserve(model_of, trans: Trans, axes: dict[str, int]) -> None:
    case = replace(BASE, **axes)
    assert not trans.preserving
    assert change(model_of(case), through_files(model_of(case), case.grown, trans)) > 1e-2


def test_tiles_that_come_out_even_preserve(model_of) -> None:
    """Which says that it is the uneven ones that lose: whole copies are the HyperCloning rule."""
    case = replace(BASE, more_heads=BASE.heads, more_ffn=BASE.ffn, more_layers=0)
    found = moved(model_of(case), case.grown, Trans(grow_width="tile"))
    expected = moved(model_of(case), case.grown, Trans(grow_width="duplicate"))
    assert_same(found, expected)


@pytest.mark.parametrize("without", ["gains", "epsilon", "mean", "zeroed outputs"])
def test_every_part_of_the_padding_is_needed(model_of, without: str) -> None:
    """Each correction, taken back alone, breaks the function: the tests above would see it missing."""
    model = model_of(BASE)
    grown = through_files(model, BASE.grown, Trans())
    assert change(model, grown) < ROUNDING
    state, old = grown.state_dict(), BASE.spec
    if without == "gains":
        factor = (BASE.grown.width / old.width) ** 0.5
        for name in state:
            if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
                state[name].mul_(factor)
    elif without == "mean":
        state["transformer.wpe.weight"][:, old.width :] = 0
    elif without == "zeroed outputs":
        state["transformer.h.0.mlp.c_proj.weight"][old.ffn :, 0] = 1.0
    else:
        for module in grown.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = BASE.epsilon
    assert change(model, grown) > 1e-3


# What has grown is alive


@pytest.mark.parametrize("trans", PRESERVING, ids=lambda trans: trans.grow_width)
def test_gradients_reach_what_is_new(model_of, trans: Trans) -> None:
    """At once in the output rows of new heads, neurons and blocks and in new channels; later inside."""
    silent = unreached(through_files(model_of(BASE), BASE.grown, trans))
    assert not any(silent.values()), silent


def test_plain_zeros_would_be_dead(model_of) -> None:
    """Units that are zero on both sides never move: what the test above looks for."""
    silent = unreached(through_files(model_of(BASE), BASE.grown, Trans(grow_width="raw_pad")))
    assert silent["heads"] > 0
    assert silent["neurons"] > 0
    assert silent["insides"] > 0


def unreached(model: GPT2LMHeadModel) -> dict[str, int]:
    """How many new units' weights get no gradient."""
    old, hd = BASE.spec, BASE.head_dim
    ids = torch.arange(24).reshape(3, 8) % BASE.vocab
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(ids, labels=ids.flip(0)).loss.backward()
    blocks = model.transformer.h
    fresh = set(range(2, 4))  # three blocks become five: grown in the middle
    heads = torch.stack([b.attn.c_proj.weight.grad.unflatten(0, (-1, hd)).abs().amax((1, 2)) for b in blocks])
    neurons = torch.stack([b.mlp.c_proj.weight.grad.abs().amax(1) for b in blocks])
    found = {
        "heads": int((heads[:, old.heads :] == 0).sum()),
        "neurons": int((neurons[:, old.ffn :] == 0).sum()),
        "blocks": sum(int((heads[i] == 0).sum() + (neurons[i] == 0).sum()) for i in fresh),
        "channels": int((model.transformer.wte.weight.grad[:, old.width :].abs().amax(0) == 0).sum()),
    }
    optimiser.step()
    optimiser.zero_grad()
    model(ids, labels=ids.flip(0)).loss.backward()
    inside = [b.mlp.c_fc.weight.grad[:, old.ffn :].abs().amax(0) for b in blocks]
    inside += [
        b.attn.c_attn.weight.grad.unflatten(1, (3, -1))[:, 2, old.width :].abs().amax(0) for b in blocks
    ]
    return found | {"insides": sum(int((each == 0).sum()) for each in inside)}


# There and back


@settings(deadline=None, max_examples=25)
@given(case=cases)
def test_padding_and_cutting_back_returns_the_model(model_of, case: Case) -> None:
    """Bit for bit, but for the gains and the epsilon, which padding scales: by one factor, once."""
    model = model_of(case)
    grown = through_files(model, case.grown, Trans())
    back = through_files(grown, case.spec, Trans(cut_layers="ends", cut_width="leading"))
    factor = (case.spec.width / case.grown.width) ** 0.5
    assert back.config.layer_norm_epsilon == pytest.approx(case.epsilon * factor**2, rel=1e-12)
    for name, tensor in back.state_dict().items():
        original = model.state_dict()[name]
        if tensor.ndim == 1 and name.endswith("weight"):
            torch.testing.assert_close(tensor, original * factor, rtol=2e-7, atol=0)
        else:
            assert torch.equal(tensor, original), name


def test_doubling_and_cutting_back_halves_the_readers(model_of) -> None:
    case = replace(BASE, more_heads=BASE.heads, more_ffn=BASE.ffn)
    model = model_of(case)
    grown = through_files(model, case.grown, Trans(grow_width="duplicate"))
    back = through_files(grown, case.spec, Trans()).state_dict()
    for name, tensor in model.state_dict().items():
        halved = (tensor.ndim == 2 and ".h." in name) or ".ln_f." in name
        assert torch.equal(back[name], tensor / 2 if halved else tensor), name


@pytest.mark.parametrize("how", ["zero", "copy"])
def test_an_unchanged_shape_changes_nothing(model_of, how: str) -> None:
    for width in ("pad", "duplicate", "raw_pad", "tile"):
        for cut in ("leading", "importance"):
            trans = Trans(grow_layers=how, grow_width=width, cut_layers="importance", cut_width=cut)
            assert_same(moved(model_of(BASE), BASE.spec, trans), model_of(BASE).state_dict())


# Cuts, against indices into the state dict


def picked(
    state: State, layers: list[int], stream: list[int], heads: list[list[int]], ffn: list[list[int]], hd: int
) -> State:
    """The model that keeps these layers, channels, and each kept layer's heads and neurons."""
    array = {name: tensor.numpy() for name, tensor in state.items()}
    width = array["transformer.wte.weight"].shape[1]
    found = {
        f"transformer.{name}.weight": array[f"transformer.{name}.weight"][:, stream]
        for name in ("wte", "wpe")
    }
    for half in ("weight", "bias"):
        found[f"transformer.ln_f.{half}"] = array[f"transformer.ln_f.{half}"][stream]
    for new, old in enumerate(layers):
        a, b = f"transformer.h.{old}.", f"transformer.h.{new}."
        inside = [head * hd + i for head in heads[new] for i in range(hd)]
        qkv = [part * width + i for part in range(3) for i in inside]
        for norm in ("ln_1", "ln_2"):
            for half in ("weight", "bias"):
                found[f"{b}{norm}.{half}"] = array[f"{a}{norm}.{half}"][stream]
        for name, rows, columns in (
            ("attn.c_attn", stream, qkv),
            ("attn.c_proj", inside, stream),
            ("mlp.c_fc", stream, ffn[new]),
            ("mlp.c_proj", ffn[new], stream),
        ):
            found[f"{b}{name}.weight"] = array[f"{a}{name}.weight"][np.ix_(rows, columns)]
            found[f"{b}{name}.bias"] = array[f"{a}{name}.bias"][columns]
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def largest(scores, count: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:count])


def kept_layers(state: State, old: int, new: int, how: str) -> list[int]:
    if how == "prefix":
        return list(range(new))
    if how == "ends":
        return [*range(new - new // 2), *range(old - new // 2, old)]
    if how == "even":  # the exact ratio, halves to the even neighbour
        return [round(Fraction(i * (old - 1), max(new - 1, 1))) for i in range(new)]
    outputs = [f"{part}.c_proj.{half}" for part in ("attn", "mlp") for half in ("weight", "bias")]
    energy = [
        sum((state[f"transformer.h.{i}.{name}"].double() ** 2).sum() for name in outputs) for i in range(old)
    ]
    return largest(energy, new)


def head_scores(state: State, layer: int, heads: int, hd: int) -> list[float]:
    into = state[f"transformer.h.{layer}.attn.c_attn.weight"].double()
    out = state[f"transformer.h.{layer}.attn.c_proj.weight"].double()
    width = heads * hd
    return [
        float(
            sum((into[:, p * width + h * hd : p * width + (h + 1) * hd] ** 2).sum() for p in range(3))
            * (out[h * hd : (h + 1) * hd] ** 2).sum()
        )
        for h in range(heads)
    ]


def neuron_scores(state: State, layer: int) -> list[float]:
    into = state[f"transformer.h.{layer}.mlp.c_fc.weight"].double()
    out = state[f"transformer.h.{layer}.mlp.c_proj.weight"].double()
    return ((into**2).sum(0) * (out**2).sum(1)).tolist()


def channel_scores(state: State, layers: int) -> list[float]:
    """Mean square of what the embeddings write, sum of squares of all else."""
    heard = written = 0
    for name in ("wte", "wpe"):
        written = written + (state[f"transformer.{name}.weight"].double() ** 2).mean(0)
    for i in range(layers):
        block = f"transformer.h.{i}."
        for part in ("attn", "mlp"):
            written = written + (state[f"{block}{part}.c_proj.weight"].double() ** 2).sum(0)
        for name in ("attn.c_attn", "mlp.c_fc"):
            heard = heard + (state[f"{block}{name}.weight"].double() ** 2).sum(1)
    return (written * heard).tolist()


@pytest.mark.parametrize("width", ["leading", "importance"])
@pytest.mark.parametrize("layers", ["ends", "even", "prefix", "importance"])
@settings(deadline=None, max_examples=15)
@given(case=cases, data=st.data())
def test_a_cut_keeps_what_an_index_would(model_of, layers: str, width: str, case: Case, data) -> None:
    big, hd = (
        replace(case, layers=case.layers + case.more_layers, heads=case.heads + case.more_heads),
        case.head_dim,
    )
    model = model_of(big)
    state, old = model.state_dict(), big.spec
    new_layers = data.draw(st.integers(1, old.layers))
    heads, ffn = data.draw(st.integers(1, old.heads)), data.draw(st.integers(1, old.ffn))
    new = replace(old, layers=new_layers, heads=heads, width=heads * hd, ffn=ffn)
    kept = kept_layers(state, old.layers, new_layers, layers)
    if width == "leading":
        stream, heads_of, ffn_of = range(new.width), [range(heads)] * new_layers, [range(ffn)] * new_layers
    else:
        stream = largest(channel_scores(state, old.layers), new.width)
        heads_of = [largest(head_scores(state, i, old.heads, hd), heads) for i in kept]
        ffn_of = [largest(neuron_scores(state, i), ffn) for i in kept]
    expected = picked(state, kept, list(stream), list(map(list, heads_of)), list(map(list, ffn_of)), hd)
    found = moved(model, new, Trans(cut_layers=layers, cut_width=width))
    assert found.keys() == expected.keys()
    assert_same(found, expected)


def test_even_layers_are_spread_over_the_whole_depth() -> None:
    kept = [kept_layers({}, 12, n, "even") for n in (1, 2, 3, 6, 12)]
    assert kept == [[0], [0, 11], [0, 6, 11], [0, 2, 4, 7, 9, 11], list(range(12))]
    found = [
        Transfer(GPT2, deep(12), deep(n), Trans(cut_layers="even"), {}.get).layers for n in (1, 2, 3, 6, 12)
    ]
    assert [list(layers) for layers in found] == kept


def deep(layers: int) -> ModelSpec:
    return ModelSpec(layers, 8, 2, 32, 11, 4)


@given(st.integers(1, 30), st.integers(1, 30))
def test_growth_in_depth_is_undone_by_the_cut_of_the_ends(a: int, b: int) -> None:
    small, large = sorted((a, b))
    grown = Transfer(GPT2, deep(small), deep(large), Trans(), {}.get).layers
    cut = Transfer(GPT2, deep(large), deep(small), Trans(cut_layers="ends"), {}.get).layers
    assert [grown[i] for i in cut] == list(range(small))
    assert [i for i in grown if i >= 0] == list(range(small))
    copied = Transfer(GPT2, deep(small), deep(large), Trans(grow_layers="copy"), {}.get).layers
    assert list(copied) == sorted(copied)
    assert set(copied) == set(range(small))
    stacked = Transfer(GPT2, deep(small), deep(large), Trans(grow_layers="stack"), {}.get).layers
    assert stacked == tuple(i for _ in range(large) for i in range(small))[:large]


@pytest.mark.parametrize("new_heads", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("cut", ["leading", "importance", "sorted"])
@pytest.mark.parametrize("grow", ["pad", "duplicate", "raw_pad", "tile"])
def test_heads_move_whole(make_gpt2, new_heads: int, cut: str, grow: str) -> None:
    """Query, key and value of one head, each with its channels in order, and the rows that read them."""
    model = make_gpt2(layers=1, heads=4, width=24, ffn=30)
    state, hd = model.state_dict(), 6
    place = torch.arange(
        24.0
    )  # head * 6 + channel, in the biases of query, key and value and in the rows after
    state["transformer.h.0.attn.c_attn.bias"].copy_(torch.cat([place + 100 * part for part in (1, 2, 3)]))
    state["transformer.h.0.attn.c_proj.weight"][:, 0] = place + 1
    found = moved(
        model, ModelSpec(1, new_heads * hd, new_heads, 30, 61, 16), Trans(grow_width=grow, cut_width=cut)
    )
    parts = found["transformer.h.0.attn.c_attn.bias"].reshape(3, new_heads, hd)
    old_heads = min(new_heads, 4) if grow in ("pad", "raw_pad") else new_heads
    query = parts[0, :old_heads] - 100
    assert torch.equal(parts[1, :old_heads], query + 200)
    assert torch.equal(parts[2, :old_heads], query + 300)
    assert torch.equal(query - query[:, :1], torch.arange(6.0).expand(old_heads, 6))
    assert torch.all(query[:, 0] % hd == 0)
    if cut != "sorted" and new_heads <= 4:  # the old order
        assert torch.all(query[1:, 0] > query[:-1, 0])
    if new_heads < 4 and cut == "leading":
        rows = found["transformer.h.0.attn.c_proj.weight"][:, 0].reshape(new_heads, hd)
        assert torch.equal(rows, query + 1)


# What has no meaning


SPEC = ModelSpec(2, 32, 2, 128, 61, 16)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (replace(SPEC, vocab=62), r"vocabularies differ \(61 and 62\)"),
        (replace(SPEC, family="llama"), "families differ"),
        (replace(SPEC, tied=False), "tied-ness of the head differ"),
        (replace(SPEC, heads=4), "head dimension 16 cannot become 8: choose 32/16 = 2 heads"),
        (replace(SPEC, positions=32), "positions differ"),
    ],
)
def test_what_trans_keeps_cannot_change(new: ModelSpec, message: str) -> None:
    with pytest.raises(CbdError, match=message):
        check_transferable(SPEC, new)
    with pytest.raises(CbdError, match=message):
        Transfer(GPT2, SPEC, new, Trans(), {}.get)


def test_an_untied_head_is_preserved_or_refused(save_gpt2, tmp_path) -> None:
    folder = save_gpt2(tied=False)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    out = tmp_path / "grown"
    out.mkdir()
    try:
        transfer(folder, replace(Checkpoint(folder).spec, layers=3, ffn=140), out, Trans())
    except CbdError:
        return
    grown = AutoModelForCausalLM.from_pretrained(out).eval()
    assert change(model, grown) < ROUNDING


def test_scores_scaled_by_depth_are_preserved_or_refused(make_gpt2) -> None:
    model = make_gpt2()
    model.config.scale_attn_by_inverse_layer_idx = True
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
    try:
        grown = through_files(model, replace(spec_of(model), layers=4), Trans())
    except CbdError:
        return
    assert change(model, grown) < ROUNDING
