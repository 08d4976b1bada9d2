"""Sizes in closed form against models that transformers builds, and FLOPs against those that torch counts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from cbd.errors import CbdError
from cbd.models.families import FAMILIES, family_of
from cbd.recipes.specs import NAMED, TRAITS, ModelSpec, gpt2, qwen3

# Parameters in millions, as the makers state them or the paper (arXiv 2605.07783) names them.
MILLIONS = {
    "GPT2-B": 124.44,
    "GPT2-M": 354.82,
    "GPT2-L": 774.03,
    "GPT2-XL": 1557.61,
    "SLM-51M": 51.48,
    "SLM-138M": 138.62,
    "SLM-380M": 380.02,
    "SLM-537M": 537.90,
    "SLM-220M": 219.57,
    "Pythia-70m": 70.43,
    "Pythia-160m": 162.32,
    "Pythia-410m": 405.33,
    "Pythia-1b": 1011.78,
    "SLM-134M": 133.97,
    "Qwen3-0.6B": 596.05,
    "Qwen3-1.7B": 1720.57,
    "Qwen3-4B": 4022.47,
    "Llama3-8B": 8030.26,
    "SmolLM2-135M": 134.52,
    "SmolLM2-360M": 361.82,
}


@st.composite
def shapes(draw) -> ModelSpec:
    """Any small shape of any family: grouped heads and free head dimensions where the family has them."""
    family = draw(st.sampled_from(sorted(TRAITS)))
    traits = TRAITS[family]
    kv, group = draw(st.integers(1, 4)), draw(st.integers(1, 3)) if traits.grouped else 1
    head_dim = 2 * draw(st.integers(1, 5))
    if family == "gpt_neox":
        head_dim *= 4  # a quarter of it turns, in pairs
    heads = kv * group
    width = heads * draw(st.integers(1, 9)) if traits.free_heads else heads * head_dim
    return ModelSpec(
        layers=draw(st.integers(1, 4)),
        width=width,
        heads=heads,
        ffn=draw(st.integers(1, 70)),
        vocab=draw(st.integers(1, 90)),
        positions=draw(st.integers(1, 40)),
        family=family,
        tied=draw(st.booleans()),
        kv_heads=kv if traits.grouped else None,
        head_size=head_dim if traits.free_heads else None,
    )


def config_of(spec: ModelSpec) -> AutoConfig:
    return AutoConfig.for_model(**family_of(spec.family).config(spec))


def instantiated(spec: ModelSpec) -> torch.nn.Module:
    """The model that transformers builds from our config, without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config_of(spec))


def counted(model: torch.nn.Module) -> int:
    """Parameters; torch yields a tied one once."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", NAMED)
def test_named_sizes_equal_the_instantiated_models(name: str) -> None:
    assert NAMED[name].parameters == counted(instantiated(NAMED[name]))


@pytest.mark.parametrize("name", NAMED)
def test_named_sizes_are_the_papers(name: str) -> None:
    assert NAMED[name].parameters / 1e6 == pytest.approx(MILLIONS[name], abs=0.006)


@settings(deadline=None, max_examples=40)
@given(shapes())
def test_any_size_equals_the_instantiated_model(spec: ModelSpec) -> None:
    model = instantiated(spec)
    assert spec.parameters == counted(model)
    blocks = model.base_model.h if spec.family == "gpt2" else model.base_model.layers
    assert spec.layer_parameters == counted(blocks[0])


@settings(deadline=None, max_examples=40)
@given(shapes())
def test_a_config_gives_back_the_shape_it_was_made_of(spec: ModelSpec) -> None:
    family = family_of(spec.family)
    ours = json.loads(json.dumps(family.config(spec)))
    assert family.spec(ours) == spec
    assert family.spec(AutoConfig.for_model(**ours).to_dict()) == spec


@settings(deadline=None, max_examples=40)
@given(shapes())
def test_the_adapter_names_every_tensor_of_the_model_and_nothing_else(spec: ModelSpec) -> None:
    family = family_of(spec.family)
    expected = {name: tuple(parameter.shape) for name, parameter in instantiated(spec).named_parameters()}
    found = {
        family.parameter(name): tuple(axis.size(spec) for axis in role.axes)
        for role, _, name in family.tensors(spec)
    }
    assert found == expected


def forward_flops(spec: ModelSpec, context: int) -> int:
    """What torch counts in one sequence's forward pass: 2 per multiply-add, every product in full."""
    model = AutoModelForCausalLM.from_config(config_of(spec), attn_implementation="eager")
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, context, dtype=torch.long), use_cache=False)
    return counter.get_total_flops()


@settings(deadline=None, max_examples=15)
@given(shapes(), st.integers(1, 40))
def test_forward_flops_equal_torchs_count_but_for_what_the_mask_hides(spec: ModelSpec, context: int) -> None:
    context = min(context, spec.positions)
    # Eager attention multiplies the whole context x context square, scores and values; we count the half that
    # a causal mask leaves, its diagonal included: context (context + 1) / 2 pairs.
    attended = spec.heads * spec.head_dim
    whole = 2 * 2 * spec.layers * context * context * attended
    visible = 2 * 2 * spec.layers * (context * (context + 1) // 2) * attended
    extra = forward_flops(spec, context) - whole + visible - context * spec.forward_flops(context)
    # with rotary positions torch may count the product that makes their angles
    turned = 0 if spec.traits.learned_positions else spec.head_dim
    assert extra in (0, 2 * context * (turned // 2), 2 * context * (turned // 8))


def test_attention_is_all_that_grows_with_the_context() -> None:
    spec = NAMED["GPT2-B"]
    steps = [spec.forward_flops(n + 1) - spec.forward_flops(n) for n in (1, 7, 1023)]
    assert steps == [2 * spec.layers * spec.width] * 3


def test_training_is_three_forwards() -> None:
    """Backward: a product for the inputs' gradient and one for the weights', each as large as forward."""
    spec = gpt2(2, 32, head_dim=16, vocab=61, positions=16)
    model = AutoModelForCausalLM.from_config(config_of(spec), attn_implementation="eager")
    counter = FlopCounterMode(display=False)
    ids = torch.zeros(1, 16, dtype=torch.long)
    with counter:
        model(ids, labels=ids).loss.backward()
    forward = forward_flops(spec, 16)
    assert spec.training_flops(16) == 3 * spec.forward_flops(16)
    assert counter.get_total_flops() == pytest.approx(3 * forward, rel=0.01)


@settings(deadline=None)
@given(shapes(), st.integers(1, 8), st.integers(1, 8))
def test_resizing_keeps_what_trans_keeps(spec: ModelSpec, layers: int, groups: int) -> None:
    width = groups * spec.width // math.gcd(spec.width, spec.kv)
    if width * spec.ffn % spec.width:
        with pytest.raises(CbdError, match="ratio"):
            spec.resized(layers, width)
        assert spec.resized(layers, width, ffn=7).ffn == 7
        return
    new = spec.resized(layers, width)
    assert (new.layers, new.width) == (layers, width)
    assert new.ffn * spec.width == spec.ffn * new.width
    assert new.heads * spec.width == spec.heads * new.width
    kept = ("family", "vocab", "positions", "tied", "head_dim", "group")
    assert [getattr(new, name) for name in kept] == [getattr(spec, name) for name in kept]
    assert new.resized(spec.layers, spec.width) == spec


def test_resizing_to_itself_is_nothing() -> None:
    for spec in NAMED.values():
        assert spec.resized(spec.layers, spec.width) == spec


def test_heads_may_be_given_where_they_need_not_make_up_the_width() -> None:
    spec = NAMED["Qwen3-0.6B"]
    assert spec.resized(28, 1536, heads=16).kv == 8
    assert spec.resized(28, 1536, heads=16, kv_heads=4).group == 4
    assert spec.resized(28, 1536).heads == 24


def test_equal_shapes_are_equal_however_they_are_written() -> None:
    plain = ModelSpec(1, 32, 2, 64, 10, 8, family="llama")
    assert ModelSpec(1, 32, 2, 64, 10, 8, family="llama", kv_heads=2, head_size=16) == plain


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSpec(0, 8, 2, 32, 10, 4), "at least 1"),
        (lambda: ModelSpec(1, 8, 0, 32, 10, 4), "at least 1"),
        (lambda: ModelSpec(1, 8, 2, 32, -1, 4), "at least 1"),
        (lambda: ModelSpec(1, 8, 3, 32, 10, 4), "not divisible by 3 heads; choose another --heads"),
        (lambda: gpt2(2, 100), "100 is not a multiple of the head dimension 64"),
        (lambda: gpt2(12, 768).resized(12, 800), "the nearest are 768 and 832"),
        (lambda: gpt2(12, 768).resized(0, 768), "at least 1"),
        (lambda: gpt2(12, 768).resized(12, 0), "at least 1"),
        (lambda: family_of("mamba"), f"no adapter; families known here: {', '.join(FAMILIES)}"),
        (lambda: ModelSpec(1, 8, 2, 32, 10, 4, family="mamba"), "no family 'mamba'; choose one of gpt2"),
        (lambda: ModelSpec(1, 8, 4, 32, 10, 4, kv_heads=2), "gpt2 has no grouped attention"),
        (lambda: ModelSpec(1, 8, 2, 32, 10, 4, head_size=8), "do not make width 8, as gpt2 needs: choose 1 "),
        (lambda: ModelSpec(1, 8, 4, 32, 10, 4, family="llama", kv_heads=3), "do not divide into groups"),
        (lambda: NAMED["SmolLM2-135M"].resized(30, 640), "the nearest are 576 and 768, or give --heads"),
        (lambda: NAMED["Qwen3-0.6B"].resized(28, 1536, heads=15), "whole groups of 2, which Trans keeps"),
        (lambda: qwen3(1, 64, 0, 1, 8), "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(CbdError, match=message):
        make()


@pytest.mark.parametrize(
    ("parameters", "name"), [(100_000_000, "20x576"), (80_000_000, "15x576"), (60_000_000, "26x384")]
)
def test_a_count_finds_the_nearest_shape_of_a_real_family(parameters, name):
    whole = NAMED["SmolLM2-135M"]
    shape = whole.nearest(parameters)
    assert shape.name == name and shape.head_dim == 64 and shape.group == whole.group
    assert abs(shape.parameters / parameters - 1) < 0.02


@given(layers=st.integers(1, 24), width=st.integers(1, 16))
def test_the_count_of_a_shape_finds_a_shape_of_that_count(layers, width):
    whole = gpt2(24, 1024)
    asked = whole.resized(layers, 64 * width)
    found = whole.nearest(asked.parameters)
    assert abs(found.parameters / asked.parameters - 1) <= 0.02 + 1e-9
    ratio = lambda s: abs(math.log(s.layers / s.width * 1024 / 24))  # noqa: E731
    assert ratio(found) <= ratio(asked) + 1e-9, "no worse a ratio than the shape that was asked about"


def test_no_shape_far_from_the_count_is_given():
    with pytest.raises(CbdError, match="no shape between"):
        gpt2(4, 128).nearest(10**12)
    with pytest.raises(CbdError, match=r"no shape between 2x64 and 4x128"):
        gpt2(4, 128).nearest(10, gpt2(2, 64))
