"""What realizing promises: only what is missing is made, the same bits by one or by many, whole errors."""

import importlib
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from cbd import recipes
from cbd.errors import CbdError
from cbd.models.sources import hub, local
from cbd.realize import store
from cbd.realize.builders import BUILDERS
from cbd.realize.progress import VERBS, Steps
from cbd.realize.run import pending, realize, realize_all
from cbd.realize.workers import make
from cbd.recipes.base import Recipe, walk
from cbd.recipes.costs import flops, weights
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Chain, Interpolated, Pruned, Random, Source, Transferred
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Anchor, Fitted, Loss, Search, Trained, Training

VOCAB, CONTEXT = 300, 16
BIG, MIDDLE, SMALL = (
    gpt2(n, d, head_dim=16, vocab=VOCAB, positions=32) for n, d in ((3, 48), (2, 48), (1, 32))
)
TRAINING = Training(
    tokens=6 * 2 * CONTEXT, lr=3e-3, batch=2, context=CONTEXT, evaluations=1, evaluation_tokens=8 * CONTEXT
)
LOSS = Loss("reverse_kl", cross_entropy=0.5)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def pretend(recipe, measured=None) -> None:
    """Finish a recipe with an empty folder."""
    store.make(recipe, lambda out, state: measured or {})


def small_tree(corpus: Corpus) -> list:
    """A chain of two anchors, all kinds of starts between them, and what is measured of them."""
    llm = Trained(Random(BIG, corpus), corpus, TRAINING)
    anchor = Anchor.inherited(llm, SMALL, corpus, TRAINING, LOSS)
    small, large = Chain((llm, anchor)).pair_around(MIDDLE)
    starts = [
        Interpolated(small, large, MIDDLE),
        Transferred(small, MIDDLE),
        Transferred(large, MIDDLE),
        Random(MIDDLE, corpus, 1),
    ]
    rate = Search(starts[0], corpus, replace(TRAINING, warmup_tokens=CONTEXT * TRAINING.batch), (7,))
    tuned = [Trained(start, corpus, replace(TRAINING, lr=rate)) for start in starts[:2]]
    return [Evaluated(model, corpus, 8 * CONTEXT, CONTEXT) for model in [llm, anchor, *starts]] + tuned


def every_result(root: Path) -> dict[str, bytes]:
    """All bytes of a store's finished folders, but for the records' times."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != store.RECORD)
    names = {path.relative_to(root).as_posix(): path for path in files}
    return {
        name: path.read_bytes() for name, path in names.items() if name.split("/")[0] not in ("locks", "work")
    }


# Builders ----------------------------------------------------------------------------------------------


def test_every_kind_of_recipe_has_a_builder():
    for info in pkgutil.iter_modules(recipes.__path__, "cbd.recipes."):
        importlib.import_module(info.name)
    kinds = {kind for kind in Recipe.__subclasses__() if kind.__module__.startswith("cbd.")}
    assert len(kinds) > 15 and set(BUILDERS) == set(VERBS) == kinds


# What is missing ---------------------------------------------------------------------------------------


def test_pending_is_the_whole_tree_inputs_first_each_once():
    wanted = small_tree(Corpus())
    todo = pending([*wanted, *wanted])
    assert len({recipe.key for recipe in todo}) == len(todo)
    places = {recipe.key: i for i, recipe in enumerate(todo)}
    for recipe in todo:
        assert all(places[source.key] < places[recipe.key] for source in recipe.inputs)
    assert flops(wanted) == sum(recipe.flops for recipe in todo)


def test_pending_leaves_out_what_only_finished_recipes_needed():
    corpus = Corpus()
    llm = Trained(Random(BIG, corpus), corpus, TRAINING)
    anchor = Anchor.inherited(llm, SMALL, corpus, TRAINING, LOSS)
    measured = Evaluated(anchor, corpus)
    pretend(anchor)
    # the anchor is there, so neither its teacher nor its start is needed; the corpus still is, to measure it
    assert pending([measured]) == [corpus, measured]
    pretend(corpus)
    assert pending([measured]) == [measured]
    pretend(measured)
    assert pending([measured]) == []
    # another user of the teacher brings its whole tree back
    assert pending([measured, Evaluated(llm, corpus)]) == [llm.start, llm, Evaluated(llm, corpus)]


def test_what_is_finished_is_neither_made_again_nor_its_inputs(tiny_corpus):
    recipe = Evaluated(Random(SMALL, tiny_corpus), tiny_corpus, 8 * CONTEXT, CONTEXT)
    folder = realize(recipe)
    loss = json.loads((folder / "metrics.json").read_text())["loss"]
    assert loss == store.record(recipe)["metrics"]["loss"]
    made = store.record(recipe)["finished"], folder.stat().st_mtime_ns
    shutil.rmtree(store.folder(recipe.model))
    assert realize(recipe) == folder
    realize_all([recipe])
    assert not store.folder(recipe.model).exists()
    assert made == (store.record(recipe)["finished"], folder.stat().st_mtime_ns)


def test_a_loss_in_bf16_is_near_fp32s_and_another_recipe(tiny_corpus):
    asked = (Random(SMALL, tiny_corpus), tiny_corpus, 8 * CONTEXT, CONTEXT)
    exact, near = Evaluated(*asked), Evaluated(*asked, precision="bf16")
    exact, near = (json.loads((realize(r) / "metrics.json").read_text()) for r in (exact, near))
    assert near["loss"] != exact["loss"], "the products are in bf16"
    assert near["loss"] == pytest.approx(exact["loss"], abs=5e-3)
    assert near["tokens"] == exact["tokens"]
    with pytest.raises(CbdError, match="precision is 'fp16'; choose one of fp32, bf16"):
        replace(Evaluated(*asked), precision="fp16")


# Sources -----------------------------------------------------------------------------------------------


def test_a_local_source_is_that_checkpoint(save_gpt2):
    folder = save_gpt2()
    source = local(folder)
    made = realize(source)
    assert (made / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert sorted(path.name for path in made.iterdir() if path.name != store.RECORD) == sorted(
        path.name for path in folder.iterdir()
    )


def test_a_folder_is_the_same_source_wherever_it_lies_and_another_when_it_changes(save_gpt2, tmp_path):
    folder = save_gpt2()
    here = local(folder)
    there = local(shutil.copytree(folder, tmp_path / "elsewhere" / folder.name))
    assert here.key == there.key
    changed = save_gpt2(folder=tmp_path / "other" / folder.name, seed=1)
    assert local(changed).key != here.key


def test_a_local_source_that_changed_since_its_recipe_is_refused(save_gpt2, tmp_path):
    source = local(save_gpt2(folder=tmp_path / "model"))
    save_gpt2(folder=tmp_path / "model", seed=1)
    with pytest.raises(
        CbdError, match=r"model has changed since its recipe was written: make the recipe again"
    ):
        realize(source)
    assert not store.finished(source)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_folder_that_is_no_checkpoint_is_refused(save_gpt2, tmp_path, missing):
    folder = save_gpt2(folder=tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(CbdError, match=missing):
        local(folder)


def test_the_hub_offline_is_one_error_with_its_remedy(tmp_path, monkeypatch):
    # conftest sets HF_HUB_OFFLINE=1
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CbdError) as refused:
        hub("some-owner/a-model-that-nobody-has")
    with pytest.raises(CbdError) as failed:
        realize(Source("some-owner/a-model-that-nobody-has", SMALL, revision="main"))
    for error in (refused, failed):
        assert "some-owner/a-model-that-nobody-has " in str(error.value)
        assert str(error.value).endswith("folder"), "the remedy is the last word"
        assert "\n" not in str(error.value)


# Several processes -------------------------------------------------------------------------------------


def test_two_workers_make_the_same_bits_as_one_process_and_hand_on_an_error(
    tiny_corpus, root, tmp_path, monkeypatch
):
    wanted = small_tree(tiny_corpus)
    broken = Evaluated(
        wanted[-1], tiny_corpus, 4, CONTEXT
    )  # the cheapest, and after the longest: nearly last
    with pytest.raises(CbdError, match=r"^4 tokens do not fill one window of 16; evaluate on more tokens$"):
        realize_all([*wanted, broken], jobs=2, threads=1)
    assert pending([broken]) == [broken] and len(pending(wanted)) < 5
    realize_all(wanted, jobs=1, threads=1)
    ours = every_result(root)
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "alone"))
    realize_all(wanted, jobs=1, threads=1)
    theirs = every_result(tmp_path / "alone")
    assert len(ours) > 30 and set(ours) == set(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_lean_run_keeps_what_was_asked_for_and_the_records_of_the_rest(tiny_corpus, jobs):
    """A grid of untrained models is as large as its grid; their losses are a few bytes each."""
    shape = lambda layers: gpt2(layers, 32, head_dim=16, vocab=300, positions=32)  # noqa: E731
    small, large = Random(shape(1), tiny_corpus), Random(shape(3), tiny_corpus, 1)
    grid = [Interpolated(small, large, shape(2), alpha) for alpha in (0.0, 0.5, 1.0)]
    measured = [Evaluated(model, tiny_corpus, 64, 16) for model in grid]
    before = Random(shape(2), tiny_corpus, 7)
    realize(before)
    asked = [*measured, grid[1], Evaluated(before, tiny_corpus, 64, 16)]
    realize_all(asked, jobs=jobs, lean=True)
    assert [store.finished(model) for model in grid] == [False, True, False], "one was asked for"
    assert not store.finished(small) and store.finished(tiny_corpus), "it is not light"
    assert store.finished(before), "it was there before"
    for recipe in (*grid, small, large):
        assert store.recorded(recipe) and store.record(recipe)["key"] == recipe.key
    assert pending(asked) == [] and realize_all(asked, lean=True).startswith("nothing")
    losses = [store.record(one)["metrics"]["loss"] for one in measured]
    again = Evaluated(grid[0], tiny_corpus, 64, 16, "test")
    assert {small, large, grid[0]} <= set(pending([again]))
    realize_all([again], lean=True)
    shutil.rmtree(store.folder(measured[0]))
    realize_all(measured, lean=True)
    assert [store.record(one)["metrics"]["loss"] for one in measured] == losses


def test_a_plan_counts_the_weights_that_a_lean_run_leaves_on_the_disk(tiny_corpus, root):
    """By the files themselves: what is light, what only stands on the way, and what is tried is gone."""
    shape = lambda layers: gpt2(layers, 32, head_dim=16, vocab=300, positions=32)  # noqa: E731
    small, large = Random(shape(1), tiny_corpus), Random(shape(4), tiny_corpus, 1)
    pruned = Pruned(large, 3, tiny_corpus, sample=64, context=16)
    fitted = Fitted(small, large, shape(2), tiny_corpus, TRAINING)
    trained = Trained(pruned, tiny_corpus, TRAINING)
    asked = [Evaluated(model, tiny_corpus, 64, 16) for model in (pruned, fitted, trained)]
    realize_all(asked, lean=True)
    files = sum(file.stat().st_size for file in root.glob("*/*/*.safetensors"))
    counted = weights(walk(asked).values())
    assert counted == 4 * shape(3).parameters and 0 <= files - counted < 0.1 * counted
    assert not store.finished(pruned) and store.recorded(pruned), "made again if another measurement asks"
    again = Evaluated(pruned, tiny_corpus, 64, 16, "test")
    realize_all([again], lean=True)
    assert store.finished(again) and not store.finished(pruned)


def test_a_full_disk_is_told_before_the_work(tiny_corpus, capsys, monkeypatch):
    recipe = Trained(Random(SMALL, tiny_corpus), tiny_corpus, TRAINING)
    monkeypatch.setattr(store, "free", lambda: 0)
    realize_all([recipe])
    first, *_ = capsys.readouterr().err.strip().splitlines()
    assert f"{store.root()} has room for 0.0" in first and "CBD_STORE" in first


def test_room_is_that_of_the_disk_of_a_store_that_is_still_to_be_made(root):
    assert not root.exists()
    assert store.free() == pytest.approx(shutil.disk_usage(root.parent).free, rel=0.1)


def test_what_waits_for_a_light_recipe_is_made_before_the_next_of_them(tiny_corpus, monkeypatch):
    """Else all of a grid would be on the disk before the first of it is measured."""
    shape = lambda layers: gpt2(layers, 32, head_dim=16, vocab=300, positions=32)  # noqa: E731
    small, large = Random(shape(1), tiny_corpus), Random(shape(3), tiny_corpus, 1)
    grid = [Interpolated(small, large, shape(2), alpha / 8) for alpha in range(9)]
    there, most = set(), []
    shed = store.shed
    monkeypatch.setattr(store, "shed", lambda recipe: (there.discard(recipe), shed(recipe)))
    end = Steps.end

    def counted(self, recipe):
        end(self, recipe)
        there.update([recipe] if isinstance(recipe, Interpolated) else [])
        most.append(len(there))

    monkeypatch.setattr(Steps, "end", counted)
    realize_all([Evaluated(model, tiny_corpus, 64, 16) for model in grid], jobs=2, lean=True)
    assert max(most) <= 4 and not there, "two processes, each with one to measure and one at most to come"


def test_an_input_that_another_command_has_shed_meanwhile_is_made_again(tiny_corpus):
    shape = lambda layers: gpt2(layers, 32, head_dim=16, vocab=300, positions=32)  # noqa: E731
    start = Transferred(Random(shape(3), tiny_corpus), shape(2))
    todo = pending([Evaluated(start, tiny_corpus, 64, 16)])
    for recipe in todo[:-1]:
        make(recipe)
    store.shed(start)
    store.shed(start.model)
    store.shed(start)  # twice is once
    first = store.record(start)
    make(todo[-1])
    assert store.finished(todo[-1]) and store.finished(start)
    assert store.record(start) == first, "as when it was made first"


def test_workers_serve_the_store_that_is_named_now(tiny_corpus, tmp_path, monkeypatch):
    """The server that forks them lives as long as the process, and was started when another was named."""
    wanted = [Random(SMALL, tiny_corpus, 1), Random(SMALL, tiny_corpus, 2)]
    for name in ("one", "two"):
        monkeypatch.setenv("CBD_STORE", str(tmp_path / name))
        realize_all(wanted, jobs=2, threads=1)
        for recipe in wanted:
            folder = tmp_path / name / "Random" / recipe.key
            assert (folder / "model.safetensors").is_file() and store.folder(recipe) == folder


# A run that would take minutes, at a scale cut down to this file's sizes.
LONG_RUN = """
import sys
from dataclasses import replace
from cbd import cli
from cbd.experiments import scales
from cbd.data.documents import folder_corpus
from cbd.recipes.specs import gpt2

if __name__ == "__main__":
    shape = lambda n, d: gpt2(n, d, head_dim=16, vocab=300, positions=32)
    smoke = scales.SCALES["smoke"]
    short = {"batch": 2, "context": 16, "evaluations": 1, "evaluation_tokens": 128}
    tokens = int(sys.argv[2]) * 32
    scales.SCALES["smoke"] = replace(
        smoke, source=shape(3, 48), anchors=(shape(2, 48), shape(1, 32)), seeds=1, sample=128, jobs=2,
        source_training=replace(smoke.source_training, tokens=tokens, **short),
        anchor_training=replace(smoke.anchor_training, tokens=64, **short),
        recovery=replace(smoke.recovery, tokens=64, **short),
    )
    sys.exit(cli.main(["run", "chain", "--scale", "smoke", "--corpus", sys.argv[1]]))
"""


@pytest.fixture
def long_run(text_folder, tmp_path, monkeypatch):
    """`long_run(steps)`: start it in a process group of its own, as a shell does."""
    monkeypatch.setenv("CBD_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    script = tmp_path / "long_run.py"
    script.write_text(LONG_RUN)
    started = []

    def start(steps: int) -> subprocess.Popen:
        command = [sys.executable, str(script), str(text_folder), str(steps)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # a shell's background job, such as a CI runner, ignores Ctrl-C and hands that on: take it back
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        started.append(subprocess.Popen(command, start_new_session=True, preexec_fn=heed, **pipes))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition, process: subprocess.Popen, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def saved_steps(root: Path) -> list[int]:
    """The newest saved step of each training in flight."""
    return [int(path.name[5:]) for path in root.glob("work/*/state/step-*")]


def group_ends(process: subprocess.Popen, seconds: float = 30) -> bool:
    """Whether all processes that the command started end before long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(map(partial(runs_in, process.pid), psutil.process_iter())):
            return True
        time.sleep(0.05)
    return False


def runs_in(group: int, process: psutil.Process) -> bool:
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    return False


def importing(process: subprocess.Popen) -> bool:
    """Whether a worker of the command, or the server that forks them, imports: it has torch's library."""
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    return any("libtorch" in Path(f"/proc/{child}/maps").read_text() for child in children)


def test_interrupted_a_command_ends_in_one_line_and_then_goes_on(long_run, root):
    process = long_run(120)
    wait_until(lambda: importing(process), process)
    interrupt(process)

    process = long_run(120)
    wait_until(lambda: saved_steps(root), process)
    interrupt(process)
    reached = saved_steps(root)
    assert reached and max(reached) < 120, "it was cut off in the middle"

    process = long_run(120)
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "chain:" in out and not list(root.glob("work/*"))


def interrupt(process: subprocess.Popen) -> None:
    """What Ctrl-C does to a command, its workers included: quickly one line, the status, and nobody left."""
    began = time.monotonic()
    for worker in psutil.Process(process.pid).children(recursive=True):  # in an order that is not defined
        worker.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "\r" not in errors, "this is no terminal"
    said = [line for line in errors.splitlines() if not re.match(r"\[\d+/\d+\] |\w+ \d+x\d+: ", line)]
    assert said == ["cbd: interrupted; the same command goes on where it was"], errors
    assert not out
    assert time.monotonic() - began < 60, "it does not wait for the trainings"
    assert group_ends(process), "no worker is left"


def test_workers_do_not_outlive_a_killed_command(long_run, root):
    process = long_run(100_000)
    wait_until(lambda: saved_steps(root), process)
    process.kill()  # the command alone: its workers get no signal
    process.wait()
    assert group_ends(process), "workers go on after their command was killed"
