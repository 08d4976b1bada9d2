"""What a user sees while steps are made: steps and words in a terminal, plain lines in a log."""

import io
import re

import pytest

from cbd.data import progress
from cbd.errors import CbdError
from cbd.realize.progress import Steps, named, spoken
from cbd.realize.run import realize_all
from cbd.recipes.data import Corpus
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Anchor, Loss, Trained, Training

SPEC = gpt2(2, 32, head_dim=16, vocab=300, positions=32)
TRAINING = Training(tokens=10_000, lr=1e-3, batch=2, context=16, evaluations=1, evaluation_tokens=128)
CORPUS = Corpus()
RUNS = [Trained(Random(SPEC, CORPUS, seed), CORPUS, TRAINING) for seed in range(50)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(stream: io.StringIO, seconds: float, todo=RUNS, before: int = 0) -> str:
    """What is said while each step takes so long."""
    clock = Clock()
    with Steps(todo, before, stream, clock) as steps:
        for recipe in todo:
            steps.begin(recipe)
            clock.now += seconds
            steps.end(recipe)
    return stream.getvalue()


# Steps -------------------------------------------------------------------------------------------------


def test_a_log_has_plain_lines_the_first_the_last_and_few_between():
    lines = made(io.StringIO(), seconds=2).splitlines()
    assert lines[0] == "[1/50] train 2x32" and lines[-2] == "[50/50] train 2x32"
    assert lines[-1] == "made 50 steps in 1 min 40 s"
    numbers = [int(re.match(r"\[(\d+)/50\]", line)[1]) for line in lines[:-1]]
    assert numbers == [1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 50], "one every ten seconds"


@pytest.mark.parametrize("seconds", [0.01, 2, 500])
def test_neither_log_nor_terminal_counts_flops_and_a_log_never_returns(seconds):
    log, terminal = made(io.StringIO(), seconds), made(Terminal(), seconds)
    assert "\r" not in log and "\r" in terminal
    for said in (log, terminal):
        assert "FLOP" not in said.upper() and str(RUNS[0].flops) not in said
    assert "1/50 steps" in terminal and "train 2x32" in terminal
    assert terminal.endswith(log.splitlines()[-1] + "\n"), "the same last line"


def test_when_the_rest_is_done_is_said_only_when_it_means_something():
    lines = made(io.StringIO(), seconds=15).splitlines()
    assert "left" not in lines[0], "15 seconds are too few"
    assert lines[1] == "[2/50] train 2x32; about 12 min left"
    assert lines[9] == "[10/50] train 2x32; about 10 min left"
    assert "left" not in lines[49] and "left" not in lines[50], "at the end nothing is left"

    big = gpt2(4, 192, head_dim=16, vocab=300, positions=32)
    long = Trained(Random(big, CORPUS), CORPUS, TRAINING)
    assert RUNS[0].flops < 0.02 * (RUNS[0].flops + long.flops)
    lines = made(io.StringIO(), 60, [RUNS[0].start, RUNS[0], long]).splitlines()
    assert [line.partition("; ")[2] for line in lines[:3]] == ["", "", ""], "a small share says nothing"


def test_the_summary_says_how_many_and_what_was_finished_before():
    assert made(io.StringIO(), 200, RUNS[:1], 40).endswith(
        "made 1 step in 3 min 20 s; 40 were finished before\n"
    )
    assert Steps([], 3, io.StringIO()).summary == "nothing to make; 3 were finished before"


def test_several_steps_at_work_are_all_named():
    steps = Steps(RUNS[:2], 0, Terminal(), Clock())
    teacher = Trained(Random(gpt2(4, 64, head_dim=16, vocab=300, positions=32), CORPUS), CORPUS, TRAINING)
    anchor = Anchor.inherited(teacher, SPEC, CORPUS, TRAINING, Loss("reverse_kl", 0.5))
    with steps:
        steps.begin(anchor), steps.begin(teacher)
    assert "distil 2x32, train 4x64" in steps.stream.getvalue()
    assert named(CORPUS) == "tokenize"


def test_an_error_is_not_called_a_success():
    stream = io.StringIO()
    with pytest.raises(CbdError), Steps(RUNS[:2], 0, stream) as steps:
        steps.begin(RUNS[0])
        raise CbdError("no")
    assert stream.getvalue() == ""


def test_times_have_two_units_at_most():
    times = {0: "0 s", 59.6: "1 min", 61: "1 min 1 s", 3600: "1 h", 7509: "2 h 5 min", 100_000: "1 d 3 h"}
    assert {seconds: spoken(seconds) for seconds in times} == times


def test_realising_returns_its_line_and_shows_it_once(tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CBD_STORE", str(tmp_path))
    recipe = Random(SPEC, tiny_corpus)
    line = realize_all([recipe])
    said = capsys.readouterr()
    assert re.fullmatch(r"made 2 steps in \d+ s", line) and said.out == ""
    assert said.err.splitlines() == ["[1/2] tokenize", "[2/2] draw 2x32", line]
    assert realize_all([recipe]) == "nothing to make; 2 were finished before"
    assert capsys.readouterr().err == ""


# Loops -------------------------------------------------------------------------------------------------


def loop(stream: io.StringIO) -> str:
    shown = progress.bar(range(40), "train 2x32", unit=" steps", file=stream, delay=0, mininterval=0)
    for i in shown:
        shown.set_postfix_str(f"loss {i}", refresh=False)
    return stream.getvalue()


def test_a_loop_has_a_bar_in_a_terminal_and_lines_now_and_then_in_a_log(monkeypatch):
    said = loop(Terminal())
    assert "\r" in said and "train 2x32: " in said and "/40 [" in said and "loss 38" in said
    assert loop(io.StringIO()) == "", "what takes less than ten seconds is not worth a line"
    monkeypatch.setattr(progress, "EVERY", 1e-9)
    said = loop(io.StringIO())
    assert "\r" not in said and "\x1b" not in said
    assert re.search(r"^train 2x32: 39 of 40 steps, 00:00 left, loss 38$", said, re.M)
    assert len(said.splitlines()) == 40


def test_of_the_processes_of_a_launch_only_the_first_shows_anything(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 1e-9)
    monkeypatch.setenv("RANK", "1")
    assert loop(Terminal()) == loop(io.StringIO()) == made(io.StringIO(), 30) == made(Terminal(), 30) == ""
    monkeypatch.setenv("RANK", "0")
    assert loop(Terminal()) and made(io.StringIO(), 30)
