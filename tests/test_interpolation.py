"""Interpolation and `cbd init`: the paper's formula on every coordinate; what is written and what refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import cbd
from cbd import cli
from cbd.models import interpolation
from cbd.models.checkpoints import Checkpoint
from cbd.models.interpolation import Mixer, initialize, transfer
from cbd.recipes.operators import (
    DUPLICATE,
    LITERAL,
    LOSSY,
    OPERATORS,
    TILE,
    UNION,
    Operator,
    Trans,
    distance_alpha,
)
from cbd.recipes.specs import ModelSpec

State = dict[str, Tensor]
Arrays = dict[str, np.ndarray]
SMALL = {"layers": 2, "width": 32, "heads": 2, "ffn": 100, "vocab": 300, "epsilon": 1e-5, "seed": 1}
LARGE = {
    "layers": 5,
    "width": 80,
    "heads": 5,
    "ffn": 250,
    "vocab": 300,
    "epsilon": 1e-3,
    "seed": 2,
    "mean": 1.0,
}
TARGET = ModelSpec(3, 48, 3, 150, 300, 16)


@pytest.fixture(scope="module")
def small(save_gpt2, tiny_corpus_folder) -> Path:
    return save_gpt2(**SMALL, tokenizer=tiny_corpus_folder)


@pytest.fixture(scope="module")
def large(save_gpt2, tiny_corpus_folder) -> Path:
    return save_gpt2(**LARGE, tokenizer=tiny_corpus_folder)


@pytest.fixture
def mix(small, large, tmp_path) -> Callable[..., tuple[State, dict]]:
    """Tensors and config of an interpolation written to disk."""

    def run(alpha, operator=LITERAL, spec=TARGET, first=small, second=large) -> tuple[State, dict]:
        return written(
            lambda out: initialize(first, second, spec, out, alpha, operator, outside=True), tmp_path
        )

    return run


def written(make: Callable[[Path], object], tmp_path: Path) -> tuple[State, dict]:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    make(out)
    return load_file(out / "model.safetensors"), json.loads((out / "config.json").read_text())


def assert_bits(found: State, expected: State) -> None:
    """Equal to the last bit, signs of zeros included."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype == torch.float32
        assert tensor.shape == expected[name].shape
        assert torch.equal(tensor.view(torch.int32), expected[name].view(torch.int32)), name


# The formula


@pytest.mark.parametrize(
    "operator", [LITERAL, DUPLICATE, LOSSY, TILE], ids=["pad", "duplicate", "lossy", "tile"]
)
def test_alpha_one_and_zero_are_the_transformed_anchors_bit_for_bit(
    mix, small, large, operator, tmp_path
) -> None:
    for alpha, anchor in ((1.0, small), (0.0, large)):
        tensors, config = mix(alpha, operator)
        expected, alone = written(lambda out, a=anchor: transfer(a, TARGET, out, operator.trans), tmp_path)
        assert_bits(tensors, expected)
        assert config["layer_norm_epsilon"] == alone["layer_norm_epsilon"]


def numpy_grown(state: State, old: ModelSpec, new: ModelSpec) -> Arrays:
    """Preserving growth, written out by name: the padding rule of the package's notes, in float64."""
    x = {name: tensor.double().numpy() for name, tensor in state.items()}
    hd, d, f = old.head_dim, old.width, old.ffn
    channels, neurons = np.arange(new.width) % d, np.arange(new.ffn) % f
    inside = np.concatenate([(head % old.heads) * hd + np.arange(hd) for head in range(new.heads)])
    qkv = np.concatenate([part * d + inside for part in range(3)])
    gain = np.sqrt(d / new.width)

    def writes(array: np.ndarray) -> np.ndarray:
        pad = np.repeat(array.mean(-1, keepdims=True), new.width - d, -1)
        return np.concatenate([array, pad], -1)

    def rows(array: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
        return np.where(np.arange(len(index))[:, None] < n, array[index], 0)

    def norm(name: str) -> Arrays:
        shift = np.concatenate([x[name + ".bias"], np.zeros(new.width - d)])
        return {".weight": x[name + ".weight"][channels] * gain, ".bias": shift}

    found = {f"transformer.{name}.weight": writes(x[f"transformer.{name}.weight"]) for name in ("wte", "wpe")}
    found |= {"transformer.ln_f" + half: value for half, value in norm("transformer.ln_f").items()}
    first = -(-old.layers // 2)
    fresh = new.layers - old.layers
    for i in range(new.layers):
        source = i if i < first else first - 1 if i < first + fresh else i - fresh
        alive = not first <= i < first + fresh
        a, b = f"transformer.h.{source}.", f"transformer.h.{i}."
        for name in ("ln_1", "ln_2"):
            found |= {b + name + half: value for half, value in norm(a + name).items()}
        found[b + "attn.c_attn.weight"] = x[a + "attn.c_attn.weight"][np.ix_(channels, qkv)]
        found[b + "attn.c_attn.bias"] = x[a + "attn.c_attn.bias"][qkv]
        found[b + "attn.c_proj.weight"] = alive * writes(rows(x[a + "attn.c_proj.weight"], inside, d))
        found[b + "attn.c_proj.bias"] = alive * writes(x[a + "attn.c_proj.bias"])
        found[b + "mlp.c_fc.weight"] = x[a + "mlp.c_fc.weight"][np.ix_(channels, neurons)]
        found[b + "mlp.c_fc.bias"] = x[a + "mlp.c_fc.bias"][neurons]
        found[b + "mlp.c_proj.weight"] = alive * writes(rows(x[a + "mlp.c_proj.weight"], neurons, f))
        found[b + "mlp.c_proj.bias"] = alive * writes(x[a + "mlp.c_proj.bias"])
    return found


def numpy_cut(state: State, old: ModelSpec, new: ModelSpec) -> Arrays:
    """The leading units of the outer layers."""
    x = {name: tensor.double().numpy() for name, tensor in state.items()}
    d, f = new.width, new.ffn
    qkv = np.concatenate([part * old.width + np.arange(d) for part in range(3)])
    found = {name: value[..., :d] for name, value in x.items() if ".h." not in name}
    last = new.layers // 2
    for i, source in enumerate([*range(new.layers - last), *range(old.layers - last, old.layers)]):
        a, b = f"transformer.h.{source}.", f"transformer.h.{i}."
        for name in (
            "ln_1.weight",
            "ln_1.bias",
            "ln_2.weight",
            "ln_2.bias",
            "attn.c_proj.bias",
            "mlp.c_proj.bias",
        ):
            found[b + name] = x[a + name][:d]
        found[b + "attn.c_attn.weight"] = x[a + "attn.c_attn.weight"][:d, qkv]
        found[b + "attn.c_attn.bias"] = x[a + "attn.c_attn.bias"][qkv]
        found[b + "attn.c_proj.weight"] = x[a + "attn.c_proj.weight"][:d, :d]
        found[b + "mlp.c_fc.weight"] = x[a + "mlp.c_fc.weight"][:d, :f]
        found[b + "mlp.c_fc.bias"] = x[a + "mlp.c_fc.bias"][:f]
        found[b + "mlp.c_proj.weight"] = x[a + "mlp.c_proj.weight"][:f, :d]
    return found


def held_by_small(name: str, old: ModelSpec, new: ModelSpec) -> np.ndarray:
    """Which coordinates of a target's tensor the small anchor has units for."""
    d, f = np.arange(new.width) < old.width, np.arange(new.ffn) < old.ffn
    if ".h." in name:
        first, block = -(-old.layers // 2), int(name.split(".")[2])
        if first <= block < first + new.layers - old.layers:
            d, f = d & False, f & False
    ends = {
        "wte.weight": (np.full(new.vocab, True), d),
        "wpe.weight": (np.full(new.positions, True), d),
        "c_attn.weight": (d, np.tile(d, 3)),
        "c_attn.bias": (np.tile(d, 3),),
        "attn.c_proj.weight": (d, d),
        "c_fc.weight": (d, f),
        "c_fc.bias": (f,),
        "mlp.c_proj.weight": (f, d),
    }
    axes = next((axes for end, axes in ends.items() if name.endswith(end)), (d,))
    return axes[0] if len(axes) == 1 else np.logical_and.outer(*axes)


targets = st.builds(
    lambda layers, heads, ffn: replace(TARGET, layers=layers, heads=heads, width=16 * heads, ffn=ffn),
    st.integers(2, 5),
    st.integers(2, 5),
    st.integers(100, 250),
)


@settings(deadline=None, max_examples=20)
@given(spec=targets, alpha=st.floats(0, 1))
def test_literal_is_the_papers_formula_on_every_coordinate(
    small, large, spec: ModelSpec, alpha: float
) -> None:
    first, second = Checkpoint(small), Checkpoint(large)
    grown = numpy_grown(load_file(small / "model.safetensors"), first.spec, spec)
    cut = numpy_cut(load_file(large / "model.safetensors"), second.spec, spec)
    mixed = Mixer(first, second, spec, alpha, LITERAL)
    names = set()
    for role, layer, name in first.family.tensors(spec):
        expected = alpha * grown[name] + (1 - alpha) * cut[name]
        np.testing.assert_allclose(
            mixed.tensor(role, layer).numpy(), expected, rtol=1e-5, atol=2e-7, err_msg=name
        )
        names.add(name)
    assert names == set(grown) == set(cut)


@settings(deadline=None, max_examples=20)
@given(spec=targets, alpha=st.floats(0, 1))
def test_union_keeps_the_larger_anchor_where_the_smaller_has_no_unit(
    small, large, spec, alpha: float
) -> None:
    first, second = Checkpoint(small), Checkpoint(large)
    union, literal, alone = (
        Mixer(first, second, spec, a, operator)
        for a, operator in ((alpha, UNION), (alpha, LITERAL), (0.0, LITERAL))
    )
    for role, layer, name in first.family.tensors(spec):
        mask = torch.from_numpy(held_by_small(name, first.spec, spec))
        found, formula, whole = (m.tensor(role, layer) for m in (union, literal, alone))
        assert found.shape == mask.shape
        assert torch.equal(found[~mask], whole[~mask]), name
        assert torch.equal(found[mask], formula[mask]), name


def test_union_differs_from_literal_exactly_where_it_should(small, large) -> None:
    """Random weights are equal only where they must be: neither test above passes for want of new units."""
    first, second = Checkpoint(small), Checkpoint(large)
    union, literal = (Mixer(first, second, TARGET, 0.5, operator) for operator in (UNION, LITERAL))
    for role, layer, name in first.family.tensors(TARGET):
        differs = (union.tensor(role, layer) != literal.tensor(role, layer)).numpy()
        assert np.array_equal(differs, ~held_by_small(name, first.spec, TARGET)), name


@settings(deadline=None, max_examples=10)
@given(spec=targets)
def test_union_of_whole_copies_is_the_formula(small, large, spec: ModelSpec) -> None:
    """Under duplication every unit comes from the small anchor, but for new blocks and a padded remainder."""
    wide = replace(spec, layers=2, heads=4, width=64)
    first, second = Checkpoint(small), Checkpoint(large)
    union = Mixer(first, second, wide, 0.3, Operator("union", DUPLICATE.trans))
    literal = Mixer(first, second, wide, 0.3, DUPLICATE)
    for role, layer, name in first.family.tensors(wide):
        assert torch.equal(union.tensor(role, layer), literal.tensor(role, layer)), name


@pytest.fixture(scope="module")
def twins(tmp_path_factory, save_gpt2) -> tuple[Path, Path]:
    """Two anchors of one shape, with weights of a trained model's size."""
    folders = [save_gpt2(**SMALL | {"seed": seed}) for seed in (5, 6)]
    for folder in folders:
        state = load_file(folder / "model.safetensors")
        save_file(
            {name: tensor * 0.1 for name, tensor in state.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
    return tuple(folders)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9385])
def test_equal_shapes_are_torchs_own_linear_combination(mix, twins, alpha: float, operator: str) -> None:
    spec = Checkpoint(twins[0]).spec
    tensors, _ = mix(alpha, OPERATORS[operator], spec, *twins)
    a, b = (load_file(folder / "model.safetensors") for folder in twins)
    for name, tensor in tensors.items():
        exact = alpha * a[name].double() + (1 - alpha) * b[name].double()
        assert (tensor - torch.lerp(b[name], a[name], alpha)).abs().max() < 3e-8
        assert (tensor - exact).abs().max() < 3e-8


@pytest.fixture(scope="module")
def halves(small, large, tmp_path_factory) -> tuple[Path, Path]:
    """The anchors, stored in bf16."""
    folders = []
    for folder in (small, large):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        folders.append(tmp_path_factory.mktemp("bf16"))
        model.save_pretrained(folders[-1])
    return tuple(folders)


def test_anchors_in_bf16_are_mixed_in_fp32(mix, halves) -> None:
    """At most half a unit in bf16's last place from the exact sum, which no arithmetic in bf16 reaches."""
    alpha = 0.3
    tensors, config = mix(alpha, LITERAL, TARGET, *halves)
    first, second = map(Checkpoint, halves)
    grown = numpy_grown(load_file(halves[0] / "model.safetensors"), first.spec, TARGET)
    cut = numpy_cut(load_file(halves[1] / "model.safetensors"), second.spec, TARGET)
    worst = 0.0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.bfloat16
        exact = torch.from_numpy(alpha * grown[name] + (1 - alpha) * cut[name])
        half_ulp = 2.0 ** (exact.abs().clamp(min=1e-30).log2().floor() - 8)
        assert ((tensor.double() - exact).abs() <= half_ulp * 1.001 + 1e-7).all(), name
        a, b = torch.from_numpy(grown[name]).bfloat16(), torch.from_numpy(cut[name]).bfloat16()
        worst = max(worst, ((alpha * a + (1 - alpha) * b).double() - exact).abs().div(half_ulp).max().item())
    assert worst > 1.2  # the same in bf16
    assert config["dtype"] == "bfloat16"


@pytest.mark.parametrize("operator", [LITERAL, UNION, LOSSY], ids=["literal", "union", "lossy"])
def test_the_norms_epsilon_is_mixed_like_the_weights(mix, operator) -> None:
    _, config = mix(0.25, operator)
    grown = 1e-5 if operator is LOSSY else 1e-5 * 32 / 48
    assert config["layer_norm_epsilon"] == pytest.approx(0.25 * grown + 0.75 * 1e-3, rel=1e-9)


def test_alpha_by_the_rule_and_given_are_told_apart(small, large, tmp_path) -> None:
    for alpha, rule in (("distance", "distance"), (0.5, "given")):
        out = tmp_path / rule
        out.mkdir()
        done = initialize(small, large, TARGET, out, alpha)
        specs = [Checkpoint(folder).spec for folder in (small, large)]
        assert done["alpha"] == (distance_alpha(*specs, TARGET) if alpha == "distance" else alpha)
        assert done["alpha_rule"] == rule


@pytest.mark.parametrize(
    "operator", [LITERAL, UNION, Operator("union", Trans("copy", "duplicate", "importance", "importance"))]
)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_one_tensor_of_each_anchor_is_in_memory_at_a_time(
    small, large, tmp_path, monkeypatch, operator, alpha
) -> None:
    read, live, peak = Checkpoint.tensor, {}, 0

    def tracked(self: Checkpoint, name: str) -> Tensor:
        """The tensor, backed by an array that torch lets go of when nothing uses its memory any more."""
        nonlocal peak
        array = read(self, name).numpy().copy()
        live[id(array)] = array.nbytes
        weakref.finalize(array, live.pop, id(array))
        peak = max(peak, sum(live.values()))
        return torch.from_numpy(array)

    held = []
    monkeypatch.setattr(Checkpoint, "tensor", tracked)
    monkeypatch.setattr(
        interpolation, "write", lambda out, config, tensors, **rest: held.append(dict(tensors))
    )
    initialize(small, large, TARGET, tmp_path, alpha, operator)
    biggest = [max(t.nbytes for t in load_file(f / "model.safetensors").values()) for f in (small, large)]
    pairs = operator.trans.cut_width == "importance"  # measured from what goes in and what comes out
    assert 0 < peak <= (2 if pairs else 1) * sum(biggest)
    [tensors] = held
    # and what is kept owns no more than the target's own bytes: no view into a larger tensor
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()}
    assert sum(kept.values()) == 4 * TARGET.parameters
    assert not live


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_blocks_that_are_copied_do_not_share_memory(mix, twins, alpha: float) -> None:
    """One tensor read twice from a mapped file: safetensors refuses to write what shares memory."""
    old = Checkpoint(twins[0]).spec
    operator = Operator("literal", Trans(grow_layers="copy"))
    tensors, _ = mix(alpha, operator, replace(old, layers=4), *twins)
    for name, tensor in tensors.items():
        if ".h.0." in name:
            assert torch.equal(tensor, tensors[name.replace(".h.0.", ".h.1.")])


# Checkpoints as they come


def test_a_checkpoint_in_shards_is_the_same(mix, small, large, tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(large)
    shards = tmp_path / "shards"
    model.save_pretrained(shards, max_shard_size="100KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    whole, _ = mix(0.4)
    assert_bits(mix(0.4, second=shards)[0], whole)
    assert set(Checkpoint(shards).hashes()) == {p.name for p in shards.glob("*.safetensors")} | {
        "config.json"
    }


def test_names_as_on_the_hub_are_the_same(mix, small, tmp_path) -> None:
    """The published gpt2: saved from the bare body, with every block's causal mask, and an older config."""
    hub = tmp_path / "hub"
    hub.mkdir()
    state = {k.removeprefix("transformer."): v for k, v in load_file(small / "model.safetensors").items()}
    mask = torch.ones(16, 16).tril()[None, None]
    for i in range(SMALL["layers"]):
        state |= {f"h.{i}.attn.bias": mask.clone(), f"h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    save_file(state, hub / "model.safetensors", {"format": "pt"})
    config = json.loads((small / "config.json").read_text())
    config = {k: v for k, v in config.items() if k not in ("tie_word_embeddings", "dtype")} | {"n_ctx": 16}
    (hub / "config.json").write_text(json.dumps(config))
    whole, _ = mix(0.4)
    assert_bits(mix(0.4, first=hub)[0], whole)


def test_a_config_without_the_epsilon_means_the_default(mix, small, tmp_path) -> None:
    folder = shutil.copytree(small, tmp_path / "bare")
    path = folder / "config.json"
    path.write_text(
        json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "layer_norm_epsilon"})
    )
    found, config = mix(0.4, first=folder)
    expected, whole = mix(0.4)
    assert_bits(found, expected)
    assert config["layer_norm_epsilon"] == whole["layer_norm_epsilon"]


def test_a_head_saved_although_tied_is_the_same(mix, small, tmp_path) -> None:
    folder = shutil.copytree(small, tmp_path / "headed")
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    whole, _ = mix(0.4)
    assert_bits(mix(0.4, first=folder)[0], whole)


# `cbd init`


def arguments(small: Path, large: Path, out: Path, **options) -> list[str]:
    """A command line; an option of None is left out, True is a flag."""
    values = {"small": small, "large": large, "layers": 3, "width": 48, "unaligned": True, "out": out}
    values |= options
    found = ["init"]
    for name, value in values.items():
        found += [] if value is None else [f"--{name}"] if value is True else [f"--{name}={value}"]
    return found


@pytest.fixture
def square(save_gpt2, tiny_corpus_folder) -> tuple[Path, Path]:
    """Anchors with the usual feed-forward ratio, which a target of another width keeps."""
    a = save_gpt2(layers=2, width=32, heads=2, vocab=300, seed=1, tokenizer=tiny_corpus_folder)
    b = save_gpt2(layers=5, width=80, heads=5, vocab=300, seed=2, tokenizer=tiny_corpus_folder, epsilon=1e-4)
    return a, b


@pytest.mark.parametrize("operator", OPERATORS)
def test_init_writes_a_checkpoint_that_transformers_loads(square, tmp_path, capsys, operator: str) -> None:
    out = tmp_path / "new" / "model"
    assert cli.main(arguments(*square, out, operator=operator)) == 0
    assert str(out) in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["model"]

    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    spec = ModelSpec(3, 48, 3, 192, 300, 16)
    assert Checkpoint(out).spec == spec
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.parameters
    tokenizer, source = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(square[0])
    text = "anna sees the old king by the river."
    assert tokenizer(text).input_ids == source(text).input_ids
    with torch.no_grad():
        assert model(**tokenizer(text[:12], return_tensors="pt")).logits.isfinite().all()

    content = json.loads((out / "cbd.json").read_text())
    alpha = distance_alpha(Checkpoint(square[0]).spec, Checkpoint(square[1]).spec, spec)
    assert content["alpha"] == alpha
    assert content["alpha_rule"] == "distance"
    assert content["version"] == cbd.__version__
    assert content["operator"] == asdict(OPERATORS[operator])
    for name, expected in (
        ("target", spec),
        *((n, Checkpoint(f).spec) for n, f in zip(("small", "large"), square, strict=True)),
    ):
        assert ModelSpec(**content[name]) == expected
    for name, folder in zip(("small", "large"), square, strict=True):
        digests = {
            f: hashlib.sha256((folder / f).read_bytes()).hexdigest()
            for f in ("config.json", "model.safetensors")
        }
        assert content["sha256"][name] == digests

    card = (out / "README.md").read_text()
    for fact in (
        "# model",
        f"{alpha:.4f}",
        f"{spec.parameters:,}",
        square[0].name,
        square[1].name,
        cbd.__version__,
    ):
        assert fact in card
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_init_is_the_same_to_the_byte_when_repeated(square, tmp_path) -> None:
    outs = [tmp_path / name for name in ("a", "b")]
    for out in outs:
        assert cli.main(arguments(*square, out, alpha=0.3, heads=3)) == 0
    for name in ("model.safetensors", "config.json", "cbd.json", "tokenizer.json"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_init_does_what_initialize_does(square, tmp_path) -> None:
    assert cli.main(arguments(*square, tmp_path / "cli", alpha=0.3, operator="union")) == 0
    expected, config = written(
        lambda out: initialize(*square, Checkpoint(tmp_path / "cli").spec, out, 0.3, UNION), tmp_path
    )
    assert_bits(load_file(tmp_path / "cli" / "model.safetensors"), expected)
    assert json.loads((tmp_path / "cli" / "config.json").read_text()) == config


def test_a_target_outside_is_made_when_allowed(square, tmp_path, capsys) -> None:
    assert cli.main(arguments(*square, tmp_path / "out", layers=7, width=96, outside=True)) == 0
    assert Checkpoint(tmp_path / "out").spec.name == "7x96"
    assert json.loads((tmp_path / "out" / "cbd.json").read_text())["alpha"] == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


# What is refused


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


class Bench:
    """Two good anchors to spoil, and the command that must refuse them."""

    def __init__(self, folder: Path, square: tuple[Path, Path], capsys):
        self.folder, self.capsys = folder, capsys
        self.small = shutil.copytree(square[0], folder / "small")
        self.large = shutil.copytree(square[1], folder / "large")

    def config(self, which: Path, **entries) -> None:
        path = which / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    def state(self, which: Path, change: Callable[[State], State]) -> None:
        path = which / "model.safetensors"
        save_file(change(load_file(path)), path, {"format": "pt"})

    def refuse(self, message: str, **options) -> None:
        """Status 2, one line on stderr that matches, nothing on stdout, and the disk as it was."""
        options = {"small": self.small, "large": self.large, "out": self.folder / "out"} | options
        before = tree(self.folder)
        self.capsys.readouterr()
        status = cli.main(arguments(**options))
        out, error = self.capsys.readouterr()
        assert status == 2
        assert out == ""
        assert error.startswith("cbd: ")
        assert error.endswith("\n")
        assert error.count("\n") == 1, error
        assert message in error
        assert tree(self.folder) == before


@pytest.fixture
def bench(tmp_path, square, capsys) -> Bench:
    return Bench(tmp_path, square, capsys)


def test_the_bench_itself_is_accepted(bench) -> None:
    assert cli.main(arguments(bench.small, bench.large, bench.folder / "out")) == 0


def test_refuses_another_family(bench) -> None:
    config = LlamaConfig(
        vocab_size=300, hidden_size=80, intermediate_size=160, num_hidden_layers=5, num_attention_heads=5
    )
    LlamaForCausalLM(config).save_pretrained(bench.folder / "llama")
    bench.refuse("families differ (gpt2 and llama): Trans keeps them", small=bench.folder / "llama")
    bench.refuse("families differ (llama and gpt2): Trans keeps them", large=bench.folder / "llama")


def test_refuses_another_vocabulary(bench, save_gpt2) -> None:
    other = save_gpt2(layers=5, width=80, heads=5, vocab=301)
    bench.refuse(
        "vocabularies differ (301 and 300): Trans keeps them; use anchors that share them", large=other
    )


def test_refuses_another_vocabulary_of_the_same_size(bench) -> None:
    path = bench.large / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    first, second = list(vocab)[40:42]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(content))
    bench.refuse("vocabular")


def test_refuses_another_tiedness(bench, save_gpt2) -> None:
    other = save_gpt2(layers=5, width=80, heads=5, vocab=300, tied=False)
    bench.refuse("tied-ness of the head differ", large=other)


def test_refuses_other_positions(bench, save_gpt2) -> None:
    bench.refuse("positions differ", large=save_gpt2(layers=5, width=80, heads=5, vocab=300, positions=32))


def test_refuses_another_head_dimension(bench, save_gpt2) -> None:
    other = save_gpt2(layers=5, width=80, heads=10, vocab=300)
    bench.refuse("head dimension 8 cannot become 16: choose 48/8 = 6 heads", large=other)


def test_refuses_another_activation(bench) -> None:
    bench.config(bench.large, activation_function="relu")
    bench.refuse("activation")


@pytest.mark.parametrize(("layers", "width"), [(6, 48), (1, 48), (3, 96), (3, 16)])
def test_refuses_a_target_outside(bench, layers: int, width: int) -> None:
    message = (
        f"target {layers}x{width} lies outside the anchors 2x32 and 5x80: choose a size between them, "
        f"or allow it with --outside"
    )
    bench.refuse(message, layers=layers, width=width)


def test_refuses_sizes_that_make_no_model(bench) -> None:
    bench.refuse("multiple of the head dimension 16, which Trans keeps; the nearest are 48 and 64", width=50)
    bench.refuse("choose 3 --heads", heads=4)
    bench.refuse("every size must be at least 1", layers=0)
    bench.refuse("every size must be at least 1", width=0)
    bench.refuse("every size must be at least 1", layers=-3, outside=True)


@pytest.mark.parametrize("alpha", ["1.01", "-0.5", "nan", "inf", "half", ""])
def test_refuses_an_alpha_that_is_no_share(bench, alpha: str) -> None:
    bench.refuse('give a number in [0, 1], or "distance"', alpha=alpha)


def test_refuses_without_leaving_the_way_to_the_output(bench) -> None:
    bench.refuse("give a number in [0, 1]", alpha=2, out=bench.folder / "a" / "b" / "c")


def test_refuses_anchors_given_the_wrong_way_round(bench) -> None:
    bench.refuse("swap them", small=bench.large, large=bench.small)


def test_refuses_an_output_that_exists(bench) -> None:
    (bench.folder / "empty").mkdir()
    (bench.folder / "file").write_text("kept")
    for name in ("empty", "file", "small"):
        bench.refuse("exists: choose another --out, or remove it first", out=bench.folder / name)


def test_refuses_an_output_that_cannot_be_written(bench) -> None:
    (bench.folder / "file").write_text("kept")
    bench.refuse(
        "cannot be written (Not a directory): choose another --out", out=bench.folder / "file" / "out"
    )


@pytest.mark.parametrize("which", ["small", "large"])
class TestSpoiled:
    """Each fault in either anchor."""

    def test_refuses_a_truncated_file(self, bench, which) -> None:
        path = getattr(bench, which) / "model.safetensors"
        content = path.read_bytes()
        for length in (0, 5, 200, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            bench.refuse(f"{path} is unreadable or truncated")

    def test_refuses_what_is_no_safetensors(self, bench, which) -> None:
        (getattr(bench, which) / "model.safetensors").write_bytes(b"<html>404</html>" * 40)
        bench.refuse("copy or download it again")

    def test_refuses_missing_weights(self, bench, which) -> None:
        (getattr(bench, which) / "model.safetensors").rename(getattr(bench, which) / "pytorch_model.bin")
        bench.refuse("only safetensors are read; convert with save_pretrained")

    def test_refuses_a_missing_tensor(self, bench, which) -> None:
        name = "transformer.h.1.mlp.c_fc.bias"
        bench.state(getattr(bench, which), lambda state: {k: v for k, v in state.items() if k != name})
        bench.refuse(f"({name}, ...): config.json and weights do not belong together")

    def test_refuses_weights_of_another_depth(self, bench, which) -> None:
        bench.config(getattr(bench, which), n_layer=8)
        bench.refuse("config.json and weights do not belong together", layers=8, outside=True)

    def test_refuses_weights_of_another_width(self, bench, which) -> None:
        name = "transformer.h.1.mlp.c_fc.weight"
        bench.state(getattr(bench, which), lambda state: state | {name: state[name][:, :-1].contiguous()})
        bench.refuse("config.json and weights do not belong together")

    def test_refuses_a_config_that_is_no_json(self, bench, which) -> None:
        path = getattr(bench, which) / "config.json"
        path.write_text(path.read_text()[:100])
        bench.refuse("config.json is not JSON")
        path.write_bytes(b"\xff\xfe\x00")
        bench.refuse("config.json is not JSON")
        path.unlink()
        bench.refuse("config.json is missing: save the model with save_pretrained")

    @pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_head", "vocab_size", "n_positions"])
    def test_refuses_an_incomplete_config(self, bench, which, key) -> None:
        path = getattr(bench, which) / "config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
        bench.refuse(f"config.json lacks '{key}'")

    @pytest.mark.parametrize("content", ["[]", "null", '{"n_layer": "2"}', '{"n_embd": null}'])
    def test_refuses_a_config_of_another_form(self, bench, which, content) -> None:
        path = getattr(bench, which) / "config.json"
        whole, other = json.loads(path.read_text()), json.loads(content)
        path.write_text(json.dumps(whole | other if isinstance(other, dict) else other))
        bench.refuse(f"{path} ")

    def test_refuses_a_missing_shard(self, bench, which) -> None:
        folder = getattr(bench, which)
        model = AutoModelForCausalLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="40KB")
        shard = sorted(folder.glob("*.safetensors"))[1]
        content = shard.read_bytes()
        shard.unlink()
        bench.refuse(f"{shard} is missing")
        shard.write_bytes(content[:-9])
        bench.refuse(f"{shard} is unreadable or truncated")
        (folder / "model.safetensors.index.json").write_text("{")
        bench.refuse("index.json is not JSON")
        (folder / "model.safetensors.index.json").write_text("{}")
        bench.refuse("config.json and weights do not belong together")

    def test_refuses_a_folder_that_is_none(self, bench, which) -> None:
        bench.refuse(
            "is not a folder: name a checkpoint in Hugging Face's format", **{which: bench.folder / "nowhere"}
        )
        bench.refuse("is not a folder", **{which: getattr(bench, which) / "config.json"})


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_nothing(bench, monkeypatch, error) -> None:
    def half(folder: Path, *_, **__) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(interpolation, "write", half)
    before = tree(bench.folder)
    if isinstance(error, KeyboardInterrupt):
        assert cli.main(arguments(bench.small, bench.large, bench.folder / "out")) == 130
    else:
        with pytest.raises(OSError, match="disk full"):
            cli.main(arguments(bench.small, bench.large, bench.folder / "out"))
    assert tree(bench.folder) == before


def test_as_a_command(bench) -> None:
    """In a process of its own: the status, and not a line more than the one."""

    def run(**options):
        line = arguments(bench.small, bench.large, bench.folder / "out", **options)
        return subprocess.run([sys.executable, "-m", "cbd.cli", *line], capture_output=True, text=True)

    refused = run(width=50)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert not (bench.folder / "out").exists()
    made = run()
    assert (made.returncode, made.stderr) == (0, "")
    assert (bench.folder / "out" / "model.safetensors").exists()
