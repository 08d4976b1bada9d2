"""Every family: growth keeps the function, sorting permutes it, and chains of two anchors can be mixed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from cbd.cli import main
from cbd.errors import CbdError
from cbd.models.checkpoints import Checkpoint
from cbd.models.families import FAMILIES, family_of
from cbd.models.interpolation import check_alike, initialize, transfer
from cbd.recipes.operators import UNION, Trans
from cbd.recipes.specs import NAMED, TRAITS, ModelSpec, gpt2, llama, pythia, qwen3

PRESERVING = [Trans(grow_width=width) for width in ("pad", "duplicate")]


@dataclass(frozen=True)
class Case:
    """A small model of a family, and a larger shape."""

    spec: ModelSpec
    grown: ModelSpec
    epsilon: float
    seed: int


@st.composite
def cases(draw, family: str) -> Case:
    traits = TRAITS[family]
    kv, group = draw(st.integers(1, 3)), draw(st.integers(1, 3)) if traits.grouped else 1
    head_dim = 8 if family == "gpt_neox" else draw(st.sampled_from([4, 6, 8]))
    more_kv = draw(st.integers(0, 3))
    more_group = draw(st.integers(0, 2)) if traits.grouped else 0

    def shape(layers: int, kv: int, group: int, ffn: int, wider: int) -> ModelSpec:
        heads = kv * group
        width = heads * (wider if traits.free_heads else head_dim)
        grouped = {"kv_heads": kv, "head_size": head_dim} if traits.grouped else {}
        return ModelSpec(layers, width, heads, ffn, vocab, 16, family=family, tied=tied, **grouped)

    layers, ffn, wider = draw(st.integers(1, 3)), draw(st.integers(1, 40)), draw(st.integers(3, 9))
    vocab, tied = draw(st.integers(2, 40)), draw(st.booleans())
    return Case(
        shape(layers, kv, group, ffn, wider),
        shape(
            layers + draw(st.integers(0, 3)),
            kv + more_kv,
            group + more_group,
            ffn + draw(st.integers(0, 50)),
            wider + draw(st.integers(0, 6)),
        ),
        epsilon=draw(st.sampled_from([1e-6, 1e-5, 0.05])),
        seed=draw(st.integers(0, 99)),
    )


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    ids = torch.arange(24).reshape(3, 8) % model.config.vocab_size
    return model(ids).logits


def through_files(model: nn.Module, make: Callable[[Path, Path], None]) -> nn.Module:
    """Saved by transformers, changed from folder to folder, loaded by transformers."""
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "before", Path(name) / "after"
        after.mkdir()
        model.save_pretrained(before)
        make(before, after)
        loaded, report = AutoModelForCausalLM.from_pretrained(after, output_loading_info=True)
        assert not any(report.values()), report
        return loaded.eval()


def change(before: nn.Module, after: nn.Module) -> float:
    """The largest change of a logit, relative to the largest logit where that is above one."""
    old, new = logits(before), logits(after)
    return ((new - old).abs().max() / old.abs().max().clamp(min=1)).item()


@pytest.mark.parametrize("trans", PRESERVING, ids=lambda trans: trans.grow_width)
@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_growth_preserves_the_function(family: str, trans: Trans, data) -> None:
    case = data.draw(cases(family))
    # Qwen3's one epsilon also stands in the norms of queries and keys, which must not change with the width
    epsilon = 1e-6 if family == "qwen3" else case.epsilon
    model = random_model(case.spec, epsilon, case.seed)
    grown = through_files(model, lambda before, after: transfer(before, case.grown, after, trans))
    assert family_of(family).spec(grown.config.to_dict()) == case.grown
    assert change(model, grown) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_sorting_is_a_permutation_that_preserves_the_function(family: str, data) -> None:
    case = data.draw(cases(family))
    model = random_model(case.spec, case.epsilon, case.seed)
    ordered = through_files(
        model, lambda before, after: transfer(before, case.spec, after, Trans(cut_width="sorted"))
    )
    assert change(model, ordered) < 1e-4
    after = dict(ordered.named_parameters())
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor.flatten().sort().values, after[name].flatten().sort().values)


@pytest.mark.parametrize("family", FAMILIES)
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_what_padding_added_a_cut_takes_away(family: str, data) -> None:
    """Grown and cut to the leading units again, every weight is the old one but for the norms' gains."""
    case = data.draw(cases(family))
    model = random_model(case.spec, case.epsilon, case.seed)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / step for step in ("old", "grown", "back")]
        model.save_pretrained(folders[0])
        for folder in folders[1:]:
            folder.mkdir()
        transfer(folders[0], case.grown, folders[1], Trans())
        transfer(folders[1], case.spec, folders[2], Trans())
        old, back = Checkpoint(folders[0]), Checkpoint(folders[2])
        for role, _, tensor in old.family.tensors(case.spec):
            factor = (case.spec.width / case.grown.width) ** 0.5 if role.kind == "gain" else 1.0
            expected = old.tensor(tensor) * factor
            assert torch.allclose(back.tensor(tensor), expected, rtol=1e-6, atol=0), tensor


def pair(family: str) -> tuple[ModelSpec, ModelSpec, ModelSpec]:
    """A small and a large anchor of a family, and a target between them."""
    sizes = {"vocab": 50, "positions": 32}
    if family == "gpt2":
        return tuple(gpt2(n, d, head_dim=8, **sizes) for n, d in ((2, 32), (4, 48), (3, 40)))
    if family == "gpt_neox":
        return tuple(pythia(n, d, head_dim=8, **sizes) for n, d in ((2, 32), (4, 48), (3, 40)))
    shapes = ((2, 32, 4, 2, 64), (4, 64, 8, 4, 128), (3, 48, 6, 3, 96))
    if family == "llama":
        return tuple(llama(*shape, **sizes) for shape in shapes)
    return tuple(qwen3(*shape, head_dim=16, **sizes) for shape in shapes)


@pytest.fixture(scope="module", params=FAMILIES)
def anchors(request, tmp_path_factory) -> tuple[Path, Path, ModelSpec]:
    small, large, target = pair(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    for name, spec, seed in (("small", small, 1), ("large", large, 2)):
        random_model(spec, seed=seed).save_pretrained(folder / name)
    return folder / "small", folder / "large", target


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_ends_of_the_formula_are_the_transformed_anchors(anchors, alpha: float, tmp_path: Path) -> None:
    small, large, target = anchors
    for name in ("mixed", "alone"):
        (tmp_path / name).mkdir()
    initialize(small, large, target, tmp_path / "mixed", alpha)
    transfer(small if alpha else large, target, tmp_path / "alone", Trans())
    mixed, alone = Checkpoint(tmp_path / "mixed"), Checkpoint(tmp_path / "alone")
    for _, _, name in mixed.family.tensors(target):
        assert torch.equal(mixed.tensor(name), alone.tensor(name)), name


def test_union_keeps_the_larger_anchor_where_the_small_one_has_no_unit(anchors, tmp_path: Path) -> None:
    """Each family's feed-forward input: leading rows are mixed, the rest are the larger anchor's."""
    small, large, target = anchors
    initialize(small, large, target, tmp_path, 0.5, UNION)
    mixed, first, second = Checkpoint(tmp_path), Checkpoint(small), Checkpoint(large)
    names = {
        "gpt2": "transformer.h.0.mlp.c_fc.weight",
        "gpt_neox": "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
    }
    name = names.get(target.family, "model.layers.0.mlp.gate_proj.weight")
    turn = (lambda tensor: tensor.T) if target.family == "gpt2" else (lambda tensor: tensor)
    found, one, two = (turn(each.tensor(name)) for each in (mixed, first, second))
    rows, columns = one.shape
    assert torch.allclose(found[:rows, :columns], 0.5 * one + 0.5 * two[:rows, :columns], atol=1e-7)
    assert torch.equal(found[rows:], two[rows : target.ffn, : target.width])
    assert torch.equal(found[:, columns:], two[: target.ffn, columns : target.width])


@pytest.mark.parametrize("operator", ["literal", "union", "lossy", "duplicate", "tile"])
def test_cbd_init_writes_a_model_that_loads_and_generates(anchors, operator: str, tmp_path: Path) -> None:
    small, large, target = anchors
    out = tmp_path / "slm"
    command = f"init --small {small} --large {large} --layers 3 --width {target.width} --unaligned"
    assert main([*command.split(), "--operator", operator, "--out", str(out)]) == 0
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    assert sum(p.numel() for p in model.parameters()) == target.parameters
    assert ModelSpec(**json.loads((out / "cbd.json").read_text())["target"]) == target
    text = model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert text.shape[1] > 3 and model(text).logits.isfinite().all()


def test_heads_of_the_target_can_be_given(tmp_path: Path) -> None:
    """Qwen3's heads need not make up the width: both anchors have 4 of them, and so has the target."""
    make = lambda n, d, ffn: qwen3(n, d, 4, 2, ffn, head_dim=8, vocab=50, positions=32)  # noqa: E731
    for name, spec in (("small", make(2, 16, 32)), ("large", make(3, 64, 128))):
        random_model(spec).save_pretrained(tmp_path / name)
    command = (
        f"init --small {tmp_path}/small --large {tmp_path}/large --layers 3 --width 24 --unaligned".split()
    )
    assert main([*command, "--out", str(tmp_path / "kept")]) == 0
    assert Checkpoint(tmp_path / "kept").spec == make(3, 24, 48)
    more = ["--heads", "6", "--kv-heads", "3", "--ffn", "50"]
    assert main([*command, *more, "--out", str(tmp_path / "given")]) == 0
    spec = replace(make(3, 24, 50), heads=6, kv_heads=3, head_size=8)
    assert Checkpoint(tmp_path / "given").spec == spec


# What is refused


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        (
            "llama",
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
            "rope_theta (10000.0 and",
        ),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "llama3"}}, "rope_type (default and"),
        ("llama", {"hidden_act": "gelu"}, "activation function (silu and gelu)"),
        ("gpt_neox", {"rope_parameters": None, "rotary_pct": 0.5}, "partial_rotary_factor (0.25 and 0.5)"),
        ("gpt_neox", {"use_parallel_residual": False}, "use_parallel_residual (True and False)"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights (True and False)"),
    ],
)
def test_equal_shapes_of_another_function_are_refused(
    family: str, change: dict, message: str, tmp_path: Path
) -> None:
    small, large, _ = pair(family)
    for name, spec in (("small", small), ("large", large)):
        random_model(spec).save_pretrained(tmp_path / name)
    path = tmp_path / "large" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CbdError) as error:
        check_alike(Checkpoint(tmp_path / "small"), Checkpoint(tmp_path / "large"))
    assert message in str(error.value)


def test_the_names_that_older_transformers_gave_mean_the_same() -> None:
    old = {"rotary_emb_base": 10000, "rotary_pct": 0.25, "hidden_act": "gelu"}
    new = family_of("gpt_neox").config(NAMED["Pythia-70m"])
    assert family_of("gpt_neox").differences(old, new) == []
    assert (
        family_of("llama").differences({"rope_theta": 1e5, "rope_scaling": None}, {"rope_theta": 1e5}) == []
    )


@pytest.mark.parametrize(
    ("family", "entry"),
    [
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("qwen3", {"use_sliding_window": True}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
    ],
)
def test_what_an_adapter_cannot_keep_is_refused(family: str, entry: dict) -> None:
    config = family_of(family).config(pair(family)[0]) | entry
    with pytest.raises(CbdError, match=f"{next(iter(entry))} is set: .*use a checkpoint without it"):
        family_of(family).spec(config)


def test_rotary_heads_never_change(tmp_path: Path) -> None:
    """Pythia-1b has heads of 256 channels, Pythia-410m of 64: no Trans leads from one to the other."""
    small, large = pythia(2, 32, head_dim=8, vocab=50), pythia(2, 64, head_dim=16, vocab=50)
    (tmp_path / "out").mkdir()
    random_model(small).save_pretrained(tmp_path / "small")
    with pytest.raises(CbdError, match="head dimension 8 cannot become 16, since rotary positions turn"):
        transfer(tmp_path / "small", large, tmp_path / "out", Trans())


def test_a_family_without_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(CbdError, match="'mamba' has no adapter; families known here: gpt2, gpt_neox, llama"):
        Checkpoint(tmp_path)


def test_specs_survive_json() -> None:
    for spec in NAMED.values():
        assert ModelSpec(**json.loads(json.dumps(asdict(spec)))) == spec
