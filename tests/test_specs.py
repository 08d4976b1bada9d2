"""Sizes in closed form against models that transformers builds, and FLOPs against those that torch counts."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from cbd.errors import CbdError
from cbd.families import GPT2, family_of
from cbd.specs import NAMED, ModelSpec, gpt2

# Parameters in millions: GPT-2's published models, and the sizes that the paper (arXiv 2605.07783) names.
MILLIONS = {
    "GPT2-B": 124.44,
    "GPT2-M": 354.82,
    "GPT2-L": 774.03,
    "GPT2-XL": 1557.61,
    "SLM-51M": 51.48,
    "SLM-138M": 138.62,
    "SLM-380M": 380.02,
    "SLM-537M": 537.90,
}

shapes = st.builds(
    lambda layers, heads, head_dim, ffn, vocab, positions, tied: ModelSpec(
        layers, heads * head_dim, heads, ffn, vocab, positions, tied=tied
    ),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 40),
    st.booleans(),
)


def instantiated(spec: ModelSpec) -> GPT2LMHeadModel:
    """The model that transformers builds from our config, without memory for its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**GPT2.config(spec)))


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
@given(shapes)
def test_any_size_equals_the_instantiated_model(spec: ModelSpec) -> None:
    model = instantiated(spec)
    assert spec.parameters == counted(model)
    assert spec.layer_parameters == counted(model.transformer.h[0])


@settings(deadline=None, max_examples=40)
@given(shapes)
def test_a_config_gives_back_the_shape_it_was_made_of(spec: ModelSpec) -> None:
    ours = json.loads(json.dumps(GPT2.config(spec)))
    assert GPT2.spec(ours) == spec
    assert GPT2.spec(AutoConfig.for_model(**ours).to_dict()) == spec


@settings(deadline=None, max_examples=40)
@given(shapes.filter(lambda spec: spec.tied))
def test_the_adapter_names_every_tensor_of_the_model_and_nothing_else(spec: ModelSpec) -> None:
    model = instantiated(spec)
    roles = {name: role for role, _, name in GPT2.tensors(spec)}
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    sizes = {unit: getattr(spec, unit) for unit in ("vocab", "positions", "ffn")}
    sizes |= {"stream": spec.width, "heads": spec.width}
    found = {
        name: torch.Size(sizes[axis.unit] * axis.repeat for axis in role.axes) for name, role in roles.items()
    }
    assert found == expected


def forward_flops(spec: ModelSpec, context: int) -> int:
    """What torch counts in one sequence's forward pass: 2 per multiply-add, every product in full."""
    model = GPT2LMHeadModel(GPT2Config(**GPT2.config(spec), attn_implementation="eager"))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.zeros(1, context, dtype=torch.long), use_cache=False)
    return counter.get_total_flops()


@settings(deadline=None, max_examples=15)
@given(shapes, st.integers(1, 40))
def test_forward_flops_equal_torchs_count_but_for_what_the_mask_hides(spec: ModelSpec, context: int) -> None:
    context = min(context, spec.positions)
    # Eager attention multiplies the whole context x context square, scores and values; we count the half that
    # a causal mask leaves, its diagonal included: context (context + 1) / 2 pairs.
    whole = 2 * 2 * spec.layers * context * context * spec.width
    visible = 2 * 2 * spec.layers * (context * (context + 1) // 2) * spec.width
    assert context * spec.forward_flops(context) == forward_flops(spec, context) - whole + visible


def test_attention_is_all_that_grows_with_the_context() -> None:
    spec = NAMED["GPT2-B"]
    steps = [spec.forward_flops(n + 1) - spec.forward_flops(n) for n in (1, 7, 1023)]
    assert steps == [2 * spec.layers * spec.width] * 3


def test_training_is_three_forwards() -> None:
    """Backward: a product for the inputs' gradient and one for the weights', each as large as forward."""
    spec = gpt2(2, 32, head_dim=16, vocab=61, positions=16)
    model = GPT2LMHeadModel(GPT2Config(**GPT2.config(spec), attn_implementation="eager"))
    counter = FlopCounterMode(display=False)
    ids = torch.zeros(1, 16, dtype=torch.long)
    with counter:
        model(ids, labels=ids).loss.backward()
    forward = forward_flops(spec, 16)
    assert spec.training_flops(16) == 3 * spec.forward_flops(16)
    assert counter.get_total_flops() == pytest.approx(3 * forward, rel=0.01)


@settings(deadline=None)
@given(shapes, st.integers(1, 8), st.integers(1, 8))
def test_resizing_keeps_what_trans_keeps(spec: ModelSpec, layers: int, heads: int) -> None:
    width = heads * spec.head_dim
    if width * spec.ffn % spec.width:
        with pytest.raises(CbdError, match="ratio"):
            spec.resized(layers, width)
        return
    new = spec.resized(layers, width)
    assert (new.layers, new.width, new.heads) == (layers, width, heads)
    assert new.ffn * spec.width == spec.ffn * new.width
    kept = ("family", "vocab", "positions", "tied", "head_dim")
    assert [getattr(new, name) for name in kept] == [getattr(spec, name) for name in kept]
    assert new.resized(spec.layers, spec.width) == spec


def test_resizing_to_itself_is_nothing() -> None:
    for spec in NAMED.values():
        assert spec.resized(spec.layers, spec.width) == spec
        assert spec.head_dim == 64


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
        (lambda: family_of("llama"), "no adapter; families known here: gpt2"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(CbdError, match=message):
        make()
