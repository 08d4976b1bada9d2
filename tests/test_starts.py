"""The table of starts: every way to initialise a model between two anchors, once."""

import subprocess
import sys

import pytest
import torch
from conftest import random_model
from transformers import AutoModelForCausalLM

from cbd.errors import CbdError
from cbd.experiments import starts as models
from cbd.experiments.run import design_of
from cbd.experiments.scales import SCALES
from cbd.models.checkpoints import Checkpoint
from cbd.models.factors import Factorised
from cbd.models.interpolation import initialize, transfer
from cbd.realize import realize
from cbd.recipes.models import Interpolated, Learngene, Random, Sorted, Transferred
from cbd.recipes.operators import OPERATORS, STITCH, Trans
from cbd.recipes.specs import gpt2, llama
from cbd.recipes.starts import RIVALS, STARTS
from cbd.report.names import BY_SCORE, CHOSEN, CORRECTED, LOOKS, PRUNED

DIAL = SCALES["smoke"]
SPEC = DIAL.ladder[0]


@pytest.fixture(scope="module")
def pair():
    return models.chain(DIAL, 0).pair_around(SPEC)


def test_every_operator_is_a_start_and_every_start_says_its_name():
    assert {key for key, start in STARTS.items() if start.operator} == set(OPERATORS)
    assert all(key == start.key for key, start in STARTS.items())
    assert len({start.label for start in STARTS.values()}) == len(STARTS)
    assert all(STARTS[name].operator == operator for name, operator in OPERATORS.items())


def test_no_two_starts_look_alike_and_figures_know_them_all():
    known = STARTS | RIVALS
    for look in ("color", "marker", "label"):
        assert len({getattr(start, look) for start in known.values()}) == len(known)
    for start in known.values():
        assert LOOKS[start.label] == (start.color, start.marker, start.line)


@pytest.mark.parametrize("key", RIVALS)
def test_a_rival_has_the_targets_shape_and_is_no_start_of_ours(key, pair):
    assert RIVALS[key].recipe(*pair, SPEC, DIAL.corpus, seed=3).spec == SPEC
    assert key not in STARTS and key == RIVALS[key].key


@pytest.mark.parametrize("key", RIVALS)
def test_a_rival_is_made_from_two_anchors_and_is_a_plain_checkpoint(key, tiny_corpus):
    shape = lambda layers, width: gpt2(layers, width, head_dim=16, vocab=300, positions=32)  # noqa: E731
    small, large, target = (
        Random(shape(2, 32), tiny_corpus, 1),
        Random(shape(5, 64), tiny_corpus),
        shape(3, 48),
    )
    folder = realize(RIVALS[key].recipe(small, Sorted(large), target, tiny_corpus, seed=3))
    assert Checkpoint(folder).spec == target
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model(torch.arange(16)[None]).logits.isfinite().all()


def test_a_stitched_model_is_a_small_ones_blocks_below_a_large_ones(tiny_corpus):
    """The small model's share of five blocks is 0.6: three. The table is tied, so that both read it."""
    shape = lambda layers, width: gpt2(layers, width, head_dim=16, vocab=300, positions=32)  # noqa: E731
    small, large, target = (
        Random(shape(4, 32), tiny_corpus, 1),
        Random(shape(6, 64), tiny_corpus),
        shape(5, 48),
    )
    recipes = (
        Interpolated(small, large, target, 0.6, STITCH),
        Transferred(small, target),
        Transferred(large, target),
    )
    made, below, above = (Checkpoint(realize(recipe)) for recipe in recipes)
    for role, layer, name in made.family.tensors(target):
        last = 4 if role.feeds_head else 0
        share = float((last if layer is None else layer) < 3)
        share = 0.6 if name == "transformer.wte.weight" else share
        mixed = share * below.tensor(name) + (1 - share) * above.tensor(name)
        assert torch.allclose(made.tensor(name), mixed, atol=1e-7), name


@pytest.mark.parametrize(("alpha", "whose"), [(0.0, "large"), (1.0, "small")])
@pytest.mark.parametrize("tied", [True, False])
def test_a_stitch_without_one_of_the_two_is_the_other(alpha, whose, tied, tmp_path):
    """Also where the head is a table of its own."""
    rest = {"vocab": 60, "positions": 32, "tied": tied}
    target = llama(3, 48, 3, 3, 64, **rest)
    for name, spec in (("small", llama(2, 32, 2, 2, 64, **rest)), ("large", llama(5, 64, 4, 4, 64, **rest))):
        random_model(spec, seed=len(name)).save_pretrained(tmp_path / name)
    (tmp_path / "stitched").mkdir()
    (tmp_path / "alone").mkdir()
    initialize(tmp_path / "small", tmp_path / "large", target, tmp_path / "stitched", alpha, STITCH)
    transfer(tmp_path / whose, target, tmp_path / "alone", Trans())
    made, alone = (Checkpoint(tmp_path / name) for name in ("stitched", "alone"))
    assert all(torch.equal(made.tensor(n), alone.tensor(n)) for _, _, n in made.family.tensors(target))


@pytest.mark.parametrize("key", ["gpt2", "llama"])
def test_all_factors_at_the_own_depth_are_the_model(key, tmp_path):
    spec = {"gpt2": gpt2(3, 32, head_dim=16, vocab=60, positions=32)}.get(
        key, llama(3, 32, 2, 1, 48, vocab=60, positions=32)
    )
    random_model(spec, seed=1).save_pretrained(tmp_path)
    whole = Checkpoint(tmp_path)
    same, twice = Factorised(whole, 3, 1.0), Factorised(whole, 5, 1.0)
    for role, layer, name in whole.family.tensors(spec):
        torch.testing.assert_close(same.tensor(name), whole.tensor(name), atol=1e-5, rtol=1e-5)
        if layer is not None:  # every second block is the model's, the others lie between
            own, after = (role.name.format(layer=i) for i in (layer, min(layer + 1, 2)))
            torch.testing.assert_close(
                twice.tensor(role.name.format(layer=2 * layer)), whole.tensor(own), atol=1e-5, rtol=1e-5
            )
            if layer < 2:
                mean = (whole.tensor(own) + whole.tensor(after)) / 2
                found = twice.tensor(role.name.format(layer=2 * layer + 1))
                torch.testing.assert_close(found, mean, atol=1e-5, rtol=1e-5)


def test_fewer_factors_span_one_space_for_all_blocks_and_lose_no_more_than_they_must(tmp_path):
    spec = llama(4, 32, 2, 1, 48, vocab=60, positions=32)
    random_model(spec, seed=1).save_pretrained(tmp_path)
    whole = Checkpoint(tmp_path)
    some = Factorised(whole, 4, 0.25)
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(4)]
    old, new = (torch.stack([model.tensor(name) for name in names]) for model in (whole, some))
    assert old.shape == (4, 48, 32)
    for dim, rank in ((1, 12), (2, 8)):  # a quarter of 48 and of 32, shared by all blocks
        assert torch.linalg.matrix_rank(new.movedim(dim, 0).flatten(1), rtol=1e-4) == rank
    lost = (old - new).square().sum()
    tails = [
        torch.linalg.svdvals(old.movedim(dim, 0).flatten(1))[rank:].square().sum()
        for dim, rank in ((1, 12), (2, 8))
    ]
    assert max(tails) <= lost <= sum(tails) * (1 + 1e-5), "the bounds of the higher-order SVD"


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share, tmp_path):
    random_model(gpt2(2, 32, head_dim=16, vocab=60, positions=32)).save_pretrained(tmp_path)
    with pytest.raises(CbdError, match=f"a share of {share:g}"):
        Factorised(Checkpoint(tmp_path), 2, share)


def test_a_learngene_is_the_last_blocks_of_the_model_above_random_ones(tiny_corpus):
    shape = lambda layers, width: gpt2(layers, width, head_dim=16, vocab=300, positions=32)  # noqa: E731
    large, target = Random(shape(5, 48), tiny_corpus, 1), shape(3, 32)
    start = Learngene(large, target, tiny_corpus, 7)
    made, drawn, cut = (
        Checkpoint(realize(recipe))
        for recipe in (start, Random(target, tiny_corpus, 7), Transferred(large, target))
    )
    inherited = 0
    for _, layer, name in made.family.tensors(target):
        above = layer is not None and layer >= 1
        assert torch.equal(made.tensor(name), (cut if above else drawn).tensor(name)), name
        inherited += above
    assert inherited > 5


@pytest.mark.parametrize("key", STARTS)
def test_a_start_has_the_targets_shape_and_mixes_at_its_alpha(key, pair):
    small, large = pair
    found = STARTS[key].recipe(small, large, SPEC, DIAL.corpus, seed=3, alpha=0.25)
    assert found.spec == SPEC
    if key in OPERATORS:
        assert found == Interpolated(small, large, SPEC, 0.25, OPERATORS[key])


def test_the_starts_that_mix_nothing(pair):
    small, large = pair
    made = {key: STARTS[key].recipe(small, large, SPEC, DIAL.corpus, 3) for key in STARTS}
    assert made["grown"] == Transferred(small, SPEC) and made["cut"] == Transferred(large, SPEC)
    assert made["random"] == Random(SPEC, DIAL.corpus, 3)


def test_step_zero_measures_every_start():
    methods = {m.method for m in design_of("initialise", DIAL, 0).measurements}
    more = {PRUNED, CHOSEN, CORRECTED, *BY_SCORE.values()}
    assert methods == {start.label for start in STARTS.values()} | more


def test_the_table_needs_neither_torch_nor_pandas():
    code = "import sys, cbd.recipes.starts; sys.exit(bool({'torch', 'pandas', 'seaborn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
