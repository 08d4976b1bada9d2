"""The card of a scale's smallest trained model: what is on it follows from the tables."""

import re
import shlex

import pandas as pd
import pytest
from conftest import tidy

from cbd import cli
from cbd.commands import card
from cbd.experiments.scales import SCALES
from cbd.recipes.starts import STARTS
from cbd.report import results
from cbd.report.names import CBD, LARGER, RANDOM, SMALLER, SOURCE

SCALE = SCALES["smollm"]
SMALL, LARGE = SCALE.convergence_targets[0], SCALE.convergence_targets[-1]
BUDGETS = SCALE.budgets


def run(method: str, spec, budget: int, values: dict[str, tuple[float, float]]) -> list[dict]:
    """A curve of two points, and what was measured of its end: metric -> value and standard error."""
    about = {"experiment": "convergence", "method": method, "spec": spec.name, "parameters": spec.parameters}
    about |= {"seed": 0, "budget": budget, "recipe": f"{method}{spec.name}{budget}"}
    rows = [about | {"tokens": 0, "metric": "loss", "value": 9.0, "stderr": 0.1}]
    for metric, (value, error) in values.items():
        rows.append(about | {"tokens": budget, "metric": metric, "value": value, "stderr": error})
    return rows


def tables(grown: float = 4.0, mixed: float = 4.5) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = []
    for spec in (SMALL, LARGE):
        for budget in BUDGETS:
            tasks = {"piqa/acc": (0.60, 0.02), "arc_easy/acc": (0.27, 0.02)}
            other = {"loss on prose": (5.0, 0.1)}
            for method, loss in ((SMALLER, grown), (CBD, mixed), (LARGER, 6.0), (RANDOM, 1.0)):
                found = {"loss": (loss, 0.05)} | (other if method != RANDOM else {})
                rows += run(method, spec, budget, found | (tasks if method != RANDOM else {}))
    about = {"experiment": "chain", "method": SOURCE, "spec": "30x576", "seed": 0, "parameters": 134_515_008}
    source = [
        about | {"recipe": name, "metric": metric, "value": value}
        for name, metric, value in (
            ("a", "final_loss", 2.0), ("b", "piqa/acc", 0.68), ("b", "piqa/acc chance", 0.5),
            ("b", "arc_easy/acc", 0.5), ("b", "arc_easy/acc chance", 0.25),
        )
    ]  # fmt: skip
    return tidy(rows), tidy(source)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`written(...)`: the card of invented tables."""
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))

    def go(**numbers: float) -> str:
        for table, name in zip(tables(**numbers), ("convergence", "chain"), strict=True):
            results.write_table(table, SCALE.name, name)
        assert card.possible(SCALE)
        return card.write(SCALE).read_text()

    return go


def test_it_is_of_the_smallest_size_by_its_best_start_and_says_what_that_can_do(written):
    page = written()
    assert f"{SMALL.name}, {SMALL.parameters:,} parameters. It begins as *{SMALLER}*, the best of 3" in page
    assert f"after {BUDGETS[-1]:,} tokens" in page and "of one seed." in page
    rows = dict(re.findall(r"^\| ([^|]+) \| (.+) \|$", page, re.MULTILINE))
    assert rows["piqa/acc"] == "0.600 ± 0.020 |  | 0.680 | 0.500"
    assert rows["loss on its own text, nats per token"] == "4.000 ± 0.050 | 1.000 ± 0.050 | 2.000 | "
    assert "above guessing: piqa. Not so: arc_easy." in page, "0.27 is one error above 0.25"
    assert f"begins as *{CBD}*" in written(mixed=3.0)


@pytest.mark.parametrize(("numbers", "start"), [({}, "grown"), ({"mixed": 3.0}, "mixed")])
def test_its_commands_are_those_of_the_command_line(written, numbers, start):
    lines = re.search(r"```\n(.*)\n```", written(**numbers), re.DOTALL)[1].splitlines()
    chain, init, recover = (cli.parser().parse_args(shlex.split(line)[1:]) for line in lines)
    assert chain.anchors == ",".join(spec.name for spec in SCALE.anchor_specs)
    assert (init.layers, init.width, init.start) == (SMALL.layers, SMALL.width, start)
    assert recover.tokens == BUDGETS[-1] and recover.source == init.out
    assert start == "mixed" or STARTS[start].label == SMALLER


def test_a_scale_without_scores_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    assert not card.possible(SCALE)
    table, chain = tables()
    results.write_table(table[~table["metric"].str.contains("/")], SCALE.name, "convergence")
    results.write_table(chain, SCALE.name, "chain")
    assert not card.possible(SCALE)


def test_the_cards_of_the_committed_tables_are_what_they_give():
    for scale in SCALES.values():
        place = results.results_folder(scale.name) / "CARD.md"
        assert place.is_file() == card.possible(scale)
        assert not place.is_file() or place.read_text() == card.page(scale)
