"""The table of starts: every way to initialise a model between two anchors, once."""

import subprocess
import sys

import pytest

from cbd.experiments import starts as models
from cbd.experiments.run import design_of
from cbd.experiments.scales import SCALES
from cbd.recipes.models import Interpolated, Random, Transferred
from cbd.recipes.operators import OPERATORS
from cbd.recipes.starts import STARTS
from cbd.report.names import LOOKS

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
    for look in ("color", "marker"):
        assert len({getattr(start, look) for start in STARTS.values()}) == len(STARTS)
    for start in STARTS.values():
        assert LOOKS[start.label] == (start.color, start.marker, start.line)


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
    assert methods == {start.label for start in STARTS.values()}


def test_the_table_needs_neither_torch_nor_pandas():
    code = "import sys, cbd.recipes.starts; sys.exit(bool({'torch', 'pandas', 'seaborn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
