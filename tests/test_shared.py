"""A teacher's states that several runs share: the same results to the bit, within a limit, and gone after."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import dying_at
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from cbd.data.documents import folder_corpus
from cbd.errors import CbdError
from cbd.models.forward import hidden_states
from cbd.realize import shared, store
from cbd.realize.run import realize, realize_all
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Anchor, Loss, Training
from cbd.training import lessons
from cbd.training.lessons import Taught
from cbd.training.states import BLOCK, States

VOCAB, CONTEXT, STEPS = 300, 16, 40
TRAINING = Training(
    STEPS * 4 * CONTEXT, 3e-3, 4, CONTEXT, seed=3, evaluations=2, evaluation_tokens=4 * CONTEXT
)
LOSS = Loss("reverse_kl", cross_entropy=0.3)
WHOLE = STEPS // BLOCK * BLOCK  # steps in blocks that a run of so many fills


@pytest.fixture(scope="module")
def anchor(text_folder) -> Anchor:
    text = folder_corpus(text_folder, vocab_size=VOCAB, held_out=0.1)
    big, small = (gpt2(n, 32, head_dim=16, vocab=VOCAB, positions=32) for n in (2, 1))
    return Anchor(Random(big, text), Random(small, text, 1), text, TRAINING, LOSS)


@pytest.fixture(scope="module")
def several(anchor) -> list[Anchor]:
    """Another rate, another loss, another student, and a run that begins later in the stream."""
    later = replace(TRAINING, tokens=TRAINING.tokens // 2, skip=20)
    return [
        anchor,
        replace(anchor, training=replace(TRAINING, lr=1e-3)),
        replace(anchor, loss=Loss("forward_kl", cross_entropy=0.0)),
        replace(anchor, start=replace(anchor.start, seed=2)),
        replace(anchor, training=later),
    ]


@pytest.fixture(scope="module")
def live(several, tmp_path_factory) -> Path:
    """A store in which each was made alone: its teacher is asked at every step."""
    place = tmp_path_factory.mktemp("live")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBD_STORE", str(place))
        for one in several:
            realize(one)
            assert "states_read" not in store.record(one)
    return place


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """An entry for each time that a teacher computes states for a batch of its feed."""
    calls, compute = [], Taught._compute
    monkeypatch.setattr(Taught, "_compute", lambda *a: calls.append(1) or compute(*a))
    return calls


@pytest.fixture
def fresh(monkeypatch, live, tmp_path) -> Path:
    """A store with the inputs alone."""
    for kind in ("Corpus", "Random"):
        shutil.copytree(live / kind, tmp_path / kind)
    monkeypatch.setenv("CBD_STORE", str(tmp_path))
    return tmp_path


def same(ours: Path, theirs: Path, recipe: Anchor) -> bool:
    """Whether weights and curves of a recipe are alike to the bit in two stores."""
    places = [place / "Anchor" / recipe.key for place in (ours, theirs)]
    weights = [load_file(place / "model.safetensors") for place in places]
    curves = [(place / "steps.json").read_text() for place in places]
    return curves[0] == curves[1] and all(weights[0][name].equal(weights[1][name]) for name in weights[1])


def test_runs_that_share_states_are_the_very_runs_that_compute_them(several, live, fresh, asked):
    realize_all(several)
    assert all(same(fresh, live, one) for one in several)
    read = [store.record(one)["states_read"] for one in several]
    assert read == [0, WHOLE, WHOLE, WHOLE, WHOLE - 20]
    assert len(asked) == sum(one.training.steps for one in several) - sum(read)
    assert list((fresh / "states").iterdir()) == []


def test_side_by_side_they_are_the_same_too(several, live, fresh):
    realize_all(several, jobs=2, threads=1)
    assert all(same(fresh, live, one) for one in several)
    assert sum(store.record(one)["states_read"] for one in several) > 0
    assert list((fresh / "states").iterdir()) == []


@pytest.mark.parametrize("call", [10, STEPS + 20])
def test_a_killed_run_goes_on_with_the_same_numbers(several, live, fresh, call):
    """In the run that fills the states, and in one that reads them."""
    with dying_at(call, Taught):
        realize_all(several[:2])
    assert list((fresh / "states").iterdir()) == [], "an interrupt leaves nothing behind"
    realize_all(several[:2])
    assert all(same(fresh, live, one) for one in several[:2])


def test_a_run_alone_and_one_beyond_the_limit_keep_nothing(anchor, several, live, fresh, monkeypatch, asked):
    realize_all([anchor])
    monkeypatch.setenv("CBD_STATES_GB", "1e-6")
    realize_all(several[1:3])
    assert asked == [] and all(same(fresh, live, one) for one in several[:3])
    assert not any("states_read" in store.record(one) for one in several[:3])
    monkeypatch.setenv("CBD_STATES_GB", "plenty")
    with pytest.raises(CbdError, match="CBD_STATES_GB is 'plenty'"):
        realize_all(several)


def test_what_the_states_take_is_what_the_limit_counts(several, fresh, monkeypatch):
    """One byte less than they need, and nothing is kept."""
    union = set().union(*(range(r.training.skip, r.training.skip + r.training.steps) for r in several))
    needed = len(union) * 4 * CONTEXT * several[0].teacher.spec.width * 4
    for limit, kept in ((needed, 1), (needed - 1, 0)):
        monkeypatch.setenv("CBD_STATES_GB", repr(limit / 1e9))
        assert len(shared.Shared(several).waiting) == kept
    whole = WHOLE * 4 * CONTEXT * several[0].teacher.spec.width * 4
    sizes = []
    rmtree = shutil.rmtree

    def weighed(folder, **options):
        if Path(folder).parent.name == "states" and Path(folder).is_dir():
            sizes.append(sum(path.stat().st_size for path in Path(folder).iterdir()))
        rmtree(folder, **options)

    monkeypatch.setenv("CBD_STATES_GB", "1")
    monkeypatch.setattr(shared.shutil, "rmtree", weighed)
    realize_all(several)
    assert sizes == [pytest.approx(whole, rel=0.01)]  # beside the headers of the files


def test_one_command_at_a_time_keeps_states_and_throws_away_what_a_killed_one_left(
    several, live, fresh, asked
):
    left = fresh / "states" / "left" / "000000.npy"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with shared.Shared(several[:2]) as first:
        assert not left.parent.exists() and all(folder.is_dir() for folder in first.waiting)
        with shared.Shared([replace(one, teacher=replace(one.teacher, seed=5)) for one in several]) as second:
            assert second.waiting == {}
        assert all(folder.is_dir() for folder in first.waiting)
    realize_all(several[:2])
    assert store.record(several[1])["states_read"] == WHOLE, "the lock is free again"


def test_only_the_same_teacher_and_stream_share(anchor, several, fresh):
    others = [
        replace(anchor, teacher=replace(anchor.teacher, seed=5)),
        replace(anchor, training=replace(TRAINING, seed=4)),
        replace(anchor, training=replace(TRAINING, batch=8)),
        replace(anchor, training=replace(TRAINING, context=8)),
        replace(anchor, training=replace(TRAINING, precision="bf16")),
        replace(anchor, loss=Loss()),  # asks no teacher
    ]
    for other in others:
        assert not shared.Shared([anchor, other]).waiting
        with shared.Shared(several):
            assert shared.place(other) is None
    with shared.Shared(several):
        assert all(shared.place(one).is_dir() for one in several)
    apart = replace(anchor, training=replace(TRAINING, skip=STEPS))
    assert not shared.Shared([anchor, apart]).waiting, "no window is read by both"


def test_a_loss_that_looks_inside_of_the_teacher_reads_no_states(anchor, fresh):
    inner = Anchor.boomerang(anchor.teacher, 1, anchor.corpus, TRAINING, replace(LOSS, alignment=1.0))
    assert not shared.Shared([inner, replace(inner, training=replace(TRAINING, lr=1e-3))]).waiting
    plain = [anchor, replace(anchor, training=replace(TRAINING, lr=1e-3))]
    with shared.Shared(plain):
        assert shared.place(anchor) is not None and shared.place(inner) is None


def test_kept_states_are_the_teachers_own(anchor, live, monkeypatch, tmp_path):
    monkeypatch.setenv("CBD_STORE", str(live))
    lesson = lessons.DistilledLesson(
        store.folder(anchor.corpus), store.folder(anchor.teacher), LOSS, states=tmp_path
    )
    student = lessons.load(store.folder(anchor.start))
    objective, feed = lesson.prepare(student, store.folder(anchor.start), TRAINING, student.device)
    for _ in range(2):  # computed, then read
        for step in range(BLOCK):
            parts = {k: lessons.torch.from_numpy(v) for k, v in feed.parts(TRAINING, step).items()}
            with lessons.torch.no_grad():
                own, _ = hidden_states(objective._teacher[0], parts["input_ids"])
            assert own.equal(parts["taught"])
        feed = replace(feed, states=States(tmp_path))
    assert feed.states.read == 0 and len(list(tmp_path.iterdir())) == 1


@given(runs=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=4))
def test_whatever_ran_before_a_step_has_its_own_states(tmp_path_factory, runs):
    """Runs of any parts of a stream, one after another; each step is as if it had been computed."""
    folder, whole = tmp_path_factory.mktemp("states"), set()
    for first, steps in runs:
        states = States(folder)
        for step in range(first, first + steps):
            found = states.at(step, lambda step=step: np.full((2, 3), step, np.float32))
            assert (found == step).all()
        own = set(range(first, first + steps))
        assert states.read == len(own & whole) and states.computed == len(own - whole)
        for block in range(0, 120, BLOCK):
            whole |= set(range(block, block + BLOCK)) if own >= set(range(block, block + BLOCK)) else set()


def test_states_whose_folder_is_gone_are_computed(tmp_path):
    states = States(tmp_path / "gone")
    assert [states.at(step, lambda: np.zeros(1)).shape for step in range(2 * BLOCK)] == [(1,)] * 2 * BLOCK
    assert states.computed == 2 * BLOCK and not (tmp_path / "gone").exists()
