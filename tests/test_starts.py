"""The table of starts: every way to initialise a model between two anchors, once."""

import subprocess
import sys

import pytest
import torch

from cbd.experiments import starts as models
from cbd.experiments.run import design_of
from cbd.experiments.scales import SCALES
from cbd.models.checkpoints import Checkpoint
from cbd.realize import realize
from cbd.recipes.models import Interpolated, Learngene, Random, Transferred
from cbd.recipes.operators import OPERATORS
from cbd.recipes.specs import gpt2
from cbd.recipes.starts import RIVALS, STARTS
from cbd.report.names import CHOSEN, LOOKS, PRUNED

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
    assert methods == {start.label for start in STARTS.values()} | {PRUNED, CHOSEN}


def test_the_table_needs_neither_torch_nor_pandas():
    code = "import sys, cbd.recipes.starts; sys.exit(bool({'torch', 'pandas', 'seaborn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
