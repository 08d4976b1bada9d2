"""The basis of principal axes: the same function, and slices that lose only what the stream does not use."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import random_model
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from cbd.errors import CbdError
from cbd.experiments.starts import inherited
from cbd.models import rotation
from cbd.models.checkpoints import Checkpoint
from cbd.models.families import FAMILIES, Axis, Family, Role
from cbd.models.forward import hooked
from cbd.models.interpolation import transfer
from cbd.models.rotation import helmert, measured, principal_axes, rotate
from cbd.realize import realize
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Chain, Interpolated, Random, Rotated, Sorted, Transferred
from cbd.recipes.operators import UNION, Trans
from cbd.recipes.specs import ModelSpec, gpt2, llama, pythia, qwen3
from cbd.recipes.training import Anchor, Loss, Training

SIZES = {"vocab": 60, "positions": 32}
# (a shape, and one of half the width, heads and neurons)
SHAPES: dict[str, tuple[ModelSpec, ModelSpec]] = {
    "gpt2": (gpt2(3, 64, head_dim=16, **SIZES), gpt2(3, 32, head_dim=16, **SIZES)),
    "gpt_neox": (pythia(3, 64, head_dim=16, **SIZES), pythia(3, 32, head_dim=16, **SIZES)),
    "llama": (llama(3, 64, 4, 2, 96, **SIZES), llama(3, 32, 2, 1, 48, **SIZES)),
    "qwen3": (
        qwen3(3, 64, 4, 2, 96, head_dim=24, **SIZES),
        qwen3(3, 32, 2, 1, 48, head_dim=24, **SIZES),
    ),
}
ROWS = torch.randint(0, 60, (16, 32), generator=torch.Generator().manual_seed(1))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(ROWS).logits


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def turned(tmp_path):
    """Save a model, turn it, and return both checkpoints."""

    def go(model) -> tuple[Checkpoint, Checkpoint]:
        model.save_pretrained(tmp_path / "plain")
        plain = Checkpoint(tmp_path / "plain")
        (tmp_path / "turned").mkdir()
        rotate(plain, measured(model, plain, ROWS.split(4)), tmp_path / "turned")
        return plain, Checkpoint(tmp_path / "turned")

    return go


@pytest.mark.parametrize("name", SHAPES)
def test_a_turned_model_computes_the_same(name, turned):
    spec = replace(SHAPES[name][0], tied=False)
    model = random_model(spec)
    plain, other = turned(model)
    torch.testing.assert_close(logits(loaded(other.folder)), logits(model), atol=2e-5, rtol=2e-5)
    embeddings = plain.family.roles[0].name
    assert (other.tensor(embeddings) - plain.tensor(embeddings)).abs().max() > 0.1, (
        "but not by the same weights"
    )
    for energy in other.energies.values():
        assert energy.sum() == pytest.approx(spec.width, rel=1e-4) and energy.min() > -1e-4


def test_a_tied_head_costs_nothing_where_its_norms_gains_are_alike(turned):
    for name in ("llama", "gpt2"):
        model = random_model(replace(SHAPES[name][0], tied=True))
        with torch.no_grad():
            model.get_parameter(_last(FAMILIES[name])).fill_(1.7)
        _, other = turned(model)
        # the gain lifts the rounding, too; how far it goes depends on the processor
        torch.testing.assert_close(logits(loaded(other.folder)), logits(model), atol=5e-5, rtol=5e-5)
        for folder in (other.folder, other.folder.with_name("plain")):
            folder.rename(folder.with_name(f"{folder.name} {name}"))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_channels_of_unusual_gain_keep_an_axis_where_the_head_is_tied(name, turned, monkeypatch):
    """What the head then loses is a small part of what it loses without."""
    model = random_model(replace(SHAPES[name][0], tied=True))
    last = _last(FAMILIES[name])
    gain = model.get_parameter(last)
    with torch.no_grad():
        gain.fill_(1.0).add_(0.02 * torch.randn(len(gain), generator=torch.Generator().manual_seed(0)))
        gain[[3, 17, 40]] = torch.tensor([-2.0, 3.0, 5.0])
    wanted = logits(model)
    plain, other = turned(model)
    error = (logits(loaded(other.folder)) - wanted).abs().mean()
    assert other.tensor(last).sort().values[[0, -2, -1]].tolist() == pytest.approx([-2, 3, 5])
    monkeypatch.setattr(rotation, "APART", 0.0)
    (plain.folder.parent / "without").mkdir()
    rotate(plain, measured(model, plain, ROWS.split(4)), plain.folder.parent / "without")
    without = (logits(loaded(plain.folder.parent / "without")) - wanted).abs().mean()
    assert 0 < error < without / 5


def _last(family: Family) -> str:
    return next(role.name for role in family.roles if role.feeds_head and role.kind == "gain")


def _writes(role: Role) -> bool:
    return role.kind == "weight" and Axis("stream") in role.axes


@pytest.mark.parametrize("name", SHAPES)
def test_a_slice_keeps_the_function_of_a_model_that_uses_no_more(name, turned, tmp_path):
    """What writes to the stream does so in half of its dimensions; half of the heads and neurons are dead.

    Which ones, no weight's place says: the slice has to find them, and to undo what fewer channels do to the
    norms. LayerNorm needs one channel more than it has axes.
    """
    spec, half = (replace(shape, tied=False) for shape in SHAPES[name])
    model, family = random_model(spec), FAMILIES[name]
    draw = torch.Generator().manual_seed(3)
    axes = half.width - (family.norm == "layer")
    basis = torch.linalg.qr(torch.randn(spec.width, axes, generator=draw))[0]
    with torch.no_grad():
        for role, _, tensor in family.tensors(spec):
            weight = model.get_parameter(family.parameter(tensor))
            if role.kind == "shift" and role.feeds_head:
                weight.zero_()  # a shift of the last norm is no part of the stream
            if not _writes(role):
                continue
            dim = role.axes.index(Axis("stream"))
            weight.copy_((weight.movedim(dim, -1) @ basis @ basis.T).movedim(-1, dim))
            if role.output and len(role.axes) == 2:
                unit = role.axes[1 - dim].unit
                count = spec.kv if unit == "heads" else spec.ffn
                dead = torch.randperm(count, generator=draw)[: count // 2]
                units = weight.movedim(1 - dim, 0).unflatten(0, (count, -1))  # a view
                units[dead] = 0
    _, other = turned(model)
    (tmp_path / "half").mkdir()
    transfer(other, half, tmp_path / "half", Trans())
    cut = loaded(tmp_path / "half")
    assert sum(p.numel() for p in cut.parameters()) == half.parameters
    torch.testing.assert_close(logits(cut), logits(model), atol=1e-4, rtol=1e-4)


@given(st.integers(2, 40))
def test_helmerts_basis_is_orthogonal_and_its_vectors_end_early(size):
    basis = helmert(size)
    torch.testing.assert_close(basis.T @ basis, torch.eye(size, dtype=basis.dtype))
    for k in range(1, size):
        assert (basis[k + 1 :, k] == 0).all() and basis[: k + 1, k].sum().abs() < 1e-9
        assert basis[:k, k].unique().numel() == 1, "constant before its last channel: a norm takes that away"


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["gpt2", "llama"]), st.integers(0, 999))
def test_the_leading_channels_hold_most_whatever_the_text(name, seed):
    """No other orthogonal basis holds more of the mean covariance in its leading directions."""
    draw = torch.Generator().manual_seed(seed)
    family, root = FAMILIES[name], torch.randn(12, 12, generator=draw)
    found = {str(i): (m @ m.T) for i, m in enumerate((root, root[:, :3]))}
    if family.norm == "layer":
        centre = torch.eye(12) - 1 / 12
        found = {norm: centre @ c @ centre for norm, c in found.items()}
    turn, energies = principal_axes(rotation.Statistics(found, {}), family)
    torch.testing.assert_close(turn.T @ turn, torch.eye(12), atol=1e-5, rtol=1e-5)
    mean = torch.stack(list(found.values())).mean(0)
    held = torch.stack(list(energies.values())).mean(0)
    other = torch.linalg.qr(torch.randn(12, 12, generator=draw))[0]
    best = torch.linalg.eigvalsh(mean).flip(0).cumsum(0)
    for d in range(1, 13):
        axes = d - (family.norm == "layer")
        assert held[:d].sum() == pytest.approx(float(best[axes - 1]) if axes else 0.0, rel=1e-3, abs=1e-3)
        assert held[:d].sum() >= (other[:, :axes].T @ mean @ other[:, :axes]).trace() - 1e-3


def test_scores_are_what_heads_and_neurons_add(tmp_path):
    """For a neuron the root mean square of its own column's share, measured by hand."""
    spec = replace(SHAPES["llama"][0], tied=False)
    model = random_model(spec).requires_grad_(False)
    model.save_pretrained(tmp_path)
    inputs = []
    down = model.get_submodule("model.layers.1.mlp.down_proj")
    hook = down.register_forward_hook(lambda _, given, __: inputs.append(given[0]))
    scores = measured(model, Checkpoint(tmp_path), [ROWS]).scores
    hook.remove()
    neuron = inputs[0][..., 5, None] * down.weight[:, 5]
    assert scores["ffn", 1][5] == pytest.approx(float(neuron.square().sum(-1).mean().sqrt()), rel=1e-4)
    assert set(scores) == {(unit, i) for unit in ("ffn", "heads") for i in range(3)}
    assert len(scores["heads", 0]) == spec.heads


@pytest.mark.parametrize("name", SHAPES)
def test_ordered_by_activations_a_model_computes_the_same_and_leads_with_what_is_active(name, tmp_path):
    model = random_model(SHAPES[name][0]).requires_grad_(False)
    model.save_pretrained(tmp_path / "plain")
    (tmp_path / "ordered").mkdir()
    plain = Checkpoint(tmp_path / "plain")
    rotate(plain, measured(model, plain, ROWS.split(4)), tmp_path / "ordered", axes=False)
    other = loaded(tmp_path / "ordered")
    torch.testing.assert_close(logits(other), logits(model), atol=2e-5, rtol=2e-5)
    seen: dict[str, torch.Tensor] = {}

    def see(name: str, x: torch.Tensor, _: torch.Tensor) -> None:
        x = x - x.mean(-1, keepdim=True) if plain.family.norm == "layer" else x
        seen[name] = (x / x.square().mean(-1, keepdim=True).sqrt()).square().mean((0, 1))

    norms = [n for r, _, n in plain.family.tensors(plain.spec) if r.norm]
    with hooked(other, norms, see):
        logits(other)
    carried = torch.stack(list(seen.values())).mean(0)
    assert (carried.diff() <= 1e-5).all()
    for norm, energy in Checkpoint(tmp_path / "ordered").energies.items():
        torch.testing.assert_close(energy, seen[norm], atol=1e-4, rtol=1e-3)


def test_a_norm_whose_shift_no_reader_can_take_is_refused(tmp_path):
    random_model(SHAPES["gpt2"][0]).save_pretrained(tmp_path)
    plain = Checkpoint(tmp_path)
    roles = tuple(role for role in plain.family.roles if role.name != "transformer.h.{layer}.mlp.c_fc.bias")
    plain.family = replace(plain.family, roles=roles)
    with pytest.raises(CbdError, match=r"c_fc\.weight has no bias"):
        rotation.Turned(plain, torch.eye(64))


# In a chain ---------------------------------------------------------------------------------------------


@pytest.fixture
def chain(tiny_corpus, tmp_path, monkeypatch) -> Chain:
    """A Llama and an anchor of half its width that began as slices of its principal axes."""
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    shape = lambda width: llama(2, width, width // 16, width // 32, width * 3 // 2, vocab=300, positions=64)  # noqa: E731
    training = Training(tokens=2 * 16 * 4, lr=1e-5, batch=4, context=16, evaluations=1, evaluation_tokens=64)
    source = Random(shape(64), tiny_corpus)
    start = Transferred(Rotated(source, tiny_corpus, sample=512, context=16), shape(32))
    return Chain((source, Anchor(source, start, tiny_corpus, training, Loss("forward_kl", 0.5))))


def test_a_size_in_between_mixes_the_anchor_with_what_it_began_from(chain, tiny_corpus):
    source, anchor = chain.models
    small, large = chain.pair_around(replace(anchor.spec, layers=2))
    assert (small, large) == (anchor, anchor.start.model) and large.model == source
    mixed = Interpolated(small, large, source.spec, alpha=0.0, operator=UNION)
    text = {"sample": 512, "context": 16}
    measured = [Evaluated(model, tiny_corpus, **text) for model in (source, large, mixed)]
    losses = [json.loads((realize(one) / "metrics.json").read_text())["loss"] for one in measured]
    assert losses == pytest.approx([losses[0]] * 3, abs=0.01), "but for the tied head's last gain"
    assert losses[2] == pytest.approx(losses[1], abs=1e-6)


def test_the_recipe_is_told_apart_from_a_sorted_one_and_counts_its_pass(chain):
    anchor = chain.models[1]
    turned = anchor.start.model
    assert turned.key != Sorted(turned.model).key
    assert turned.flops == 512 * turned.spec.forward_flops(16)
    ordered = inherited(
        turned.model, [anchor.spec], turned.corpus, anchor.training, anchor.loss, "activations"
    ).models[1]
    assert ordered.start.model == Rotated(turned.model, turned.corpus, context=16, axes=False)
